from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fpn.errors import ConfigError, ImageError
from fpn.structures import Detections


def _image(height: int, width: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR)


def _same(found: Detections, other: Detections) -> None:
    assert found.labels.tolist() == other.labels.tolist()
    torch.testing.assert_close(found.boxes, other.boxes, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(found.scores, other.scores, rtol=1e-3, atol=1e-4)


def test_boxes_come_back_in_original_pixels(small) -> None:
    image = _image(128, 192)  # twice the network's 64 x 96
    images = small.preprocessor.collate([small.preprocessor.prepare(image).pixels])
    with torch.inference_mode():
        (inside,) = small.detect(images)
    (found,) = small.predict([image])
    assert images.sizes.tolist() == [[64, 96]]
    assert len(found) > 0
    torch.testing.assert_close(found.boxes, inside.boxes * 2)


def test_every_kind_of_image_is_taken_in_order(small, tmp_path) -> None:
    image = _image(70, 90)
    image.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "turned.png", exif=exif)
    kinds = [
        str(tmp_path / "a.png"),
        tmp_path / "a.png",
        image,
        np.asarray(image),
        image.convert("RGBA"),
        tmp_path / "turned.png",
    ]
    found = small.predict(kinds, batch_size=2)
    assert len(found) == 6
    for other in found[1:]:
        _same(found[0], other)


def test_grey_palette_and_sixteen_bit_images_are_the_same_grey(small) -> None:
    grey = _image(64, 80).convert("L")
    deep = np.asarray(grey).astype(np.uint16) * 256
    found = small.predict([grey, grey.convert("RGB"), grey.convert("P"), deep])
    for other in found[1:]:
        _same(found[0], other)


def test_mixed_sizes_come_back_in_the_order_given(small) -> None:
    sizes = [(64, 96), (96, 64), (64, 200), (33, 57)]
    images = [_image(*size, seed=index) for index, size in enumerate(sizes)]
    found = small.predict(images, batch_size=3)
    for (height, width), one in zip(sizes, found, strict=True):
        assert bool((one.boxes[:, 2] <= width).all())
        assert bool((one.boxes[:, 3] <= height).all())


def test_a_batch_equals_its_images_one_by_one(small) -> None:
    images = [_image(64, 96, seed=index) for index in range(3)]
    together = small.predict(images)
    for image, found in zip(images, together, strict=True):
        _same(found, small.predict([image])[0])


@pytest.mark.parametrize("size", [(1, 1), (10, 2000)])
def test_odd_images_do_no_harm(small, size) -> None:
    (found,) = small.predict([Image.new("RGB", (size[1], size[0]))])
    assert bool(torch.isfinite(found.boxes).all())


def test_no_images_give_no_answers(small) -> None:
    assert small.predict([]) == []


def test_progress_is_told_after_each_batch(small) -> None:
    told: list[int] = []
    small.predict([_image(64, 64)] * 3, batch_size=2, progress=told.append)
    assert told == [2, 3]


def test_a_single_path_is_refused_with_the_remedy(small) -> None:
    with pytest.raises(ConfigError, match=r"predict\(\[\.\.\.\]\)"):
        small.predict("cells.jpg")


def test_a_broken_image_is_named(small, tmp_path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"b\.jpg"):
        small.predict([tmp_path / "b.jpg"])


def test_broken_images_come_back_as_errors_if_asked_for(small, tmp_path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"")
    image = _image(64, 96)
    first, broken, last = small.predict([image, tmp_path / "b.jpg", image], batch_size=2, errors="return")
    assert isinstance(broken, ImageError)
    assert "b.jpg: the file is empty" in str(broken)
    assert first.boxes.tolist() == last.boxes.tolist()


def test_a_file_beyond_the_limits_is_refused(small, tmp_path) -> None:
    path = tmp_path / "a.png"
    _image(64, 96).save(path)
    assert len(small.predict([path], max_pixels=64 * 96, max_bytes=path.stat().st_size)) == 1
    with pytest.raises(ImageError, match=r"96 x 64 is .* more than the limit"):
        small.predict([path], max_pixels=64 * 96 - 1)
    with pytest.raises(ImageError, match="more than the limit"):
        small.predict([path], max_bytes=path.stat().st_size - 1)
    with pytest.raises(ConfigError, match="max_pixels 0"):
        small.predict([path], max_pixels=0)
