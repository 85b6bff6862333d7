"""The one way from images to detections: read, prepare, group by size, detect, restore.

Images are read ahead by threads. One that can't be read is a value among the results, so that the others are not lost.
Everything in here may be called by several threads at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from numbers import Integral
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

import torch
from PIL import Image
from torch import nn

from fpn.detectors.modes import evaluating
from fpn.errors import ConfigError, FpnError
from fpn.image_io import MAX_BYTES, MAX_PIXELS, ImageLike, read_image
from fpn.preprocessing.preprocessor import Prepared, Preprocessor
from fpn.runtime.cores import usable_cores
from fpn.runtime.memory import keep_freed_memory
from fpn.runtime.turns import NETWORKS
from fpn.runtime.waiting import considerate
from fpn.shapes import Size
from fpn.structures import Classes, Detections, ImageBatch, Proposals, Skeleton

TaskName: TypeAlias = Literal["boxes", "masks", "segments", "keypoints", "proposals"]

# Batches that are read before images of about the same size are put together.
BATCHES_AHEAD = 4
# Threads that read and prepare for a network on the CPU. Decoding lets other threads work meanwhile.
READERS = 2
_MOST_READERS = 8

Item = TypeVar("Item")
Result = TypeVar("Result")
Amount = TypeVar("Amount", int, float)


@runtime_checkable
class Predictor(Protocol):
    """What finds objects: a detector, or what was exported from one.

    Attributes:
        classes: the K classes with their original ids.
        class_free: whether it tells none apart, so that all objects of any data are of one class to it.
        preprocessor: from original to network pixels and back.
        bucket: images whose padded sides agree when rounded up to a multiple of this go through the network together.
        tasks: what it gives; each is measured by the task of that name.
        max_detections: the most detections that it gives of an image; None: there is no such limit.
        skeleton: what the keypoints are that it gives; None: it gives none.
        device: where images have to be.
    """

    @property
    def classes(self) -> Classes: ...  # noqa: D102

    @property
    def class_free(self) -> bool: ...  # noqa: D102

    @property
    def preprocessor(self) -> Preprocessor: ...  # noqa: D102

    @property
    def bucket(self) -> int: ...  # noqa: D102

    @property
    def tasks(self) -> tuple[TaskName, ...]: ...  # noqa: D102

    @property
    def max_detections(self) -> int | None: ...  # noqa: D102

    @property
    def skeleton(self) -> Skeleton | None: ...  # noqa: D102

    @property
    def device(self) -> torch.device: ...  # noqa: D102

    def detect(self, images: ImageBatch) -> list[Detections]:
        """B images' detections in network pixels, best first."""

    def predict(self, images: Sequence[ImageLike], *, batch_size: int = 8) -> list[Detections]:
        """Detections in original pixels, one an image; see `Detector.predict`."""


class Proposer(Protocol):
    """A predictor with "proposals" among its tasks."""

    def proposals(self, images: ImageBatch) -> list[Proposals]:
        """B images' class-free candidate boxes in network pixels, best first."""


@dataclass(frozen=True, slots=True)
class ReadImage:
    """One image on its way to the network, or what is wrong with it.

    Attributes:
        prepared: network pixels and how to get back; the error, if it could not be read.
        image: the upright image; None where nobody needs it again, or it could not be read.
    """

    prepared: Prepared | FpnError
    image: Image.Image | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What became of one image.

    Attributes:
        found: in pixels of the original image, on the CPU; the error, if the image could not be read.
        size: of the upright original; None if it could not be read.
        image: the upright image; None unless it was asked for, or if it could not be read.
    """

    found: Detections | FpnError
    size: Size | None = None
    image: Image.Image | None = None


@dataclass(frozen=True, slots=True)
class ImageReader(Generic[Item]):
    """Reads and prepares one image; what is wrong with it is part of what comes back.

    Attributes:
        preprocessor: the predictor's.
        read: from an item, such as a path, to an upright RGB image; raises FpnError.
        keep: also hand the image on.
    """

    preprocessor: Preprocessor
    read: Callable[[Item], Image.Image]
    keep: bool = False

    def __call__(self, item: Item) -> ReadImage:
        """Read one."""
        try:
            image = self.read(item)
            return ReadImage(self.preprocessor.prepare(image), image if self.keep else None)
        except FpnError as error:
            return ReadImage(error)


def predict_images(
    predictor: Predictor,
    images: Iterable[ImageLike],
    *,
    batch_size: int = 8,
    progress: Callable[[int], None] | None = None,
    keep_images: bool = False,
    readers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
) -> Generator[Prediction, None, None]:
    """Find objects in images of any size and kind, one result an image in the order given.

    Results come as soon as their window of `BATCHES_AHEAD` batches is done (with a batch size of 1: one by one), while
    the next one is read.

    Args:
        predictor: what finds them.
        images: as `fpn.image_io.read_image` takes them; drawn on as reading goes.
        batch_size: images that go through the network together, at most: only those of about the same size do.
        progress: called with the number of images done after each batch.
        keep_images: hand out the upright images with what was found in them.
        readers: threads that read ahead; 0: this one reads; None: as suits the predictor's device.
        max_pixels: height times width of a file that is accepted.
        max_bytes: size of a file that is accepted.

    Raises:
        ConfigError: a setting is out of range.
    """
    if not _is_whole(batch_size) or batch_size < 1:
        raise ConfigError(f"batch_size {batch_size!r}: expected a whole number, 1 or more")
    if readers is not None and (not _is_whole(readers) or readers < 0):
        raise ConfigError(f"readers {readers!r}: expected a whole number, 0 or more")
    if max_pixels < 1 or max_bytes < 1:
        raise ConfigError(f"max_pixels {max_pixels}, max_bytes {max_bytes}: must be at least 1")
    readers = reading_threads(predictor) if readers is None else readers
    pixel_range = predictor.preprocessor.config.pixel_range
    read = partial(read_image, pixel_range=pixel_range, max_pixels=max_pixels, max_bytes=max_bytes)
    reader = ImageReader(preparing(predictor), read, keep=keep_images)
    coming = read_ahead(images, reader, ahead=batch_size * BATCHES_AHEAD, readers=readers)
    return predict_read(predictor, coming, batch_size, progress or (lambda _: None))


def _is_whole(number: object) -> bool:
    return isinstance(number, Integral)


def predict_read(
    predictor: Predictor,
    coming: Generator[ReadImage, None, None],
    batch_size: int,
    progress: Callable[[int], None],
) -> Generator[Prediction, None, None]:
    """Find objects in images as they are read, one result an image in their order; see `predict_images`."""
    # Alone in its batch, an image need not wait for others of its size.
    size = batch_size * BATCHES_AHEAD if batch_size > 1 else 1
    done = 0
    with closing(coming):
        while window := list(islice(coming, size)):
            tell = partial(tell_after, progress, done)
            found = deque(_predict_window(predictor, window, batch_size, tell))
            done += len(window)
            window.clear()  # neither pixels nor images stay while the next ones come
            while found:
                yield found.popleft()


def tell_after(progress: Callable[[Amount], None], before: Amount, done: Amount) -> None:
    """Say how much is done in all; `before`: of what came before this part."""
    progress(before + done)


def _predict_window(
    predictor: Predictor, window: Sequence[ReadImage], batch_size: int, progress: Callable[[int], None]
) -> list[Prediction]:
    ready = {number: each.prepared for number, each in enumerate(window) if isinstance(each.prepared, Prepared)}
    found: dict[int, Detections | FpnError] = {
        number: each.prepared for number, each in enumerate(window) if isinstance(each.prepared, FpnError)
    }
    if found:
        progress(len(found))
    for numbers in group_by_size(ready, bucket=predictor.bucket, batch_size=batch_size):
        found |= zip(numbers, detect_batch(predictor, [ready[number] for number in numbers]), strict=True)
        progress(len(found))
    sizes = {number: each.frame.original for number, each in ready.items()}
    return [Prediction(found[number], sizes.get(number), each.image) for number, each in enumerate(window)]


def read_ahead(
    items: Iterable[Item], work: Callable[[Item], Result], *, ahead: int, readers: int
) -> Generator[Result, None, None]:
    """Work on items in threads, at most `ahead` of them before they are asked for; results in the items' order.

    Args:
        items: taken by the calling thread, one after the other, as reading goes on.
        work: what a thread does with one.
        ahead: how many, at least 1.
        readers: threads; 0: the calling one works, and not ahead.
    """
    if readers == 0:
        yield from map(work, items)
        return
    waiting = iter(items)
    with ThreadPoolExecutor(readers, thread_name_prefix="fpn-reader") as pool:
        try:
            coming: deque[Future[Result]] = deque(pool.submit(work, each) for each in islice(waiting, ahead))
            while coming:
                result = coming.popleft().result()
                coming.extend(pool.submit(work, each) for each in islice(waiting, 1))
                yield result
        finally:
            pool.shutdown(cancel_futures=True)


def group_by_size(prepared: Mapping[int, Prepared], *, bucket: int, batch_size: int) -> Iterator[list[int]]:
    """Numbers of images of about the same size, at most `batch_size`: padding costs time, and shows at the rim.

    Args:
        prepared: the images by their numbers.
        bucket: sides count as the same if they agree when rounded up to a multiple of this, in network pixels.
        batch_size: images a group.
    """
    buckets: dict[tuple[int, int], list[int]] = {}
    for number, each in prepared.items():
        height, width = each.pixels.shape[-2:]
        buckets.setdefault((-(-height // bucket), -(-width // bucket)), []).append(number)
    for numbers in buckets.values():
        for start in range(0, len(numbers), batch_size):
            yield numbers[start : start + batch_size]


def detect_batch(predictor: Predictor, prepared: Sequence[Prepared]) -> list[Detections]:
    """Detections of some images, which go through the network together, in original pixels, on the CPU."""
    images = enter(predictor, prepared)
    with detecting(predictor):
        found = predictor.detect(images)
    return leave(predictor, found, prepared)


def enter(predictor: Predictor, prepared: Sequence[Prepared]) -> ImageBatch:
    """Images as one batch, where the predictor wants them."""
    preprocessor, device = predictor.preprocessor, predictor.device
    pixels = [each.pixels if each.normalised else preprocessor.normalise(each, device) for each in prepared]
    return preprocessor.collate(pixels, [each.frame for each in prepared]).to(device)


def preparing(predictor: Predictor) -> Preprocessor:
    """What prepares images for `enter`: a GPU is sent bytes, and normalises them itself."""
    preprocessor = predictor.preprocessor
    return preprocessor if predictor.device.type == "cpu" else replace(preprocessor, deferred=True)


def reading_threads(predictor: Predictor) -> int:
    """How many read ahead: two keep up with a CPU's network, which needs the cores; beside a GPU all of them read."""
    return READERS if predictor.device.type == "cpu" else max(READERS, min(usable_cores(), _MOST_READERS))


def leave(predictor: Predictor, found: Sequence[Detections], prepared: Sequence[Prepared]) -> list[Detections]:
    """What was found in a batch, in pixels of the original images, on the CPU."""
    restore = predictor.preprocessor.restore
    return [restore(each.to("cpu"), image.frame) for each, image in zip(found, prepared, strict=True)]


def _refuse_other_types(predictor: Predictor) -> None:
    """Of a detector as it is trained: its boxes are float32, whatever its maps are."""
    weights = next(predictor.parameters(), None) if isinstance(predictor, nn.Module) else None
    if weights is not None and weights.dtype != torch.float32 and getattr(predictor, "saveable", False):
        raise ConfigError(
            f"the detector's weights are {str(weights.dtype).removeprefix('torch.')}: float32 is expected "
            '(detector.float()). fpn.optimize(detector, "bf16") works in bf16.'
        )


@contextmanager
def detecting(predictor: Predictor) -> Iterator[None]:
    """Nothing is remembered for gradients, what is a module is in evaluation mode, and others get their share.

    What a batch frees is kept for the next one: photos of many sizes took 11 % less processor time and 7 % more memory.

    Raises:
        ConfigError: its weights are of another type than they are trained in.
    """
    keep_freed_memory()
    _refuse_other_types(predictor)
    mode = evaluating(predictor) if isinstance(predictor, nn.Module) else nullcontext()
    with NETWORKS.together(), mode, considerate(), torch.inference_mode():
        yield
