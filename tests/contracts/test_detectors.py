"""What every kind of detector must do. A new kind is one line in `KINDS`, and one in `test_training_runs.py`."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fpn
from fpn.detectors import Detector
from fpn.detectors.prediction import enter
from fpn.errors import ConfigError
from fpn.export.certificate import difference_between
from fpn.export.graph import DetectorGraph
from fpn.shapes import Size
from fpn.structures import Detections, ImageBatch, Masks, Targets

SMALL = {"backbone": "test_efficientnet", "weights": None, "classes": ["a", "b"], "short_side": 64, "channels": 8}
# Only what comes out of more layers is large enough for these heads with random weights to be sure of anything.
DEEPER = {"backbone": "tf_efficientnet_lite0"}

MASKS = {"mask_channels": 8}
# With norms over the batch, of which there may be no RoI.
MASK_STAGES = {**MASKS, "mask_norm": "batch", "cascade_mask_heads": "each_stage"}
KEYPOINTS = {"keypoint_channels": 8, "keypoint_convolutions": 2, "skeleton": ("left", "right", "tip")}

MODERN = {
    "head_width": 8,
    "dialect": "torchvision_v2",
    "neck": "pafpn",
    "neck_norm": "group",
    "box_norm": "group",
    "box_convolution_channels": 8,
    "box_suppression": "gaussian",
    "box_loss": "giou",
    "rpn_loss": "giou",
}
WEIGHTED = {"head_width": 8, "neck": "bifpn", "neck_repeats": 1}
PLAIN = {"head_width": 8, "neck": "simple_pyramid", "backbone": "test_vit"}
WINDOWED = {
    "head_width": 8,
    "neck": "simple_pyramid",
    "backbone": "vitdet",
    "dialect": "vitdet",
    "pixels_size_multiple": 32,
    "box_convolution_channels": 8,
    "backbone_vit": {"width": 16, "depth": 2, "heads": 2, "window": 3, "global_blocks": (1,)},
}
SEGMENTS = {"segments_width": 16, "segments_mask_size": 7, "segments_before_nms": 60}
UNCLASSIFIED = {name: value for name, value in SMALL.items() if name != "classes"}
KINDS: dict[str, Callable[[], Detector]] = {
    "faster_rcnn": lambda: fpn.faster_rcnn(**SMALL, head_width=8, box_score_limit=0.2, box_limit=20),
    "modern faster_rcnn": lambda: fpn.faster_rcnn(**SMALL, **MODERN, box_score_limit=0.2, box_limit=20),
    "bifpn": lambda: fpn.faster_rcnn(**SMALL, **WEIGHTED, box_score_limit=0.2, box_limit=20),
    "simple_pyramid": lambda: fpn.faster_rcnn(**{**SMALL, **PLAIN}, box_score_limit=0.2, box_limit=20),
    "vitdet": lambda: fpn.faster_rcnn(**{**SMALL, **WINDOWED}, box_score_limit=0.2, box_limit=20),
    "cascade_rcnn": lambda: fpn.cascade_rcnn(**SMALL, head_width=8, box_score_limit=0.2, box_limit=20),
    "cascade_rcnn with masks": lambda: fpn.cascade_rcnn(
        **SMALL, **MASK_STAGES, masks=True, head_width=8, box_score_limit=0.2, box_limit=20
    ),
    "retinanet": lambda: fpn.retinanet(**{**SMALL, **DEEPER}, dense_limit=20, dense_normalizer="ema"),
    "fcos": lambda: fpn.fcos(**SMALL, dense_limit=20),
    "atss": lambda: fpn.atss(**{**SMALL, **DEEPER}, dense_limit=20),
    "mask_rcnn": lambda: fpn.mask_rcnn(**SMALL, **MASKS, head_width=8, box_score_limit=0.2, box_limit=20),
    "keypoint_rcnn": lambda: fpn.keypoint_rcnn(**SMALL, **KEYPOINTS, head_width=8, box_score_limit=0.2, box_limit=20),
    "segment_proposals": lambda: fpn.segment_proposals(**UNCLASSIFIED, **SEGMENTS, segments_limit=20),
}


# The same for other classes.
WITH_CLASSES: dict[str, Callable[[list[str]], Detector]] = {
    "faster_rcnn": lambda classes: fpn.faster_rcnn(**{**SMALL, "classes": classes}, head_width=8),
    "modern faster_rcnn": lambda classes: fpn.faster_rcnn(**{**SMALL, "classes": classes}, **MODERN),
    "bifpn": lambda classes: fpn.faster_rcnn(**{**SMALL, "classes": classes}, **WEIGHTED),
    "simple_pyramid": lambda classes: fpn.faster_rcnn(**{**SMALL, **PLAIN, "classes": classes}),
    "vitdet": lambda classes: fpn.faster_rcnn(**{**SMALL, **WINDOWED, "classes": classes}),
    "cascade_rcnn": lambda classes: fpn.cascade_rcnn(**{**SMALL, "classes": classes}, head_width=8),
    "cascade_rcnn with masks": lambda classes: fpn.cascade_rcnn(
        **{**SMALL, **MASK_STAGES, "classes": classes}, masks=True, head_width=8
    ),
    "retinanet": lambda classes: fpn.retinanet(**{**SMALL, "classes": classes}),
    "fcos": lambda classes: fpn.fcos(**{**SMALL, "classes": classes}),
    "atss": lambda classes: fpn.atss(**{**SMALL, "classes": classes}),
    "mask_rcnn": lambda classes: fpn.mask_rcnn(**{**SMALL, **MASKS, "classes": classes}, head_width=8),
    "keypoint_rcnn": lambda classes: fpn.keypoint_rcnn(**{**SMALL, **KEYPOINTS, "classes": classes}, head_width=8),
    "segment_proposals": lambda classes: fpn.segment_proposals(**UNCLASSIFIED, **SEGMENTS),
}


SOURCE = Path(__file__).resolve().parents[2] / "src"
FORMS = ("graph", "onnx", "openvino", "torch")


@pytest.fixture(params=KINDS, scope="module")
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def original(kind: str) -> tuple[Detector, torch.Tensor]:
    """One of each kind, and the state of chance after it was built."""
    torch.manual_seed(0)
    made = KINDS[kind]()
    generator = torch.Generator().manual_seed(1)
    for name, weight in made.named_parameters():  # so that heads decide something
        if weight.ndim == 2 or (weight.ndim == 4 and weight.shape[2] == 1 and "backbone" not in name):
            weight.data.normal_(0, 0.2, generator=generator)
        if name.startswith("head.") and weight.ndim == 4:
            weight.data.normal_(0, 0.02 if "deltas" in name else 0.15, generator=generator)
    return made.eval(), torch.get_rng_state()


@pytest.fixture
def detector(original: tuple[Detector, torch.Tensor]) -> Detector:
    """A copy for each test: to build it anew takes three times as long."""
    made, chance = original
    torch.set_rng_state(chance)
    return copy.deepcopy(made)


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def batch(*sizes: tuple[int, int]) -> ImageBatch:
    height, width = (max(side) for side in zip(*sizes, strict=True))
    pixels = torch.rand(len(sizes), 3, -(-height // 32) * 32, -(-width // 32) * 32)
    return ImageBatch(pixels, torch.tensor(sizes))


BOX = torch.tensor([[4.0, 6.0, 40.0, 44.0]])
# With all that some kind of detector learns from.
ONE = Targets(
    BOX,
    torch.tensor([1]),
    masks=Masks.of_boxes(BOX, Size(64, 64)),
    keypoints=torch.tensor([[[5.0, 8.0, 2.0], [30.0, 40.0, 1.0], [0.0, 0.0, 0.0]]]),
)


@pytest.mark.parametrize(
    "targets",
    [[Targets.empty(), Targets.empty()], [ONE, Targets.empty()], [ONE, ONE]],
    ids=["no objects", "one object in one image", "one object each"],
)
def test_losses_and_gradients_are_finite(detector: Detector, targets: list[Targets]) -> None:
    detector.train()
    losses = detector.losses(batch((64, 64), (60, 50)), targets)
    losses.total.backward()
    assert losses.terms
    assert all(term.isfinite() for term in losses.terms.values())
    gradients = [weight.grad for weight in detector.parameters() if weight.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (61, 97), (33, 200), (7, 5)])
def test_images_of_odd_sizes_are_detected_within_their_pixels(detector: Detector, height: int, width: int) -> None:
    (found,) = detector.predict([image(height, width)])
    assert found.boxes.shape == (len(found), 4)
    assert found.boxes.isfinite().all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= torch.tensor([width, height, width, height])).all()
    assert ((found.labels >= 0) & (found.labels < 2)).all()
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_what_it_gives_is_among_its_tasks_and_fits_its_boxes(detector: Detector) -> None:
    (found,) = detector.predict([image(61, 97)])
    assert ("masks" in detector.tasks) == (found.masks is not None)
    assert ("keypoints" in detector.tasks) == (found.keypoints is not None) == (detector.skeleton is not None)
    if found.masks is not None:
        assert found.masks.size == Size(61, 97)
        outside = found.masks.boxes() - found.boxes
        drawn = found.masks.areas() > 0
        assert (outside[drawn, :2] >= -3).all()  # half a cell of a mask around its box
        assert (outside[drawn, 2:] <= 3).all()
    if found.keypoints is not None and detector.skeleton is not None:
        corner, end = found.boxes[:, None, :2], found.boxes[:, None, 2:]
        assert found.keypoints.shape == (len(found), len(detector.skeleton), 3)
        assert (found.keypoints[..., :2] >= corner - 1).all()
        assert (found.keypoints[..., :2] <= end + 1).all()


def same(one: Detections, other: Detections, *, within: float) -> None:
    assert len(one) == len(other)
    torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=within)
    torch.testing.assert_close(one.boxes, other.boxes, rtol=0, atol=100 * within)
    assert one.labels.tolist() == other.labels.tolist()
    assert (one.masks is None, one.keypoints is None) == (other.masks is None, other.keypoints is None)
    if one.masks is not None and other.masks is not None:
        assert int((one.masks.areas() - other.masks.areas()).abs().max()) <= 10_000 * within  # pixels on an edge
    if one.keypoints is not None:
        near = (one.keypoints - other.keypoints)[..., :2].abs().amax(dim=2) <= 1000 * within
        assert float(near.float().mean()) > 0.98  # of two equal peaks the last digit decides


def test_a_batch_gives_what_its_images_give_one_by_one(detector: Detector) -> None:
    images = [image(64, 96, seed) for seed in range(3)]
    together = detector.predict(images, batch_size=3)
    assert sum(map(len, together)) > 0
    for each, found in zip(images, together, strict=True):
        same(found, detector.predict([each])[0], within=1e-5)


def test_a_saved_detector_comes_back_equal_to_the_bit(detector: Detector, tmp_path: Path) -> None:
    again = fpn.load(fpn.save(detector, tmp_path / "model.safetensors"), device="cpu")
    assert type(again) is type(detector)
    assert again.recipe == detector.recipe
    (found,), (wanted,) = again.predict([image(64, 96)]), detector.predict([image(64, 96)])
    assert torch.equal(found.boxes, wanted.boxes)
    assert torch.equal(found.scores, wanted.scores)
    assert found.masks == wanted.masks
    assert again.skeleton == detector.skeleton
    assert wanted.keypoints is None or torch.equal(found.keypoints, wanted.keypoints)


def test_an_optimized_detector_finds_the_same_and_is_neither_saved_nor_trained(
    detector: Detector, tmp_path: Path
) -> None:
    quick = fpn.optimize(detector)
    for size in ((64, 96), (61, 97)):
        same(quick.predict([image(*size)])[0], detector.predict([image(*size)])[0], within=1e-4)
    assert quick.tasks == detector.tasks
    with pytest.raises(fpn.FpnError, match="can't be saved"):
        fpn.save(quick, tmp_path / "model.safetensors")
    with pytest.raises(fpn.FpnError, match="can't be trained"):
        quick.losses(batch((64, 64)), [ONE])


def test_the_dense_part_is_as_many_tensors_for_every_image(detector: Detector) -> None:
    with torch.no_grad():
        once, twice = (detector.dense_part(torch.rand(2, 3, 64, 96)) for _ in range(2))
    assert [each.shape for each in once] == [each.shape for each in twice]
    assert all(each.shape[0] == 2 for each in once)
    assert sum(len(list(module.parameters())) for module in detector.dense_modules) > 0


def test_the_backbone_is_told_from_the_rest(detector: Detector) -> None:
    backbone = {id(weight) for weight in detector.backbone_parameters()}
    every = {id(weight) for weight in detector.parameters()}
    assert backbone < every


def test_what_has_rows_by_class_is_what_depends_on_their_number(kind: str) -> None:
    with torch.device("meta"):  # shapes are enough
        two, three = (WITH_CLASSES[kind](classes) for classes in (["a", "b"], ["a", "b", "c"]))
    small, large = two.state_dict(), three.state_dict()
    names = {id(module): name for name, module in three.named_modules()}
    declared = {names[id(each.layer)]: each for each in three.class_rows()}
    assert {name.rpartition(".")[0] for name in large if large[name].shape != small[name].shape} == set(declared)
    for layer, rows in declared.items():
        for name in (f"{layer}.weight", f"{layer}.bias"):
            assert (len(small[name]), len(large[name])) == (rows.count(2), rows.count(3))


def test_a_limit_of_detections_holds_and_is_asked_for_when_loading(detector: Detector, tmp_path: Path) -> None:
    path = fpn.save(detector, tmp_path / "model.safetensors")
    assert len(detector.predict([image(64, 96)])[0]) > 3
    limited = fpn.load(path, device="cpu", max_detections=3)
    assert limited.max_detections == 3
    assert len(limited.predict([image(64, 96)])[0]) == 3
    assert fpn.load(path, device="cpu").max_detections == detector.max_detections


# Else many are sure alike, and which of them are within the limit is nobody's to say; or boxes move so far that the
# last digit of a delta is a thousandth of a pixel: weights changed by a 10 000 000th each moved them by 0.003 pixels.
SETTLED = {"box.scores": 0.1, "box.deltas": 0.01, "head.scores": 0.1}


def settle(detector: Detector, kind: str) -> None:
    """So that rounding changes no decision, and each kind finds something."""
    with torch.no_grad():
        for name, weight in detector.named_parameters():
            owner, _, part = name.removesuffix(".weight").rpartition(".")
            owner = owner.removeprefix("roi_heads.").partition(".")[0]
            if name.endswith(".weight") and f"{owner}.{part}" in SETTLED:
                weight *= 1.5 if kind == "atss" else SETTLED[f"{owner}.{part}"]


def shake(detector: Detector, seed: int) -> Detector:
    """A copy whose weights are changed by a 10 000 000th: what this moves, rounding decides."""
    made, generator = copy.deepcopy(detector), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in made.parameters():
            weight *= 1 + 1e-7 * (2 * torch.rand(weight.shape, generator=generator) - 1)
    return made


# A graph as PyTorch runs it, here; FPN_ALL_EXPORTS=1 has files in both runtimes, minutes a kind.
@pytest.mark.parametrize("form", FORMS if os.environ.get("FPN_ALL_EXPORTS") else FORMS[:1])
def test_what_is_exported_finds_the_same(detector: Detector, kind: str, form: str, tmp_path: Path) -> None:
    if kind == "segment_proposals":
        with pytest.raises(ConfigError, match="a segment_proposals can't be exported"):
            DetectorGraph(detector)
        return
    settle(detector, kind)
    if form == "graph":
        prepared = [detector.preprocessor.prepare(Image.fromarray(image(61, 97, seed))) for seed in range(3)]
        images = enter(detector, prepared)
        with torch.no_grad():
            wanted = detector.detect(images)
            boxes, scores, labels, counts, *_ = DetectorGraph(detector)(images.pixels, images.sizes)
        assert counts.tolist() == [len(each) for each in wanted]
        assert counts.sum() > 0
        for number, each in enumerate(wanted):
            found = Detections(*(values[number, : len(each)] for values in (boxes, scores, labels)))
            own = replace(each, mask_probabilities=None, keypoints=None)
            assert difference_between(found, own, 1e-3).same == len(each)
        return
    for name in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(name, reason="needs the extras export and openvino")
    fpn.save(detector, tmp_path / "model.safetensors")
    file = {"onnx": "model.onnx", "openvino": "model.xml", "torch": "model.pt2"}[form]
    command = [sys.executable, "-m", "fpn", "export", "model.safetensors", "--format", form, "--output", file]
    if form == "openvino" and detector.preprocessor.config.resize == "torch":
        command.append("--bare")  # it is refused otherwise
    # In a process of its own: what is traced can't be under a checker of types.
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(SOURCE)})
    assert done.returncode == 0, done.stderr
    exported, shaken = fpn.load(tmp_path / file), [shake(detector, seed) for seed in range(3)]
    parts, undecided, count = [], 0, 0
    for height, width in ((64, 64), (61, 97), (33, 140), (128, 90), (7, 5)):
        for size in (1, 3, 8):
            images = [image(height, width, seed) for seed in range(size - 1)] + [np.zeros((height, width, 3), np.uint8)]
            theirs, *others, wanted = (each.predict(images, batch_size=size) for each in (exported, *shaken, detector))
            for number, ours in enumerate(wanted):
                part = difference_between(theirs[number], ours, 1e-3)
                moved = [len(ours) - difference_between(other[number], ours, 1e-3).same for other in others]
                parts.append(part)
                assert len(theirs[number]) == len(ours)
                # Rounding decides what it decides in the model itself, nothing else.
                assert len(ours) - part.same <= max(moved)
                undecided, count = undecided + max(moved), count + len(ours)
    box, score, point = (max(getattr(part, name) for part in parts) for name in ("box", "score", "keypoint"))
    same = sum(part.same for part in parts)
    print(f"{kind}, {form}: {same} of {count}, {undecided} undecided; {box:.2g}, {point:.2g} pixels, score {score:.2g}")
    assert undecided <= count / 50
    assert count > 100
