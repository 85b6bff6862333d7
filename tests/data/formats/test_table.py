from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest
import torch
from written_sets import SHOTS, Annotation, Shot, coco_json, save_image, write_coco, write_json

from fpn.data import open_dataset
from fpn.data.formats.table import Texts


def test_texts_give_back_each_string() -> None:
    texts = Texts.of([b"one", b"", "zwölf".encode()])
    assert [texts[0], texts[1], texts[2].decode()] == [b"one", b"", "zwölf"]
    assert Texts.of([b""])[0] == b""


def test_a_dataset_goes_to_a_worker_as_handles_not_as_copies(tmp_path: Path) -> None:
    annotations = tuple(Annotation("nut", (k, k, k + 5, k + 5)) for k in range(20_000 // 40)) * 40
    for shot in (big := (Shot("a.png", 600, 600, annotations), *SHOTS[1:])):
        save_image(tmp_path / "images" / shot.file, shot.width, shot.height)
    write_json(tmp_path / "annotations/instances.json", coco_json(big))
    dataset = open_dataset(tmp_path)
    assert dataset.table.boxes.numel() * 4 > 300_000
    assert len(ForkingPickler.dumps(dataset)) < 10_000


def test_a_pickled_dataset_is_the_same(tmp_path: Path) -> None:
    dataset = open_dataset(write_coco(tmp_path))
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy.targets(0).boxes, dataset.targets(0).boxes)
    assert copy.path(2) == dataset.path(2)
    assert copy.coco() == dataset.coco()


def test_changing_a_sample_does_not_change_the_dataset(tmp_path: Path) -> None:
    dataset = open_dataset(write_coco(tmp_path))
    sample = dataset[0]
    sample.targets.boxes.zero_()
    sample.targets.labels.zero_()
    assert dataset.targets(0).boxes.tolist() == [[3, 4, 20, 30], [0, 0, 53, 37]]
    assert dataset.targets(0).labels.tolist() == [1, 0]


def test_an_index_beyond_the_end_is_an_index_error(tmp_path: Path) -> None:
    dataset = open_dataset(write_coco(tmp_path))
    assert dataset[-1].image_id == 102
    with pytest.raises(IndexError, match="has 3 images, there is no number 3"):
        dataset[3]
    with pytest.raises(IndexError):
        dataset.subset([0, 7])
