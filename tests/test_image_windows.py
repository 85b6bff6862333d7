from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fpn.errors import DataNotFoundError, ImageError, MissingExtraError
from fpn.image_windows import open_windows
from fpn.shapes import Size

rasterio = pytest.importorskip("rasterio")


def _noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape)
    return values.astype(dtype)


def _write(path: Path, values: np.ndarray, **profile: object) -> Path:
    """(bands, H, W) as a file of GDAL's."""
    bands, height, width = values.shape
    with rasterio.open(path, "w", width=width, height=height, count=bands, dtype=values.dtype, **profile) as out:
        out.write(values)
    return path


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
class TestFilesReadInParts:
    @pytest.mark.parametrize("bands", [1, 3])
    def test_a_window_has_the_pixels_that_the_whole_image_has_there(self, tmp_path: Path, bands: int) -> None:
        values = _noise(bands, 90, 120)
        path = _write(tmp_path / "a.tif", values, driver="GTiff", tiled=True, blockxsize=32, blockysize=32)
        with open_windows(path, max_pixels=5000) as windows:
            assert windows.size == Size(90, 120)
            part = np.asarray(windows.read((10, 20, 70, 85)))
        expected = np.broadcast_to(values, (3, 90, 120)).transpose(1, 2, 0)[20:85, 10:70]
        assert np.array_equal(part, expected)

    def test_a_lossless_jpeg_2000_is_read_whatever_its_size(self, tmp_path: Path) -> None:
        values = _noise(3, 64, 80)
        path = _write(tmp_path / "a.jp2", values, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
        with open_windows(path) as windows:
            assert np.array_equal(np.asarray(windows.read((5, 6, 50, 60))), values.transpose(1, 2, 0)[6:60, 5:50])

    def test_a_bigtiff_is_read(self, tmp_path: Path) -> None:
        values = _noise(3, 40, 50)
        path = _write(tmp_path / "a.tif", values, driver="GTiff", BIGTIFF="YES")
        with open_windows(path) as windows:
            assert np.array_equal(np.asarray(windows.read((0, 0, 50, 40))), values.transpose(1, 2, 0))

    def test_sixteen_bits_become_eight_as_in_an_image_that_is_held(self, tmp_path: Path) -> None:
        values = _noise(1, 60, 70, dtype=np.uint16)
        path = _write(tmp_path / "a.tif", values, driver="GTiff", tiled=True, blockxsize=32, blockysize=32)
        for pixel_range in (None, (100.0, 4000.0)):
            with open_windows(path, pixel_range=pixel_range) as held:
                expected = np.asarray(held.read((8, 8, 60, 50)))
            with open_windows(path, pixel_range=pixel_range, max_pixels=2000) as parts:
                assert np.array_equal(np.asarray(parts.read((8, 8, 60, 50))), expected)

    def test_an_overview_is_no_longer_than_asked_for(self, tmp_path: Path) -> None:
        path = _write(tmp_path / "a.tif", np.full((3, 90, 120), 77, np.uint8), driver="GTiff")
        with open_windows(path, max_pixels=10_000) as windows:
            overview = windows.overview(40)
        assert overview.size == (40, 30)
        assert set(np.unique(np.asarray(overview))) == {77}

    def test_blocks_that_are_larger_than_the_limit_are_refused_with_the_remedy(self, tmp_path: Path) -> None:
        path = _write(tmp_path / "a.tif", _noise(1, 64, 100), driver="GTiff", blockysize=64)
        with pytest.raises(ImageError, match="TILED=YES"), open_windows(path, max_pixels=5000):
            pass

    def test_channels_that_are_no_colour_are_refused(self, tmp_path: Path) -> None:
        five = _write(tmp_path / "five.tif", _noise(5, 64, 100), driver="GTiff", blockysize=8)
        infrared = _write(
            tmp_path / "four.tif", _noise(4, 64, 100), driver="GTiff", blockysize=8, photometric="RGB", ALPHA="NO"
        )
        with pytest.raises(ImageError, match="5 channels"), open_windows(five, max_pixels=5000):
            pass
        with pytest.raises(ImageError, match="fourth channel"), open_windows(infrared, max_pixels=5000):
            pass

    def test_a_damaged_part_is_an_error_that_names_file_and_place(self, tmp_path: Path) -> None:
        path = _write(tmp_path / "a.tif", _noise(1, 200, 200), driver="GTiff", compress="deflate", blockysize=8)
        broken = bytearray(path.read_bytes())
        broken[len(broken) // 2 : len(broken) // 2 + 400] = bytes(400)
        path.write_bytes(broken)
        with open_windows(path, max_pixels=10_000) as windows, pytest.raises(ImageError, match=r"a\.tif: .*y 0"):
            windows.read((0, 0, 200, 200))

    def test_without_the_extra_the_error_names_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = _write(tmp_path / "a.tif", _noise(3, 64, 100), driver="GTiff")
        monkeypatch.setitem(sys.modules, "rasterio", None)
        with pytest.raises(MissingExtraError, match=r"fpn\[large\]"), open_windows(path, max_pixels=5000):
            pass


def test_an_image_within_the_limit_is_read_at_once_and_upright(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(_noise(20, 30, 3)).save(path, exif=exif)
    with open_windows(path) as windows:
        assert windows.size == Size(30, 20)
        assert windows.read((0, 0, 5, 7)).size == (5, 7)


def test_a_missing_file_is_said_as_ever(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="no such file"), open_windows(tmp_path / "no.tif"):
        pass
