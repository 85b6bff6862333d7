"""What a toolkit found, from an `.npz`: arrays as NumPy writes them, and what is refused before it takes memory."""

import io
import struct
import zipfile

import numpy as np
import pytest

from fpn.errors import ModelFileError
from fpn.interop.stored_results import read_their_results

from .test_checkpoint_files import MANY, bounds, in_zip

IMAGE = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
FOUND = {
    "image_0": IMAGE,
    "boxes_0": np.array([[0.0, 1.0, 2.0, 3.0]]),
    "scores_0": np.array([0.5], np.float16),
    "labels_0": np.array([7], np.int8),
}


def packed(save=np.savez, **changed):
    stream = io.BytesIO()
    save(stream, **{name: value for name, value in (FOUND | changed).items() if value is not None})
    return stream.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_come_one_by_one_with_what_was_found_in_them(save, tmp_path):
    path = tmp_path / "a.npz"
    none = {"boxes_1": np.zeros((0, 4), np.float32), "scores_1": np.zeros(0), "labels_1": np.zeros(0, np.int64)}
    path.write_bytes(packed(save, image_1=np.asfortranarray(IMAGE[:2]), boxes_0=FOUND["boxes_0"].astype(">f4"), **none))
    (image, found), (other, nothing) = read_their_results(path)
    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(other, IMAGE[:2])
    assert (found["boxes"].tolist(), found["scores"].tolist(), found["labels"].tolist()) == ([[0, 1, 2, 3]], [0.5], [7])
    assert found["boxes"].dtype == np.float32
    assert nothing["boxes"].shape == (0, 4)


def member(header, body=b"", **options):
    """A file whose image has this header."""
    text = header.encode()
    record = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("image_0.npy", record, **options)
        for name in ("boxes_0", "scores_0", "labels_0"):
            one = io.BytesIO()
            np.save(one, FOUND[name])
            archive.writestr(f"{name}.npy", one.getvalue())
    return stream.getvalue()


def bytes_of(shape, descr="|u1"):
    return f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}"


GROWN = np.zeros((2400, 10_000, 3), np.uint8)
HOSTILE = {
    "no zip": (b"hello", "is no .npz of plain arrays, but something else"),
    "empty": (b"", "it is empty"),
    "cut short": (packed()[:-40], "its zip is cut short"),
    "very many records": (in_zip(b"", MANY), "its zip has a list of records of"),
    "72 MB of zeros": (packed(np.savez_compressed, image_1=GROWN), r"its \d+ bytes would become 72\d{6}$"),
    "a trillion numbers": (member(bytes_of((2**40, 1, 3))), r"image_0 of shape .* has \d+ bytes; 134217728 are read"),
    "more than there is": (member(bytes_of((9, 9, 3))), r"image_0 of shape \(9, 9, 3\) should have 243 by.* has 0"),
    "less than there is": (member(bytes_of((1, 1, 3)), b"x" * 9), "should have 3 bytes, and has 9"),
    "negative sides": (member(bytes_of((-1, -1, 3)), b"xxx"), "should have 3 bytes"),
    "a header that is a program": (member("__import__('os').system('x')"), "is no .npz of plain arrays"),
    "a header without end": (member("[" * 9000), "is no .npz of plain arrays"),
    "objects": (packed(image_0=np.array([{}], object)), "is no .npz of plain arrays"),
    "records": (packed(boxes_0=np.zeros(2, "f4,i4")), "is no .npz of plain arrays"),
    "texts": (packed(labels_0=np.array(["cat"])), "is no .npz of plain arrays"),
    "long numbers": (packed(scores_0=np.array([1], np.longdouble)), "is no .npz of plain arrays"),
    "another packing": (member(bytes_of((1, 1, 3)), b"xxx", compress_type=zipfile.ZIP_BZIP2), "in a way that NumPy"),
    "changed numbers": (packed(np.savez).replace(IMAGE.tobytes(), IMAGE[::-1].tobytes()), "is no .npz of plain arrays"),
    "no such arrays": (packed(image_0=None), "has no image_0, boxes_0, scores_0 and labels_0"),
    "one is missing": (packed(labels_0=None), "labels_0 is missing"),
    "an image without rows": (packed(image_0=IMAGE[:0]), r"image_0 is \(0, 5, 3\); sides are from 1 to 20000"),
    "a grey image": (packed(image_0=IMAGE[..., 0]), r"image_0 is \(4, 5\) uint8, expected"),
    "one score": (packed(scores_0=np.array(0.5)), r"scores_0 \(\), labels_0 \(1,\): expected"),
    "too many labels": (packed(labels_0=np.zeros(3)), r"expected \(N, 4\), \(N,\) and \(N,\)"),
    "boxes without end": (packed(boxes_0=np.full((1, 4), np.inf)), "boxes_0 has numbers that are not finite"),
    "very many": (
        packed(boxes_0=np.zeros((20_000, 4)), scores_0=np.zeros(20_000), labels_0=np.zeros(20_000)),
        "scores_0 are 20000; 10000 are compared",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_results_are_refused_with_what_was_found(name, tmp_path):
    content, told = HOSTILE[name]
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=told) as caught, bounds(seconds=1, mebibytes=200):
        list(read_their_results(path))
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()
