from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fpn.errors import DataNotFoundError, ImageError
from fpn.image_io import CUT_SHORT, ImageWarning, image_size, read_image, read_reduced
from fpn.shapes import Size

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
        (_png_claiming(100_000, 100_000), "is 10000 million pixels, more than the limit of 134 million"),
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


def test_sizes_above_pillows_own_limit_are_known_and_its_limit_stays(tmp_path) -> None:
    path, theirs = tmp_path / "large.png", Image.MAX_IMAGE_PIXELS
    path.write_bytes(_png_claiming(100_000, 90_000))
    assert set(image_size(path)) == {100_000, 90_000}
    assert theirs == Image.MAX_IMAGE_PIXELS


def test_missing_files_and_folders_say_so(tmp_path) -> None:
    with pytest.raises(DataNotFoundError, match="no such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("target", ["nope", "link.jpg"])
def test_a_link_that_leads_nowhere_is_told_as_one(tmp_path, target) -> None:
    (tmp_path / "link.jpg").symlink_to(target)
    with pytest.raises(DataNotFoundError, match=f"link.jpg: a link that leads nowhere, to {target}"):
        read_image(tmp_path / "link.jpg")


def test_the_limit_of_pixels_is_the_callers_to_set(tmp_path) -> None:
    Image.new("RGB", (100, 10)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", max_pixels=1000).width == 100
    with pytest.raises(ImageError, match="100 x 10"):
        read_image(tmp_path / "a.png", max_pixels=999)


def _deep(path, values, kind=np.uint16):
    Image.fromarray(np.array(values, dtype=kind)).save(path)
    return path


def test_sixteen_bits_are_scaled_alike_whatever_an_image_holds(tmp_path) -> None:
    # 255 of 65535 is black, in a file, in an array, and beside brighter images.
    dark = [[0, 255], [128, 200]]
    for source in (_deep(tmp_path / "a.png", dark), _deep(tmp_path / "a.tif", dark), np.array(dark, np.uint16)):
        assert int(np.asarray(read_image(source)).max()) == 0


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_a_pixel_range_says_what_is_black_and_white(tmp_path, suffix) -> None:
    values = [[0, 1000], [3000, 5000]]
    sources = [np.array(values, np.uint16)]
    if suffix == ".pgm":  # which says itself that 65535 is white
        body = np.array(values, ">u2").tobytes()
        (tmp_path / "a.pgm").write_bytes(b"P5 2 2 65535\n" + body)
        sources.append(tmp_path / "a.pgm")
    else:
        sources.append(_deep(tmp_path / f"a{suffix}", values))
    for source in sources:
        # (0 - 1000) is below black, 1000 black, 3000 in the middle of 1000 to 5000 (127.5), 5000 white.
        seen = np.asarray(read_image(source, pixel_range=(1000.0, 5000.0)))[:, :, 0].tolist()
        assert seen == [[0, 0], [128, 255]]


def test_a_pixel_range_leaves_images_of_eight_bits_alone(tmp_path) -> None:
    Image.new("L", (2, 2), 77).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", pixel_range=(0.0, 4095.0)).getpixel((0, 0)) == (77, 77, 77)


def test_floats_follow_a_range_in_files_and_arrays(tmp_path) -> None:
    values = [[0.0, 0.5], [1.0, 2.0]]
    path = _deep(tmp_path / "a.tif", values, np.float32)
    for source in (path, np.array(values), np.array(values, np.float32)):
        assert np.asarray(read_image(source, pixel_range=(0.0, 1.0)))[:, :, 0].tolist() == [[0, 128], [255, 255]]


@pytest.mark.parametrize("pixel_range", [(5.0, 5.0), (9.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_a_range_without_extent_is_refused(pixel_range) -> None:
    with pytest.raises(ImageError, match="pixel range"):
        read_image(np.zeros((2, 2), np.uint16), pixel_range=pixel_range)


def test_values_that_are_no_numbers_are_told_with_their_file(tmp_path) -> None:
    path = _deep(tmp_path / "scan7.tif", [[0.0, float("nan")]], np.float32)
    with pytest.raises(ImageError, match=r"scan7\.tif: the image holds values that are not finite"):
        read_image(path)


def test_colour_of_sixteen_bits_takes_no_range(tmp_path) -> None:
    path = tmp_path / "deep.png"
    path.write_bytes(_png_of_deep_colour())
    assert read_image(path).getpixel((0, 0)) == (15, 15, 15)
    with pytest.raises(ImageError, match=r"deep\.png: has 16 bits a channel in colour"):
        read_image(path, pixel_range=(0.0, 4095.0))


def _png_of_deep_colour() -> bytes:
    """One pixel, 4095 of 65535 in each channel."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    pixels = b"\0" + struct.pack(">HHH", 4095, 4095, 4095)
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def test_a_tiff_of_five_channels_says_how_many_it_has(tmp_path) -> None:
    # Little endian, one strip of 2 x 2 pixels of 5 channels: width, height, bits, compression, photometric,
    # strip's offset, samples a pixel, rows, bytes.
    tags = [(256, 3, 2), (257, 3, 2), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 200), (277, 3, 5), (278, 3, 2)]
    tags.append((279, 4, 20))
    entries = b"".join(struct.pack("<HHII", number, kind, 1, value) for number, kind, value in tags)
    body = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    (tmp_path / "a.tif").write_bytes(body.ljust(200, b"\0") + bytes(20))
    with pytest.raises(ImageError, match=r"a\.tif: a TIFF of 5 channels"):
        read_image(tmp_path / "a.tif")


def _jpeg(height: int = 160, **options) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (height, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}], ids=["plain", "progressive", "small"])
def test_a_jpeg_without_its_last_bytes_is_used_with_a_warning(tmp_path, options) -> None:
    whole = _jpeg(**options)
    (tmp_path / "whole.jpg").write_bytes(whole)
    (tmp_path / "cut.jpg").write_bytes(whole[:-20])
    with pytest.warns(ImageWarning, match=r"cut\.jpg: the file is cut short"):
        cut = read_image(tmp_path / "cut.jpg")
    assert "missing" in cut.info[CUT_SHORT]
    assert CUT_SHORT not in read_image(tmp_path / "whole.jpg").info
    # 20 bytes are less than one row of blocks: what lies above it is as it was.
    same = np.asarray(cut)[:128] == np.asarray(read_image(tmp_path / "whole.jpg"))[:128]
    assert bool(same.all()) or "progressive" in options
    with pytest.warns(ImageWarning, match="cut short"):
        reduced, full = read_reduced(tmp_path / "cut.jpg", lambda size: Size(40, 16))
    assert (reduced.size, full) == ((16, 40), (160, 64))


def test_a_jpeg_cut_in_half_is_damaged(tmp_path) -> None:
    whole = _jpeg()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"half\.jpg: the image is damaged \(cut short: the last \d+ of 160 rows"):
        read_image(tmp_path / "half.jpg")


def test_a_heif_file_says_what_reads_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("fpn.image_io._heif_is_there", lambda: False)
    (tmp_path / "IMG_3.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    with pytest.raises(ImageError, match=r"IMG_3\.HEIC: a HEIF image\. Install the extra"):
        read_image(tmp_path / "IMG_3.HEIC")
