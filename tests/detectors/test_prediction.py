from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest
import torch
from PIL import Image
from torch._dynamo.exc import TorchDynamoException

from fpn.detectors import PAPER, Preprocessor, TwoStageDetector
from fpn.detectors.prediction import Predictor, group_by_size, predict_images, preparing, read_ahead
from fpn.errors import ConfigError, DataNotFoundError, ImageError
from fpn.image_io import ImageLike
from fpn.inference.optimize import optimize
from fpn.preprocessing.frame import Frame
from fpn.preprocessing.preprocessor import Prepared
from fpn.shapes import Size
from fpn.structures import Classes, Detections, ImageBatch, Skeleton

PIXELS = PAPER.changed(pixels={"mean": (0.0,) * 3, "std": (1.0,) * 3, "short_side": 64, "long_side": 256}).pixels


@dataclass
class Exported:
    """No module: finds one box in each image, the image itself, and notes how many came together."""

    classes: Classes = field(default_factory=lambda: Classes.of(["cell"]))
    class_free: bool = False
    preprocessor: Preprocessor = field(default_factory=lambda: Preprocessor(PIXELS))
    bucket: int = 32
    max_detections: int | None = None
    tasks: tuple[str, ...] = ("boxes",)
    skeleton: Skeleton | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    together: list[int] = field(default_factory=list)

    def detect(self, images: ImageBatch) -> list[Detections]:
        assert torch.is_inference_mode_enabled()
        self.together.append(len(images))
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        return [
            Detections(whole * size.flip(0).repeat(2), torch.ones(1), torch.zeros(1, dtype=torch.int64))
            for size in images.sizes
        ]

    def predict(self, images: Sequence[ImageLike], *, batch_size: int = 8) -> list[Detections]:
        return [each.found for each in predict_images(self, images, batch_size=batch_size)]  # type: ignore[misc]


def _grey(height: int, width: int) -> Image.Image:
    return Image.new("RGB", (width, height), (90, 90, 90))


def _noise(height: int, width: int, seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _prepared(height: int, width: int) -> Prepared:
    size = Size(height, width)
    return Prepared(torch.zeros(3, height, width), None, Frame(size, size, (1.0, 1.0)))


def test_weights_of_another_type_are_refused_with_the_remedy(small) -> None:
    other = copy.deepcopy(small).half()
    with pytest.raises(ConfigError, match=r"weights are float16: float32 is expected \(detector\.float\(\)\)"):
        other.predict([np.zeros((64, 64, 3), dtype=np.uint8)])


def test_what_is_no_module_predicts_all_the_same() -> None:
    predictor = Exported()
    assert isinstance(predictor, Predictor)
    small, large = predictor.predict([_grey(30, 40), _grey(128, 100)])
    # The whole image each, in its own pixels.
    assert small.boxes.tolist() == [pytest.approx([0, 0, 40, 30], abs=0.3)]
    assert large.boxes.tolist() == [pytest.approx([0, 0, 100, 128], abs=0.8)]


def test_an_unreadable_image_is_a_value_among_the_others(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("cats")
    told: list[int] = []
    images = [_grey(64, 64), tmp_path / "none.jpg", _grey(64, 96), tmp_path / "text.jpg"]
    found = list(predict_images(Exported(), images, progress=told.append, keep_images=True))
    assert [type(each.found) for each in found] == [Detections, DataNotFoundError, Detections, ImageError]
    assert [each.size for each in found] == [Size(64, 64), None, Size(64, 96), None]
    assert [each.image is None for each in found] == [False, True, False, True]
    # Two could not be read; the two others differ in size and come one after the other.
    assert told == [2, 3, 4]


def test_images_are_handed_out_only_if_asked_for() -> None:
    [found] = predict_images(Exported(), [_grey(64, 64)])
    assert found.image is None


def test_alone_in_its_batch_an_image_comes_at_once_and_others_come_by_windows() -> None:
    alone, together = Exported(), Exported()
    next(predict_images(alone, [_grey(64, 64)] * 9, batch_size=1))
    assert alone.together == [1]
    # Four batches of two are read before the first one is detected.
    next(predict_images(together, [_grey(64, 64)] * 9, batch_size=2))
    assert together.together == [2, 2, 2, 2]


def test_images_are_taken_as_reading_goes_and_no_further() -> None:
    taken: list[int] = []

    def images() -> Iterator[Image.Image]:
        for number in range(100):
            taken.append(number)
            yield _grey(64, 64)

    found = predict_images(Exported(), images(), batch_size=1)
    next(found)
    # Four ahead of the first one.
    assert taken == [0, 1, 2, 3, 4]
    found.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("fpn-reader")]


@pytest.mark.parametrize("readers", [0, 1, 3])
def test_readers_change_nothing_but_the_thread(readers: int) -> None:
    images = [_noise(64, width, seed=width) for width in (64, 100, 64, 70)]
    found = list(predict_images(Exported(), images, readers=readers, batch_size=2))
    assert [each.size.width for each in found if each.size] == [64, 100, 64, 70]


@pytest.mark.parametrize("setting", ["batch_size", "max_pixels", "max_bytes"])
def test_settings_out_of_range_are_refused_before_anything_is_read(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} 0"):
        predict_images(Exported(), [Path("none.jpg")], **{setting: 0})


def test_images_of_about_the_same_size_go_together() -> None:
    # Rounded up to multiples of 32: 64x96, 64x96, 96x96, 64x96, 64x96.
    sizes = [(64, 90), (60, 96), (65, 90), (33, 65), (64, 96)]
    prepared = {number: _prepared(*size) for number, size in enumerate(sizes)}
    assert list(group_by_size(prepared, bucket=32, batch_size=3)) == [[0, 1, 3], [4], [2]]


def test_results_of_reading_ahead_keep_their_order() -> None:
    later = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert later.wait(10), "the second one is worked on meanwhile"
        else:
            later.set()
        return number * number

    assert list(read_ahead([0, 1, 2], work, ahead=2, readers=2)) == [0, 1, 4]


def test_reading_ahead_stops_where_it_is_left() -> None:
    done: list[int] = []
    numbers = read_ahead(range(100), done.append, ahead=3, readers=1)
    assert next(numbers) is None
    numbers.close()
    assert len(done) <= 4


def test_without_readers_nothing_is_read_ahead() -> None:
    done: list[int] = []
    assert list(islice(read_ahead(range(100), done.append, ahead=3, readers=0), 2)) == [None, None]
    assert done == [0, 1]


def test_four_threads_find_the_same_to_the_bit_and_leave_the_modes_as_they_were(small: TwoStageDetector) -> None:
    detector = copy.deepcopy(small)
    images = [_noise(*size, seed=number) for number, size in enumerate([(64, 96), (96, 64), (64, 90), (40, 200)])]
    wanted = detector.predict(images, batch_size=2)
    detector.train()
    modes = [part.training for part in detector.modules()]
    assert all(modes[:1])
    _assert_threads_find(detector, images, wanted)
    assert [part.training for part in detector.modules()] == modes


def test_four_threads_find_the_same_with_an_optimized_detector(small: TwoStageDetector) -> None:
    detector = optimize(small)
    # Of several sizes, so that weights in oneDNN's order are made again and again.
    images = [_noise(*size, seed=number) for number, size in enumerate([(64, 96), (96, 64), (64, 160), (40, 200)])]
    _assert_threads_find(detector, images, detector.predict(images, batch_size=2))


def test_compiling_that_fails_in_four_threads_is_noted_once(
    small: TwoStageDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: name)
    detector, barrier = optimize(small, compile=True), Barrier(4)

    def fail(pixels: torch.Tensor) -> None:
        barrier.wait(30)
        raise TorchDynamoException("no such header")

    detector.inner.compiled_dense = fail
    image = _noise(64, 96, seed=0)
    found: list[Detections] = []
    _run_together([lambda: found.extend(detector.predict([image]))] * 4)
    assert detector.info.notes == ("not compiled, because compiling failed (TorchDynamoException)",)
    assert len(found) == 4
    [wanted] = optimize(small).predict([image])
    for each in found:
        assert torch.equal(each.boxes, wanted.boxes)


def _assert_threads_find(detector: Predictor, images: list[Image.Image], wanted: list[Detections]) -> None:
    found: dict[int, list[Detections]] = {}
    barrier = Barrier(4)

    def work(number: int) -> None:
        barrier.wait(30)
        for _ in range(3):
            found[number] = detector.predict(images, batch_size=2)

    _run_together([lambda number=number: work(number) for number in range(4)])
    assert len(found) == 4
    for of_thread in found.values():
        for one, other in zip(of_thread, wanted, strict=True):
            assert len(other) > 0
            assert torch.equal(one.boxes, other.boxes)
            assert torch.equal(one.scores, other.scores)
            assert torch.equal(one.labels, other.labels)


def _run_together(works: list) -> None:
    threads = [Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_device_that_is_no_cpu_is_sent_bytes() -> None:
    assert preparing(Exported()).prepare(_grey(64, 64)).normalised
    far = preparing(Exported(device=torch.device("meta"))).prepare(_grey(64, 64))
    assert (far.normalised, far.pixels.dtype, tuple(far.pixels.shape)) == (False, torch.uint8, (3, 64, 64))
