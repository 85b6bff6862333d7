from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from written_sets import write_text

from fpn.data import open_dataset
from fpn.data.checks.brightness import find_pixel_range, unfitting
from fpn.data.checks.inspection import check
from fpn.errors import ImageError


def _dataset(root: Path, images: dict[str, np.ndarray]) -> Path:
    for name, values in images.items():
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(root / "images" / name)
        write_text(root / "labels" / f"{Path(name).stem}.txt", "0 0.5 0.5 0.5 0.5\n")
    write_text(root / "classes.txt", "cell\n")
    return root


def _ramp(low: float, high: float, kind: type = np.uint16) -> np.ndarray:
    return np.linspace(low, high, 64).reshape(8, 8).astype(kind)


def test_twelve_bits_in_sixteen_are_told_with_the_range_that_fits(tmp_path: Path) -> None:
    data = _dataset(tmp_path, {"a.png": _ramp(10, 4000), "b.png": _ramp(0, 200)})
    found = [each.message for each in check(data).of("image-dark")]
    fits = "too dark; pixel_range=(0, 4095) would fit the dataset"
    assert found == [
        f"images/a.png: values 10 to 4000 in a range of 0 to 65535, {fits}",
        f"images/b.png: values 0 to 200 in a range of 0 to 65535, {fits}",
    ]


def test_a_declared_range_is_used_for_every_image(tmp_path: Path) -> None:
    data = _dataset(tmp_path, {"a.png": _ramp(0, 4095), "b.png": _ramp(0, 1023)})
    dataset = open_dataset(data, pixel_range=(0.0, 4095.0))
    # 1023 of 4095 is 63.7 of 255.
    assert [int(np.asarray(dataset.image(k)).max()) for k in (0, 1)] == [255, 64]
    assert dataset.subset([1]).pixel_range == (0, 4095)
    assert int(np.asarray(dataset.subset([1]).image(0)).max()) == 64
    with pytest.raises(ImageError, match="pixel range 9 to 1"):
        open_dataset(data, pixel_range=(9.0, 1.0))


def test_the_range_of_a_dataset_is_found_over_all_its_images(tmp_path: Path) -> None:
    deep = _dataset(tmp_path / "deep", {"a.png": _ramp(0, 900), "b.png": _ramp(0, 16000)})
    assert find_pixel_range(open_dataset(deep)) == (0, 16383)
    plain = _dataset(tmp_path / "plain", {"a.png": _ramp(0, 255, np.uint8)})
    assert find_pixel_range(open_dataset(plain)) is None
    floats = _dataset(tmp_path / "floats", {"a.tif": _ramp(-1, 2, np.float32), "b.tif": _ramp(0, 8, np.float32)})
    assert find_pixel_range(open_dataset(floats)) == (-1, 8)


def test_floats_that_are_stretched_each_by_itself_are_told(tmp_path: Path) -> None:
    data = _dataset(tmp_path, {"a.tif": _ramp(0, 2, np.float32)})
    (found,) = check(data).of("image-dark")
    assert "images/a.tif: values 0 to 2 of more than 16 bits, stretched by itself" in found.message


def test_sixteen_bits_that_are_used_are_no_finding(tmp_path: Path) -> None:
    assert check(_dataset(tmp_path, {"a.png": _ramp(0, 60000)})).of("image-dark") == []


def test_further_pages_of_a_tiff_are_told(tmp_path: Path) -> None:
    data = _dataset(tmp_path, {"a.tif": _ramp(0, 255, np.uint8)})
    pages = [Image.fromarray(_ramp(0, 255, np.uint8)) for _ in range(3)]
    pages[0].save(data / "images/a.tif", save_all=True, append_images=pages[1:])
    (found,) = check(data).of("image-part-unread")
    assert found.message == "images/a.tif: has 3 pages or frames, of which the first is read"


def test_a_jpeg_cut_short_is_told_and_does_not_stop(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (160, 64, 3), dtype=np.uint8)
    data = _dataset(tmp_path, {"a.jpg": noise})
    path = data / "images/a.jpg"
    path.write_bytes(path.read_bytes()[:-20])
    report = check(data)
    assert [each.file for each in report.of("image-cut-short")] == ["images/a.jpg"]
    assert report.passed


def test_one_image_of_sixteen_bits_is_found_among_many_of_eight(tmp_path: Path) -> None:
    plain = {f"{k:02}.jpg": _ramp(0, 255, np.uint8) for k in range(30)}
    data = _dataset(tmp_path, {**plain, "13b.png": _ramp(1872, 3840)})
    assert find_pixel_range(open_dataset(data)) == (0, 4095)


def test_images_that_a_range_does_not_fit_are_told_by_name(tmp_path: Path) -> None:
    _dataset(tmp_path, {"a.png": _ramp(0, 60000), "b.png": _ramp(1872, 3840)})
    paths = [str(tmp_path / "images/b.png")]
    seen = "photos: values of 1872 to 3840 are seen with 0 as black and 65535 as white"
    assert unfitting("photos", paths, None) == f"{seen}, so that little can be told apart, such as in {paths[0]}"
    assert unfitting("photos", paths, (0.0, 4095.0)) is None
