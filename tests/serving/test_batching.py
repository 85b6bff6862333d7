from __future__ import annotations

import copy
import threading
from concurrent.futures import Future
from typing import Any

import pytest
import torch

from fpn.preprocessing.frame import Frame
from fpn.preprocessing.preprocessor import Prepared
from fpn.serving import batching
from fpn.serving.batching import MicroBatcher, WaitingImage, next_batch
from fpn.shapes import Size
from fpn.structures import Detections


def prepared(height: int, width: int) -> Prepared:
    size = Size(height, width)
    return Prepared(torch.zeros(3, height, width), None, Frame(size, size, (1.0, 1.0)))


class TestWhichGoNext:
    @pytest.fixture(autouse=True)
    def _predictor(self, loaded: Any) -> None:
        assert loaded.bucket == 32
        self.predictor = loaded

    def image(self, height: int, width: int, *, since: float = 0.0, predictor: Any = None) -> WaitingImage:
        return WaitingImage(prepared(height, width), predictor or self.predictor, since)

    def chosen(self, waiting: list[WaitingImage], *, now: float) -> list[int] | None:
        batch = next_batch(waiting, batch_size=2, wait=1.0, now=now)
        return None if batch is None else [waiting.index(each) for each in batch]

    def test_one_alone_waits_for_others_as_long_as_it_may(self) -> None:
        assert self.chosen([self.image(64, 64, since=5.0)], now=5.9) is None
        assert self.chosen([self.image(64, 64, since=5.0)], now=6.0) == [0]

    def test_a_full_batch_waits_for_nothing(self) -> None:
        assert self.chosen([self.image(64, 64), self.image(60, 50)], now=0.0) == [0, 1]

    def test_sizes_whose_padding_differs_do_not_go_together(self) -> None:
        # 64 and 65 pixels are padded to 64 and 96.
        waiting = [self.image(64, 64), self.image(64, 65), self.image(64, 40), self.image(64, 66)]
        assert self.chosen(waiting, now=0.0) == [0, 2]
        assert self.chosen(waiting[:2], now=0.0) is None

    def test_a_full_batch_of_another_size_goes_before_one_that_may_wait_but_not_before_one_that_waited(self) -> None:
        waiting = [self.image(32, 32), self.image(64, 64), self.image(64, 64)]
        assert self.chosen(waiting, now=0.5) == [1, 2]
        assert self.chosen(waiting, now=1.0) == [0]

    def test_images_of_a_model_before_and_after_its_file_changed_do_not_go_together(self) -> None:
        assert self.chosen([self.image(64, 64), self.image(64, 64, predictor=copy.copy(self.predictor))], now=1.0) == [
            0
        ]


def _found(predictor: Any, images: list[Prepared]) -> list[Detections]:
    """The first class at the height of each image; one of 13 rows fails, as does whatever is with it."""
    heights = [int(each.pixels.shape[1]) for each in images]
    if 13 in heights:
        raise ValueError("13 rows")
    return [Detections(torch.full((1, 4), h), torch.ones(1), torch.zeros(1, dtype=torch.int64)) for h in heights]


class TestTheThread:
    @pytest.fixture(autouse=True)
    def _no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(batching, "detect_batch", _found)

    def test_each_image_gets_its_own_result(self, loaded: Any) -> None:
        seen: list[int] = []
        batcher = MicroBatcher("m", batch_size=3, wait=0.0, done=lambda images, seconds: seen.append(images))
        futures = [batcher.submit(prepared(height, 8), loaded) for height in (5, 40, 7)]
        batcher.start()
        assert [int(each.result(60).boxes[0, 0]) for each in futures] == [5, 40, 7]
        batcher.close()
        assert sorted(seen) == [1, 2]

    def test_an_image_that_breaks_the_network_spoils_no_other(self, loaded: Any) -> None:
        batcher = MicroBatcher("m", batch_size=3, wait=0.0)
        futures = [batcher.submit(prepared(height, 8), loaded) for height in (5, 13, 7)]
        batcher.start()
        assert int(futures[0].result(60).boxes[0, 0]) == 5
        with pytest.raises(ValueError, match="13 rows"):
            futures[1].result(60)
        assert int(futures[2].result(60).boxes[0, 0]) == 7
        batcher.close()

    def test_what_was_cancelled_is_not_looked_at(self, monkeypatch: pytest.MonkeyPatch, loaded: Any) -> None:
        looked: list[int] = []
        monkeypatch.setattr(batching, "detect_batch", lambda p, images: looked.append(len(images)) or _found(p, images))
        batcher = MicroBatcher("m", batch_size=3, wait=0.0)
        futures = [batcher.submit(prepared(5, 8), loaded) for _ in range(3)]
        futures[1].cancel()
        batcher.start()
        futures[2].result(60)
        batcher.close()
        assert looked == [2]

    def test_closing_finishes_what_waits_and_takes_no_more(self, loaded: Any) -> None:
        batcher = MicroBatcher("m", batch_size=8, wait=1000.0)
        batcher.start()
        future: Future[Detections] = batcher.submit(prepared(5, 8), loaded)
        threading.Thread(target=batcher.close).start()
        assert len(future.result(60)) == 1
        batcher.close()
        with pytest.raises(RuntimeError, match="closed"):
            batcher.submit(prepared(5, 8), loaded)
