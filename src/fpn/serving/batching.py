"""Micro-batches: images of several requests go through the network together, by one thread a model."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from fpn.detectors.prediction import Predictor, detect_batch, group_by_size
from fpn.preprocessing.preprocessor import Prepared
from fpn.structures import Detections

logger = logging.getLogger("fpn.serving")


@dataclass(frozen=True, eq=False)
class WaitingImage:
    """An image that waits for the network.

    Attributes:
        prepared: by the predictor's own preprocessor.
        predictor: what is to look at it; another one, once the model's file has changed.
        since: when it came, seconds of `time.monotonic`.
        found: what was found, in pixels of the image.
    """

    prepared: Prepared
    predictor: Predictor
    since: float = field(default_factory=time.monotonic)
    found: Future[Detections] = field(default_factory=Future)


def next_batch(
    waiting: Sequence[WaitingImage], *, batch_size: int, wait: float, now: float
) -> Sequence[WaitingImage] | None:
    """Which images go next: those of the oldest one's size if it has waited long enough, else a full batch.

    Only what would also go together in `predict` does: of one predictor and of about one size, so that padding costs
    no time and changes nothing.

    Args:
        waiting: in the order in which they came, at least one.
        batch_size: images a batch.
        wait: longest that the oldest one waits for others, seconds.
        now: seconds of the clock of `since`.

    Returns:
        None: it is worth to wait for more.
    """
    groups = list(_groups(waiting, batch_size))
    oldest = next(group for group in groups if waiting[0] in group)
    if len(oldest) == batch_size or now - waiting[0].since >= wait:
        return oldest
    return next((group for group in groups if len(group) == batch_size), None)


def _groups(waiting: Sequence[WaitingImage], batch_size: int) -> Iterator[Sequence[WaitingImage]]:
    for predictor in {id(each.predictor): each.predictor for each in waiting}.values():
        own = {number: each.prepared for number, each in enumerate(waiting) if each.predictor is predictor}
        for numbers in group_by_size(own, bucket=predictor.bucket, batch_size=batch_size):
            yield [waiting[number] for number in numbers]


class MicroBatcher:
    """Looks at images in a thread of its own.

    Args:
        name: of the model.
        batch_size: images a batch, at most.
        wait: longest that an image waits for others, seconds.
        done: called after each batch with its images and the seconds that it took, by the thread that detects.
    """

    def __init__(
        self,
        name: str,
        *,
        batch_size: int,
        wait: float,
        done: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        self._batch_size, self._wait, self._done = batch_size, wait, done
        self._waiting: list[WaitingImage] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"fpn-detect-{name}", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def close(self) -> None:
        """Finish what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, prepared: Prepared, predictor: Predictor) -> Future[Detections]:
        """Have an image looked at; cancelled, it is left out unless its batch has begun.

        Raises:
            RuntimeError: the batcher is closed.
        """
        image = WaitingImage(prepared, predictor)
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._waiting.append(image)
            self._changed.notify()
        return image.found

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            began = time.monotonic()
            answers = detect_all(batch)
            self._done(len(batch), time.monotonic() - began)  # before the answers, so that who has his is counted
            for answer in answers:
                answer()
            del batch, answers, answer  # what they hold is not kept while the next one is waited for

    def _next(self) -> list[WaitingImage] | None:
        """The next batch; None: there will be none."""
        with self._changed:
            while True:
                self._waiting = [each for each in self._waiting if not each.found.cancelled()]
                if not self._waiting:
                    if self._closed:
                        return None
                    self._changed.wait()
                    continue
                now = time.monotonic()
                wait = 0.0 if self._closed else self._wait
                chosen = next_batch(self._waiting, batch_size=self._batch_size, wait=wait, now=now)
                if chosen is None:
                    self._changed.wait(max(self._waiting[0].since + wait - now, 0))
                    continue
                self._waiting = [each for each in self._waiting if each not in chosen]
                # From here on it can't be cancelled; what was until now is left out.
                batch = [each for each in chosen if each.found.set_running_or_notify_cancel()]
                if batch:
                    return batch


def detect_all(batch: Sequence[WaitingImage]) -> list[Callable[[], None]]:
    """Look at images of one predictor together. If that fails each is looked at alone, so that one spoils no other.

    Returns:
        What gives each image its answer.
    """
    try:
        found = detect_batch(batch[0].predictor, [each.prepared for each in batch])
    except Exception as error:  # whatever the network raises belongs to the images, not to the thread
        if len(batch) > 1:
            return [answer for each in batch for answer in detect_all([each])]
        logger.exception("detecting failed")
        return [partial(batch[0].found.set_exception, error)]
    return [partial(each.found.set_result, detections) for each, detections in zip(batch, found, strict=True)]
