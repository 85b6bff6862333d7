"""A look through a dataset that was stopped goes on where it was, with the same result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fpn
from fpn.data.synthetic.scenes import SceneDataset
from fpn.evaluation import evaluate
from fpn.evaluation.unfinished import KeptImage, Unfinished, keep_detections, kept_detections
from fpn.shapes import Size
from fpn.structures import Detections, Masks

SCENES = SceneDataset(5, seed=3, height=64, width=(64, 96))


@pytest.fixture(scope="module")
def detector() -> fpn.Detector:
    torch.manual_seed(0)
    return fpn.faster_rcnn(
        classes=SCENES.classes, backbone="resnet18", weights=None, channels=16, head_width=16, short_side=64
    )


def _stop_after(count: int) -> Callable[[int], None]:
    def progress(done: int) -> None:
        if done >= count:
            raise KeyboardInterrupt

    return progress


def test_a_stopped_evaluation_goes_on_with_equal_figures(detector: fpn.Detector, tmp_path: Path) -> None:
    whole = evaluate(detector, SCENES, workers=0, batch_size=2)
    with pytest.raises(KeyboardInterrupt), Unfinished(tmp_path / "look", often=0.0) as stopped:
        evaluate(detector, SCENES, workers=0, batch_size=2, progress=_stop_after(4), unfinished=stopped)
    seen: list[int] = []
    with Unfinished(tmp_path / "look", often=0.0) as again:
        assert len(again.known) == 4
        rest = evaluate(detector, SCENES, workers=0, batch_size=2, progress=seen.append, unfinished=again)
    assert seen == [5]
    assert rest.detections == whole.detections
    assert not (tmp_path / "look").exists()


def test_proposals_are_found_again_where_none_were_kept(detector: fpn.Detector, tmp_path: Path) -> None:
    tasks = ("boxes", "proposals")
    with pytest.raises(KeyboardInterrupt), Unfinished(tmp_path, often=0.0) as stopped:
        evaluate(detector, SCENES, workers=0, batch_size=2, progress=_stop_after(4), unfinished=stopped)
    seen: list[int] = []
    again = Unfinished(tmp_path)
    evaluate(detector, SCENES, workers=0, batch_size=2, tasks=tasks, progress=seen.append, unfinished=again)
    assert seen == [2, 4, 5]


def test_a_short_look_writes_nothing(tmp_path: Path) -> None:
    unfinished = Unfinished(tmp_path / "look", often=3600.0)
    unfinished.keep([0], lambda _: KeptImage({"scores": torch.ones(1)}))
    unfinished.__exit__(KeyboardInterrupt, None, None)
    assert not (tmp_path / "look").exists()


def test_a_damaged_file_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    first = Unfinished(tmp_path, often=0.0)
    first.keep([0], lambda _: KeptImage({"scores": torch.ones(1)}, {"a": 1}))
    first.keep([7], lambda _: KeptImage({"scores": torch.zeros(2)}))
    (tmp_path / "000000.safetensors").write_bytes(b"broken")
    assert list(Unfinished(tmp_path).known) == [7]


def test_what_cannot_be_written_is_given_up_and_named(tmp_path: Path) -> None:
    (tmp_path / "look").write_text("a file")
    unfinished = Unfinished(tmp_path / "look", often=0.0)
    unfinished.keep([0], lambda _: KeptImage({"scores": torch.ones(1)}))
    assert "look" in unfinished.failed


def test_detections_come_back_to_the_bit() -> None:
    dense = torch.zeros(2, 6, 8, dtype=torch.bool)
    dense[0, 1:4, 2:5], dense[1, 0, :] = True, True
    found = Detections(
        boxes=torch.rand(2, 4),
        scores=torch.rand(2),
        labels=torch.tensor([1, 0]),
        masks=Masks.from_dense(dense, Size(6, 8)),
        keypoints=torch.rand(2, 3, 3),
    )
    same = kept_detections(keep_detections(found, "x."), "x.")
    for name in ("boxes", "scores", "labels", "keypoints"):
        assert torch.equal(getattr(same, name), getattr(found, name))
    assert same.levels is None
    assert same.masks is not None
    assert torch.equal(same.masks.dense(), dense)
