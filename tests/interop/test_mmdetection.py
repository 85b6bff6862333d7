"""MMDetection's box heads with shared convolutions, alone and in each stage of a cascade."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fpn.errors import ModelFileError
from fpn.interop import assemble, import_weights
from fpn.interop.findings import needed

NAMES = Path(__file__).resolve().parents[3] / "shared" / "golden" / "names"


def convolved(name: str, norm: str) -> dict[str, Tensor]:
    """The checkpoint of that name with Shared4Conv1FC heads in place of Shared2FC."""
    path = NAMES / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"needs ../shared/golden/names/{path.name}, which is not in this checkout")
    shapes = {each[0]: tuple(each[1]) for each in json.loads(path.read_text())["entries"]}
    made: dict[str, tuple[int, ...]] = {}
    for key, shape in shapes.items():
        made |= {} if "shared_fcs.1" in key else {key: shape}
        if not key.endswith("shared_fcs.0.weight"):
            continue
        head = key.removesuffix("shared_fcs.0.weight")
        for k in range(4):
            made[f"{head}shared_convs.{k}.conv.weight"] = (256, 256, 3, 3)
            leaves = ("bias",) if not norm else ()
            made |= {f"{head}shared_convs.{k}.conv.{leaf}": (256,) for leaf in leaves}
            leaves = {"bn": ("weight", "bias", "running_mean", "running_var"), "gn": ("weight", "bias"), "": ()}[norm]
            made |= {f"{head}shared_convs.{k}.{norm}.{leaf}": (256,) for leaf in leaves}
    with torch.device("meta"):
        return {key: torch.empty(shape) for key, shape in made.items()}


@pytest.mark.parametrize(
    ("name", "norm", "ours"),
    [("mm_cascade_r50", "bn", "batch"), ("mm_cascade_mask_r50", "gn", "group"), ("mm_faster_r50", "", "none")],
    ids=["cascade", "cascade_mask", "faster"],
)
def test_shared_convolutions_are_the_boxes_own(
    name: str, norm: str, ours: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: dict[str, Tensor] = {}
    monkeypatch.setattr(assemble, "fill_module", lambda _, state, toolkit: taken.update(state))
    with torch.device("meta"):
        imported = import_weights(convolved(name, norm))
    assert needed(imported.leftover) == ()
    box = imported.dialect.box
    assert (box.head, box.num_convolutions, box.convolution_channels, box.norm) == ("convolutions", 4, 256, ours)
    assert (imported.dialect.roi.output_size, box.width) == (7, 1024)
    own = imported.module.state_dict()
    assert taken.keys() == {key for key in own if not key.endswith("num_batches_tracked")}
    assert all(taken[key].shape == own[key].shape for key in taken)


def test_two_layers_behind_the_convolutions_are_refused_by_name() -> None:
    state = convolved("mm_cascade_r50", "bn")
    for stage in range(3):
        with torch.device("meta"):
            state[f"roi_head.bbox_head.{stage}.shared_fcs.1.weight"] = torch.empty(1024, 1024)
    refused = r"no place for roi_heads\.box\.stages\.0\.trunk\.3\.weight"
    with pytest.raises(ModelFileError, match=refused), torch.device("meta"):
        import_weights(state)
