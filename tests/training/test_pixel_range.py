from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from written_sets import write_text

from fpn.data import open_dataset
from fpn.detectors.model_file import load, read_header, save
from fpn.detectors.presets import faster_rcnn
from fpn.errors import ConfigError
from fpn.evaluation.evaluate import evaluate
from fpn.training.config import TrainConfig
from fpn.training.pixel_range import agree_on_range
from fpn.training.trainer import train

from .tiny import TinyDetector

SETTINGS = TrainConfig(epochs=1, batch_size=2, workers=0, device="cpu", precision="float32")


def written(root: Path, *, most: int = 4000, kind: type = np.uint16) -> Path:
    """Four images of 32 x 48 whose values go from 0 to `most`, one cell in each."""
    for number in range(4):
        values = np.linspace(0, most, 32 * 48).reshape(32, 48).astype(kind)
        path = root / f"images/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(values, number, axis=1)).save(path)
        write_text(root / f"labels/{number}.txt", "0 0.5 0.5 0.5 0.5\n")
    write_text(root / "classes.txt", "cell\n")
    return root


def test_the_range_that_fits_the_data_becomes_the_detectors(tmp_path: Path) -> None:
    dataset, detector = open_dataset(written(tmp_path)), TinyDetector(["cell"])
    seen, held, notes = agree_on_range(detector, dataset, dataset.subset([1]))
    assert detector.preprocessor.config.pixel_range == detector.recipe.dialect.pixels.pixel_range == (0, 4095)
    assert notes == ["images of more than 8 bits: 0 becomes black and 4095 white, here and with the model"]
    assert held is not None
    # 4000 of 4095 is 249 of 255; without a range it was 15.
    assert [np.asarray(each.image(0)).max() for each in (seen, held, dataset)] == [249, 249, 15]


def test_what_was_said_wins_and_then_what_the_detector_learned_before(tmp_path: Path) -> None:
    root, detector = written(tmp_path), TinyDetector(["cell"])
    agree_on_range(detector, open_dataset(root, pixel_range=(0.0, 8000.0)), None)
    assert detector.preprocessor.config.pixel_range == (0, 8000)
    seen, _, _ = agree_on_range(detector, open_dataset(root), None)
    assert detector.preprocessor.config.pixel_range == (0, 8000)
    assert np.asarray(seen.image(0)).max() == 128


def test_a_range_of_which_images_use_little_or_which_they_leave_is_told(tmp_path: Path) -> None:
    root = written(tmp_path)
    for said in ((0.0, 65535.0), (0.0, 1000.0)):
        *_, notes = agree_on_range(TinyDetector(["cell"]), open_dataset(root, pixel_range=said), None)
        assert notes[1].startswith("warning: ")
        assert "values of 0 to 4000 are seen with 0 as black" in notes[1]


def test_images_of_eight_bits_have_no_range(tmp_path: Path) -> None:
    dataset, detector = open_dataset(written(tmp_path, most=255, kind=np.uint8)), TinyDetector(["cell"])
    assert agree_on_range(detector, dataset, None) == (dataset, None, [])
    assert detector.preprocessor.config.pixel_range is None


def test_training_learns_and_measures_with_it(tmp_path: Path) -> None:
    dataset, detector = open_dataset(written(tmp_path / "set")), TinyDetector(["cell"])
    train(detector, dataset, SETTINGS, validation=dataset, output=tmp_path / "run", progress=False)
    header = read_header(tmp_path / "run/best.safetensors")
    assert header["recipe"]["dialect"]["pixels"]["pixel_range"] == [0, 4095]
    assert evaluate(detector, dataset, workers=0).images == 4
    with pytest.raises(ConfigError, match="pixel range 0 to 9, but the detector learned with 0 to 4095"):
        evaluate(detector, open_dataset(tmp_path / "set", pixel_range=(0.0, 9.0)), workers=0)


def test_a_loaded_model_sees_files_and_arrays_as_it_learned_them(tmp_path: Path) -> None:
    root = written(tmp_path / "set")
    made = faster_rcnn(
        classes=["cell"], backbone="tf_efficientnet_lite0", weights=None, short_side=32, channels=8, head_width=8
    )
    save(made, tmp_path / "plain.safetensors")
    assert load(tmp_path / "plain.safetensors").preprocessor.config.pixel_range is None
    made.see_range((0.0, 4095.0))
    detector = load(save(made, tmp_path / "ranged.safetensors"))
    path = root / "images/0.png"
    values = np.asarray(Image.open(path)).astype(np.uint16)
    as_learned = np.rint(values * (255 / 4095)).astype(np.uint8)
    of_file, of_array, of_bytes = detector.predict([path, values, as_learned], batch_size=1)
    assert of_file.boxes.tolist() == of_array.boxes.tolist() == of_bytes.boxes.tolist()
    assert of_file.scores.tolist() == of_array.scores.tolist() == of_bytes.scores.tolist()
    assert len(of_file) > 0


def test_a_range_without_extent_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"pixel_range \(9.0, 9.0\): expected the value of black and a higher one"):
        TinyDetector(["cell"]).see_range((9.0, 9.0))
