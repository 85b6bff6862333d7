"""Weights that have names: what was meant is said before anything heavy is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fpn.errors import ConfigError, DataNotFoundError
from fpn.interop.weight_names import check_source, meant


@pytest.mark.parametrize(
    ("source", "suggested"),
    [
        ("torchvison/fasterrcnn_resnet50_fpn", "torchvision/fasterrcnn_resnet50_fpn"),
        ("torch-vision/retinanet_resnet50_fpn", "torchvision/retinanet_resnet50_fpn"),
        ("fasterrcnn_resnet50_fpn_v2", "torchvision/fasterrcnn_resnet50_fpn_v2"),
        ("tim/resnet50.a1_in1k", "timm/resnet50.a1_in1k"),
    ],
)
def test_the_nearest_name_is_said(source: str, suggested: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataNotFoundError) as caught:
        check_source(source)
    told = (
        f"{source}: no such file. Weights with a name are torchvision/NAME and timm/NAME. Did you mean '{suggested}'?"
    )
    assert str(caught.value) == told


def test_a_file_beside_it_is_nearer_than_a_name(tmp_path: Path) -> None:
    (tmp_path / "epoch_12.pth").touch()
    assert meant(str(tmp_path / "epoch_21.pth")) == f" Did you mean '{tmp_path / 'epoch_12.pth'}'?"
    assert meant(str(tmp_path / "nowhere" / "zzz.pth")) == f" '{tmp_path}' has epoch_12.pth."
    (tmp_path / "Did you mean").mkdir()
    (tmp_path / "Did you mean" / "it.pth").touch()
    assert meant(str(tmp_path / "Did you mean" / "resnet18")) == f" '{tmp_path / 'Did you mean'}' has it.pth."


def test_known_names_and_files_pass_and_a_detector_that_torchvision_lacks_does_not(tmp_path: Path) -> None:
    (tmp_path / "a.pth").touch()
    for source in ("torchvision/resnet50", "timm/anything", str(tmp_path / "a.pth")):
        check_source(source)
    with pytest.raises(ConfigError, match=r"no such detector; known: .* Did you mean 'fcos_resnet50_fpn'\?"):
        check_source("torchvision/fcos_resnet50")


def test_nothing_heavy_is_imported_for_it() -> None:
    program = "import sys, fpn.interop.weight_names; print({'torch', 'timm', 'numpy'} & sys.modules.keys())"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "set()\n"
