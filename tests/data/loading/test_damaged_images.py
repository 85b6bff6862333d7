from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor
from written_sets import write_json, write_text

from fpn.data import open_dataset
from fpn.data.checks.decoding import decode_all
from fpn.data.loading.loader import Loader, make_loader
from fpn.errors import ImageError, TrainingError
from fpn.image_io import ImageWarning
from fpn.structures import ImageBatch, Targets


class _Prepared:
    def __init__(self, image: Image.Image, targets: Targets) -> None:
        self.pixels, self.targets = pil_to_tensor(image).float(), targets


def _collate(pixels: list) -> ImageBatch:
    import torch

    return ImageBatch(torch.stack(list(pixels)), torch.tensor([[160, 64]] * len(pixels)))


def _dataset(root: Path) -> Path:
    """Six JPEGs of 64 x 160: number 1 lacks its last 20 bytes, number 2 its second half, number 3 is no image."""
    rng = np.random.default_rng(0)
    for number in range(6):
        path = root / f"images/{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (160, 64, 3), dtype=np.uint8)).save(path)
        write_text(root / f"labels/{number}.txt", "0 0.5 0.5 0.5 0.5\n")
    write_text(root / "classes.txt", "cell\n")
    whole = (root / "images/1.jpg").read_bytes()
    (root / "images/1.jpg").write_bytes(whole[:-20])
    (root / "images/2.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "images/3.jpg").write_bytes(b"no image")
    return root


def _loader(root: Path, **options) -> Loader:
    dataset = open_dataset(root, skip_unreadable=True)
    return make_loader(
        dataset, prepare=_Prepared, collate=_collate, batch_size=2, num_workers=0, shuffle=False, **options
    )


def test_training_stops_at_a_damaged_image_by_name(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"[23]\.jpg"), pytest.warns(ImageWarning, match=r"1\.jpg"):
        list(_loader(_dataset(tmp_path), aspect_grouping=False))


def test_skipped_images_are_replaced_by_the_next_and_named_once(tmp_path: Path) -> None:
    loader = _loader(_dataset(tmp_path), skip_unreadable=True)
    with pytest.warns(ImageWarning) as told:
        batches = list(loader)
    # 2 and 3 can't be read: 4 stands in for both.
    assert [batch.indices for batch in batches] == [[0, 1], [4, 4], [4, 5]]
    assert [Path(path).name for path in loader.unreadable] == ["2.jpg", "3.jpg"]
    assert [Path(path).name for path in loader.cut_short] == ["1.jpg"]
    assert len(told) == 3
    list(loader)  # a second epoch tells nothing anew: warnings are errors here


def test_a_dataset_of_nothing_readable_is_refused(tmp_path: Path) -> None:
    root = _dataset(tmp_path)
    for path in (root / "images").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(TrainingError, match=r"6 images one after another can't be read, .*[^.]\. See all"):
        list(_loader(root, skip_unreadable=True))


def test_a_coco_set_without_sizes_opens_though_an_image_is_damaged(tmp_path: Path) -> None:
    _dataset(tmp_path)
    images = [{"id": k, "file_name": f"{k}.jpg"} for k in (0, 3)]
    objects = [{"id": k, "image_id": k, "category_id": 1, "bbox": [1, 2, 3, 4]} for k in (0, 3)]
    data = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "cell"}]}
    write_json(tmp_path / "annotations/instances.json", data)
    with pytest.raises(ImageError, match=r"3\.jpg"):
        open_dataset(tmp_path)
    dataset = open_dataset(tmp_path, skip_unreadable=True)
    assert len(dataset) == 2
    assert dataset[0].targets.boxes.tolist() == [[1, 2, 4, 6]]


def test_all_images_are_decoded_beforehand(tmp_path: Path) -> None:
    decoded = decode_all(open_dataset(_dataset(tmp_path)))
    assert [Path(path).name for path in decoded.unreadable] == ["2.jpg", "3.jpg"]
    assert "of 160 rows are missing" in decoded.unreadable[str(tmp_path / "images/2.jpg")]
    assert [Path(path).name for path in decoded.cut_short] == ["1.jpg"]
