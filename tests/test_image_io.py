from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fpn.errors import DataNotFoundError, ImageError
from fpn.image_io import image_size, read_image

RED, BLUE = (200, 20, 10), (10, 20, 200)


def _two_halves() -> Image.Image:
    """4 high, 6 wide; left half red, right half blue."""
    image = Image.new("RGB", (6, 4), RED)
    image.paste(BLUE, (3, 0, 6, 4))
    return image


def _left_and_right(image: Image.Image) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return image.getpixel((0, 0)), image.getpixel((image.width - 1, image.height - 1))


def test_a_path_gives_rgb(tmp_path) -> None:
    _two_halves().save(tmp_path / "a.png")
    assert _left_and_right(read_image(tmp_path / "a.png")) == (RED, BLUE)


def test_grey_is_repeated(tmp_path) -> None:
    Image.new("L", (5, 3), 77).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").getpixel((0, 0)) == (77, 77, 77)


def test_transparency_lies_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (200, 20, 10, 255))
    image.putpixel((1, 0), (200, 20, 10, 0))
    assert _left_and_right(read_image(image)) == (RED, (255, 255, 255))


def test_palettes_are_resolved(tmp_path) -> None:
    _two_halves().convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.gif")
    assert _left_and_right(read_image(tmp_path / "p.gif")) == (RED, BLUE)


def test_sixteen_bits_are_scaled_to_eight(tmp_path) -> None:
    values = np.array([[0, 256, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    for source in (tmp_path / "deep.png", values):
        assert np.asarray(read_image(source))[0, :, 0].tolist() == [0, 1, 255]


def test_exif_orientation_turns_the_image_upright(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to show
    _two_halves().save(tmp_path / "turned.png", exif=exif)
    read = read_image(tmp_path / "turned.png")
    assert (read.height, read.width) == (6, 4)
    assert _left_and_right(read) == (RED, BLUE)  # red on top, blue below
    assert image_size(tmp_path / "turned.png") == (6, 4)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1), (3, 4, 3), (3, 4, 4)])
def test_uint8_arrays_are_images(shape) -> None:
    read = read_image(np.full(shape, 255, dtype=np.uint8))
    assert (read.mode, read.height, read.width) == ("RGB", 3, 4)
    assert read.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4, 3)), "float64: expected uint8"),
        (np.zeros((3, 4, 5), np.uint8), "(3, 4, 5): expected"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros(4, np.uint8), "(4,): expected"),
    ],
)
def test_other_arrays_are_refused(array, message) -> None:
    with pytest.raises(ImageError) as error:
        read_image(array)
    assert message in str(error.value)


def _png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def _truncated_jpeg() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()[:800]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"hello, I am a text", "not an image of a known format"),
        (_truncated_jpeg(), "damaged"),
        (_png_claiming(100_000, 100_000), "too many pixels"),
        (_png_claiming(15_000, 10_000), "more than the limit of 134 million"),
    ],
    ids=["empty", "text", "truncated", "bomb", "large"],
)
def test_broken_files_are_named_with_what_is_wrong(tmp_path, content, message) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError) as error:
        read_image(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_missing_files_and_folders_say_so(tmp_path) -> None:
    with pytest.raises(DataNotFoundError, match="no such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)


def test_the_limit_of_pixels_is_the_callers_to_set(tmp_path) -> None:
    Image.new("RGB", (100, 10)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", max_pixels=1000).width == 100
    with pytest.raises(ImageError, match="100 x 10"):
        read_image(tmp_path / "a.png", max_pixels=999)
