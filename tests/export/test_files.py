"""Whole files, made and run as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fpn
from fpn.cli.app import run_command
from fpn.errors import ConfigError, OutputError
from fpn.export.exporting import check_place

SOURCE = Path(__file__).resolve().parents[2] / "src"


def _fpn(*words: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: what is traced can't be under a checker of types."""
    command = [sys.executable, "-m", "fpn", *map(str, words)]
    environment = {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "")}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, lean):
    """The lean detector as an ONNX file, and what was said; for one test alone, since two may be in two processes."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="needs the extra export")
    folder = tmp_path_factory.mktemp("exported")
    fpn.save(lean, folder / "small.safetensors")
    done = _fpn("export", "small.safetensors", "--format", "onnx", "--output", "small.onnx", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_an_onnx_file_is_proven_written_found_equal_and_made_int8(exported, lean):
    folder, said = exported
    assert "takes images, uint8 RGB (N, H, W, 3) of any size; gives boxes, scores, labels, counts" in said
    certificate = json.loads((folder / "small.onnx.certificate.json").read_text())
    assert certificate["exact"]
    assert certificate["largest_box_difference"] < 1e-3
    assert certificate["largest_score_difference"] < 1e-5
    loaded = fpn.load(folder / "small.onnx")
    assert loaded.certificate == certificate
    images = [np.random.default_rng(seed).integers(0, 256, size, np.uint8) for seed, size in enumerate(SIZES)]
    for found, wanted in zip(loaded.predict(images), lean.predict(images), strict=True):
        assert found.labels.tolist() == wanted.labels.tolist()
        np.testing.assert_allclose(found.boxes, wanted.boxes, rtol=0, atol=1e-3)
        np.testing.assert_allclose(found.scores, wanted.scores, rtol=0, atol=1e-5)
    _names_no_dimension_twice(folder)
    _becomes_int8(folder, lean)


def _names_no_dimension_twice(folder):
    """Of the preprocessor's and the detector's graph: ONNX Runtime would take both for equal, and use memory again."""
    import onnx

    graph = onnx.load(folder / "small.onnx").graph
    names = {
        (value.name.startswith("preprocessor/"), dimension.dim_param)
        for value in graph.value_info
        for dimension in value.type.tensor_type.shape.dim
        if dimension.dim_param
    }
    assert len({name for _, name in names}) == len(names) > 10
    assert [each.dim_param for each in graph.input[0].type.tensor_type.shape.dim] == ["batch", "height", "width", ""]


def _becomes_int8(folder, lean):
    """Its layers do, and it still detects."""
    from PIL import Image

    from fpn.export.int8 import choices, fold_norms, quantize, weights_of
    from fpn.export.ranges import observe

    images = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, SIZES[1], np.uint8)) for seed in range(2)]
    fold_norms(folder / "small.onnx", folder / "folded.onnx")
    layers = weights_of(folder / "folded.onnx")
    assert len(layers) == 33  # 16 of the backbone, 4 of the neck, 9 of the rpn, 4 of the box head
    last, *_, most = (kept for _, kept in choices(layers))
    assert (len(last), len(most)) == (8, 25)
    quantize(folder / "folded.onnx", folder / "int8.onnx", observe(folder / "folded.onnx", images), last)
    assert (folder / "int8.onnx").stat().st_size < (folder / "folded.onnx").stat().st_size / 1.5
    (found,), (wanted,) = fpn.load(folder / "int8.onnx").predict(images[:1]), lean.predict(images[:1])
    assert len(found) == len(wanted) == 10
    assert abs(float(found.scores.mean() - wanted.scores.mean())) < 0.05


SIZES = [(64, 64, 3), (70, 101, 3), (33, 64, 3), (70, 101, 3), (200, 130, 3)]


def test_what_is_reshaped_is_rounded_before():
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    from onnx import helper

    from fpn.export.int8 import round_before_reshaping

    nodes = [
        helper.make_node("Reshape", ["read", "shape"], ["flat"], "shaping"),
        helper.make_node("QuantizeLinear", ["flat", "scale", "zero"], ["whole"], "rounding"),
        helper.make_node("DequantizeLinear", ["whole", "scale", "zero"], ["given"], "back"),
        helper.make_node("Gemm", ["given", "weight"], ["hidden"], "layer"),
    ]
    graph = helper.make_graph(nodes, "graph", [], [])
    round_before_reshaping(graph)
    assert [(node.name, node.input[0], node.output[0]) for node in graph.node] == [
        ("rounding", "read", "whole"),
        ("back", "whole", "given/flat"),
        ("shaping", "given/flat", "given"),
        ("layer", "given", "hidden"),
    ]


def test_sums_take_what_convolutions_give_before_it_is_rounded():
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    from onnx import helper

    from fpn.export.int8 import add_unrounded

    def rounded(name: str) -> list[object]:
        return [
            helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}/whole"]),
            helper.make_node("DequantizeLinear", [f"{name}/whole", "scale", "zero"], [f"{name}/back"]),
        ]

    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["new"]),
        helper.make_node("MaxPool", ["image"], ["old"]),
        *rounded("new"),
        *rounded("old"),
        helper.make_node("Add", ["new/back", "old/back"], ["sum"]),
        helper.make_node("Conv", ["new/back", "weight"], ["next"]),
    ]
    graph = helper.make_graph(nodes, "graph", [], [])
    add_unrounded(graph)
    assert list(graph.node[-2].input) == ["new", "old/back"]
    assert graph.node[-1].input[0] == "new/back"


def test_nothing_is_overwritten_and_endings_must_fit(tmp_path):
    with pytest.raises(ConfigError, match=r"a.pth: a file of format onnx ends in .onnx"):
        check_place(tmp_path / "a.pth", "onnx", replace=False)
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"a\.bin: is already there"):
        check_place(tmp_path / "a.xml", "openvino", replace=False)
    (tmp_path / "b.onnx.certificate.json").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"certificate\.json: is already there"):
        check_place(tmp_path / "b.onnx", "onnx", replace=False)
    with pytest.raises(OutputError, match="can't write there"):
        check_place(tmp_path / "a.bin" / "c.onnx", "onnx", replace=False)  # before minutes of work
    check_place(tmp_path / "b.onnx", "onnx", replace=True)
    check_place(tmp_path / "b.pt2", "torch", replace=False)  # has a certificate of its own


def test_what_is_left_of_int8_in_float32_is_told_by_names_of_weights():
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    from fpn.export.int8 import choices

    weights = {
        "stem": "inner.features.backbone.net.conv_stem.1.weight",
        "late": "inner.features.backbone.net.blocks.5.0.conv_pw.weight",
        "neck": "inner.features.neck.smooths.p2.weight",
        "trunk": "inner.roi_heads.box.trunk.1.weight",
        "scores": "inner.roi_heads.box.scores.weight",
    }
    last = "the last layers of the heads"
    assert list(choices(weights)) == [
        (last, ["scores"]),
        (f"{last}, the backbone's stem", ["stem", "scores"]),
        (f"{last}, the backbone's stem, the heads", ["stem", "trunk", "scores"]),
        (f"{last}, the backbone's stem, the heads, the neck", ["stem", "neck", "trunk", "scores"]),
    ]
    deep = {"depthwise": "inner.features.backbone.net.blocks.2.0.conv_dw.weight", **weights}
    assert list(choices(deep))[2] == (f"{last}, the backbone's stem, its first stages", ["depthwise", "stem", "scores"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "torch", "--int8", "data"], "--int8: goes with --format onnx or openvino"),
        (["--format", "onnx", "--int8", "data", "--bare"], "--int8: goes with --format onnx"),
        (["--format", "onnx", "--split", "test"], "--split: goes with --int8"),
    ],
)
def test_options_that_do_not_go_together_are_told(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.safetensors").touch()
    Path("data").mkdir()
    assert run_command(["export", "a.safetensors", "--output", str(tmp_path / "a.onnx"), *words]) == 1
    assert message in capsys.readouterr().err
