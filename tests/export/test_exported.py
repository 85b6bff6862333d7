"""An exported file is a detector that a runtime works for."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fpn.detectors.prediction import detect_batch
from fpn.errors import ConfigError, DataNotFoundError, ModelFileError
from fpn.export import load, loading
from fpn.export.certificate import Certificate, certify, difference_between
from fpn.export.exported import ExportedDetector, allow_more
from fpn.export.header import GraphInfo
from fpn.export.runtimes import read_file_header
from fpn.structures import Detections, ImageBatch, Thresholds

OUTPUTS = ("boxes", "scores", "labels", "counts")


class Runtime:
    """Finds a box of a quarter of each image, in its own pixels."""

    name = "a runtime of the tests"

    def __init__(self, header: str | None = None) -> None:
        self.header, self.asked = header, []

    def __call__(self, arrays):
        self.asked.append({name: (array.dtype.name, array.shape) for name, array in arrays.items()})
        images, height, width, _ = arrays["images"].shape
        boxes = np.zeros((images, 3, 4), np.float32)
        boxes[:, 0] = [0, 0, width / 2, height / 2]
        scores, labels = np.zeros((images, 3), np.float32), np.full((images, 3), -1)
        scores[:, 0], labels[:, 0] = 0.75, 1
        return [boxes, scores, labels, np.ones(images, np.int64)]


def _exported(detector, *, images="original") -> ExportedDetector:
    header = json.loads(json.dumps(GraphInfo(images, OUTPUTS).header(detector)))
    return ExportedDetector(Runtime(), header, where="a.onnx")


def test_images_go_in_as_they_are_and_those_of_one_size_together(small):
    exported = _exported(small)
    images = [np.zeros((40, 60, 3), np.uint8), np.zeros((41, 60, 3), np.uint8), np.zeros((40, 60, 3), np.uint8)]
    found = exported.predict(images)
    assert [each.boxes.tolist() for each in found] == [[[0, 0, 30, 20]], [[0, 0, 30, 20.5]], [[0, 0, 30, 20]]]
    assert [each.scores.tolist() for each in found] == [[0.75]] * 3
    assert exported._runtime.asked == [{"images": ("uint8", (2, 40, 60, 3))}, {"images": ("uint8", (1, 41, 60, 3))}]
    assert exported.classes.ids == (7, 3)
    assert exported.tasks == ("boxes",)
    assert str(exported.info) == "float32 on cpu, a runtime of the tests, preprocessor inside"


def test_images_of_several_sizes_in_one_batch_go_in_one_size_after_the_other(small):
    exported = _exported(small)
    prepared = [exported.preprocessor.prepare(Image.new("RGB", size)) for size in ((60, 40), (50, 50), (60, 40))]
    found = detect_batch(exported, prepared)
    assert [each.boxes.tolist() for each in found] == [[[0, 0, 30, 20]], [[0, 0, 25, 25]], [[0, 0, 30, 20]]]
    assert [asked["images"][1] for asked in exported._runtime.asked] == [(2, 40, 60, 3), (1, 50, 50, 3)]


def test_who_reaches_its_limit_is_told_what_helps_its_kind(small):
    assert allow_more(small, 300) == "Allow more: --max-detections 300"
    told = allow_more(_exported(small), 300)
    assert told.startswith(
        "The limit is a part of an exported file. Export its model anew: fpn export MODEL.safetensors "
    )
    assert told.endswith("--format onnx --max-detections 300 --output a-300.onnx")
    assert "--format onnx --bare --max-detections" in allow_more(_exported(small, images="network"), 300)


def test_calibrated_thresholds_travel(small):
    small.thresholds = Thresholds((0.1, 0.8), "f1", "cells", 9, (True, True))
    try:
        exported = _exported(small)
    finally:
        small.thresholds = None
    assert exported.thresholds is not None
    assert exported.thresholds.scores == (0.1, 0.8)
    assert len(exported.predict([np.zeros((40, 60, 3), np.uint8)])[0]) == 0  # 0.75 is below class 1's 0.8


def test_it_is_neither_trained_nor_saved_nor_exported_again(small, tmp_path):
    import fpn
    from fpn.export.graph import DetectorGraph

    exported = _exported(small)
    with pytest.raises(ConfigError, match="can't be trained"):
        exported.losses(ImageBatch(torch.zeros(1, 3, 32, 32), torch.tensor([[32, 32]])), [])
    with pytest.raises(ConfigError, match="can't be saved"):
        fpn.save(exported, tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match="can't be exported"):
        DetectorGraph(exported)


def test_a_certificate_says_how_far_off_a_file_is(small):
    exact = certify(small, small, "itself")
    assert exact.exact
    assert exact.same == exact.theirs == exact.ours > 0
    assert exact.box == exact.score == 0
    assert [count for count, _, _ in exact.batches] == [1, 3, 2]
    other = certify(small, _exported(small), "another")
    assert not other.exact
    assert (other.theirs, other.same) == (6, 0)
    assert "another on 6 drawn images (1 of 85x64, 3 of 43x101, 2 of 33x33): 0 of " in str(other)
    assert json.loads(json.dumps(other.to_json()))["share_same"] == 0


def _two(*, points: list[float], cell: float) -> Detections:
    """Two detections with a keypoint each, `points` pixels right of 5, and masks of one cell."""
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
    keypoints = torch.tensor([[[5.0 + far, 5.0, 1.0]] for far in points])
    masks = torch.tensor([[[0.5]], [[0.5 + cell]]])
    labels = torch.tensor([0, 1])
    return Detections(boxes, torch.tensor([0.9, 0.8]), labels, keypoints=keypoints, mask_probabilities=masks)


def test_masks_and_keypoints_are_compared_where_boxes_are_the_same():
    found = difference_between(_two(points=[0.5, 0.002], cell=0.25), _two(points=[0, 0], cell=0), 0.01)
    assert (found.same, found.box, found.keypoints, found.keypoints_same) == (2, 0, 2, 1)
    assert found.keypoint == pytest.approx(0.5)
    assert found.mask == 0.25
    apart = difference_between(_two(points=[30, 0], cell=float("nan")), _two(points=[0, 0], cell=0), 0.01)
    assert (apart.keypoint, apart.keypoints_same) == (0, 1)  # 30 pixels away is another peak
    assert apart.mask == float("inf")


def test_detections_that_lie_on_each_other_each_have_their_own():
    boxes = torch.tensor([[5.0, 1.0, 5.0, 2.0]] * 3)  # empty, so that NMS leaves all
    found = Detections(boxes, torch.tensor([0.5, 0.5, 0.5]), torch.tensor([1, 1, 1]))
    assert difference_between(found, found, 0.01).same == 3
    fewer = Detections(boxes[:2], found.scores[:2], found.labels[:2])
    assert difference_between(fewer, found, 0.01).same == difference_between(found, fewer, 0.01).same == 2


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        ({"mask": 0.0002}, "masks' cells differ by 0.0002 (at most 0.0001)"),
        ({"keypoint_share": 0.97}, "97.00% of keypoints lie within 0.01 pixels of the model's (at least 99%)"),
        ({"box": 0.02}, "boxes differ by 0.02 pixels (at most 0.01)"),
        ({"score": 0.001}, "scores differ by 0.001 (at most 0.0001)"),
        ({"same": 98}, "98.00% of detections are the same (at least 99%)"),
    ],
)
def test_each_difference_alone_refuses_a_file(change, failure):
    exact = Certificate(
        runtime="a runtime",
        batches=((1, 64, 64),),
        images="drawn images",
        theirs=100,
        ours=100,
        same=100,
        box=0.001,
        score=1e-5,
        keypoint=0.5,
        keypoint_share=0.995,
        mask=1e-5,
        tolerance=0.01,
        seconds_file=1.0,
        seconds_model=1.0,
    )
    assert exact.exact
    assert "neither the file nor the model finds anything; 1.000 seconds" in str(
        replace(exact, theirs=0, ours=0, same=0)
    )
    assert replace(exact, **change).failures == (failure,)
    assert replace(exact, **change).to_json()["failures"] == [failure]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 99}, "in a newer format. Update fpn"),
        ({"outputs": ["boxes"]}, "gives other outputs"),
        ({"pixels": {"mean": "no"}}, "is damaged"),
        ({"recipe": {"kind": "toaster"}}, "its recipe can't be understood"),
        ({"thresholds": [1]}, "is damaged"),
    ],
)
def test_what_a_file_says_about_itself_is_checked(small, change, message):
    header = {**GraphInfo("original", OUTPUTS).header(small), **change}
    with pytest.raises(ModelFileError, match=message):
        ExportedDetector(Runtime(), header, where="a.onnx")


@pytest.mark.parametrize("text", [None, "[", "[1]"])
def test_a_file_of_another_program_is_told(text):
    with pytest.raises(ModelFileError, match=r"a.onnx: (says nothing|what it says)"):
        read_file_header(text, "a.onnx")


def test_a_file_is_told_by_its_ending(small, tmp_path, monkeypatch):
    import fpn

    with pytest.raises(DataNotFoundError, match="no such model file"):
        load(tmp_path / "a.onnx")
    path = tmp_path / "a.onnx"
    path.write_bytes(b"")
    header = json.dumps(GraphInfo("original", OUTPUTS).header(small))
    monkeypatch.setitem(loading.RUNTIMES, ".onnx", lambda path, where: Runtime(header))
    assert isinstance(fpn.load(path), ExportedDetector)
    anew = "fpn export MODEL.safetensors --format onnx --max-detections 5 --output "
    with pytest.raises(ConfigError, match=f"was decided when it was made. Export its model anew: {anew}.*a-5.onnx$"):
        load(path, max_detections=5)
    with pytest.raises(ConfigError, match="run on the cpu"):
        load(path, device="meta")
    assert torch.equal(fpn.load(fpn.save(small, tmp_path / "b.safetensors")).rpn.deltas.bias, small.rpn.deltas.bias)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.onnx": b"hello"}, r"a\.onnx: ONNX Runtime can't read it .*\. Copy it again from where it came, or export"),
        ({"a.xml": b"hello", "a.bin": b""}, r"a\.xml: OpenVINO can't read it \(it is not in OpenVINO's form\)\. Copy"),
        ({"a.xml": b"<net", "a.bin": b""}, r"a\.xml: OpenVINO can't read it .*\. Copy it again"),
        ({"a.xml": b"<net"}, r"a\.xml: its weights, a\.bin, do not lie beside it\. Copy both files"),
        ({"a.pt2": b"PK"}, r"a\.pt2: PyTorch can't read it \(it is not a whole archive\)\. Copy it again"),
    ],
)
def test_files_that_are_none_say_what_helps(files, message, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    first = next(iter(files))
    pytest.importorskip({"onnx": "onnxruntime", "xml": "openvino", "pt2": "torch"}[first.partition(".")[2]])
    with pytest.raises((ModelFileError, DataNotFoundError), match=message):
        load(tmp_path / first)


def test_a_file_that_gives_less_than_it_says_is_told(small):
    header = GraphInfo("original", (*OUTPUTS, "masks")).header(small)
    exported = ExportedDetector(Runtime(), json.loads(json.dumps(header)), where="a.onnx")
    with pytest.raises(ModelFileError, match=r"a\.onnx: gives 4 outputs and says 5\. Export it again"):
        exported.predict([np.zeros((40, 60, 3), np.uint8)])


@pytest.mark.parametrize("name", ["a.onnx", "a.pt2"])
def test_bf16_is_of_openvinos_files(name, tmp_path):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ConfigError, match=rf"{name}: --precision bf16 is of models and of OpenVINO's files"):
        loading.load_exported(tmp_path / name, precision="bf16")
