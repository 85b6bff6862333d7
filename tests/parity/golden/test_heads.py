"""The box head's network, and what is made of its scores and deltas, against the originals'."""

import pytest
import torch
from torch import Tensor

from fpn.detectors.builder import build_box_head
from fpn.detectors.dialect import Dialect
from fpn.detectors.toolkits import DETECTRON2, MATTERPORT
from fpn.heads.box import BoxHead
from fpn.interop import import_weights
from fpn.structures import Detections, ImageBatch, Level, Proposals
from parity.golden import rule
from parity.golden.cases import case, cases, entries, same_weights
from parity.golden.compare import BOX_TOLERANCE, OP_TOLERANCE, assert_map, assert_near, assert_same_set

YX = [1, 0, 3, 2]


def head_of(dialect: Dialect, num_classes: int, **changes) -> BoxHead:
    levels = tuple(Level(f"p{k}", 4, 2**k, k) for k in (2, 3, 4, 5))
    return build_box_head(levels, num_classes, dialect.changed(box_width=8, **changes))


def select(head: BoxHead, boxes: Tensor, logits: Tensor, deltas: Tensor, images: ImageBatch) -> Detections:
    """What the head makes of given logits and deltas, as if its network had said so."""
    head.forward = lambda *_: (logits, deltas.flatten(1))  # type: ignore[method-assign]
    [found] = head.detect({}, images, [Proposals(boxes, torch.zeros(len(boxes)))])
    return found


def rows(found: Detections) -> Tensor:
    """x1, y1, x2, y2, label, score."""
    return torch.cat([found.boxes, found.labels[:, None].float(), found.scores[:, None]], dim=1)


def test_detectron2_lets_every_class_of_a_roi_compete():
    figures = case("d2_7_fast_rcnn_inference")
    meta = figures.meta
    head = head_of(
        DETECTRON2,
        meta["num_classes"],
        box_score_limit=meta["score_thresh"],
        box_nms=meta["nms_thresh"],
        box_limit=meta["topk"],
        box_weights=tuple(float(weight) for weight in meta["weights"]),
    )
    height, width = meta["image_size"]
    images = ImageBatch(torch.zeros(1, 3, height, width), torch.tensor([[height, width]]))
    proposals, logits, deltas = (torch.from_numpy(figures[name]) for name in ("proposals", "scores", "deltas"))
    found = select(head, proposals, logits, deltas, images)
    expected = Detections(*(torch.from_numpy(figures[f"pred_{name}"]) for name in ("boxes", "scores", "classes")))
    assert_same_set(rows(found), rows(expected).numpy(), BOX_TOLERANCE)


@pytest.mark.parametrize("figures", cases("mrcnn_5"), ids=lambda figures: figures.name)
def test_matterport_lets_only_the_best_class_of_a_roi_compete(figures):
    meta = figures.meta
    height, width = meta["image_shape"][:2]
    top, left, bottom, right = meta["window_pixels"]
    head = head_of(
        MATTERPORT,
        figures["probs"].shape[2] - 1,
        box_score_limit=float(meta["DETECTION_MIN_CONFIDENCE"]),
        box_nms=meta["DETECTION_NMS_THRESHOLD"],
        box_limit=meta["DETECTION_MAX_INSTANCES"],
        box_weights=tuple(1 / spread for spread in meta["BBOX_STD_DEV"]),
    )
    images = ImageBatch(
        torch.zeros(1, 3, height, width),
        torch.tensor([[height, width]]),
        torch.tensor([[left, top, right - 1.0, bottom - 1.0]]),
    )
    last = torch.tensor([width - 1, height - 1] * 2)
    logits = torch.from_numpy(figures["probs"])[0].log().roll(-1, dims=1)
    deltas = torch.from_numpy(rule.from_spec(figures.salt, meta["deltas"]))[0, :, 1:, YX]
    found = select(head, torch.from_numpy(figures["rois"])[0][:, YX] * last, logits, deltas, images)
    expected = torch.from_numpy(figures["detections"])[0]
    expected = expected[expected[:, 4] > 0]  # the rest is padding
    boxes = (found.boxes / last)[:, YX]
    ours = torch.cat([boxes, found.labels[:, None] + 1.0, found.scores[:, None]], dim=1)
    assert_same_set(ours, expected.numpy(), OP_TOLERANCE)


@torch.no_grad()
def test_matterport_network():
    figures = case("mrcnn_8_heads")
    listed = dict(entries(figures.meta["names"].split("names/")[1]))
    state = rule.weights(figures.salt, listed.items(), figures.factors)
    heads = import_weights(state).module.roi_heads
    head = heads.box
    features = {
        f"p{i + 2}": torch.from_numpy(figures.normal(f"heads:feat{i}", (1, 32 >> i, 32 >> i, 256), 1.0)).permute(
            0, 3, 1, 2
        )
        for i in range(4)
    }
    side = 1024  # as the case's meta says: equation 1 takes it, the maps are those of an image of 128
    images = ImageBatch(torch.zeros(1, 3, side, side), torch.tensor([[side, side]]))
    rois = torch.from_numpy(figures["rois"])[0][:, YX] * (side - 1)
    logits, deltas = head(features, images, [rois])
    assert_map(figures, "class_logits", logits.roll(1, dims=1)[None])
    assert_near(logits.softmax(dim=1).roll(1, dims=1), figures["class_probs"][0], 1e-4)
    largest = abs(figures["bbox"]).max()
    assert_near(deltas.unflatten(1, (-1, 4))[..., YX], figures["bbox"][0, :, 1:], 1e-4 * largest)
    stored = figures["masks"][0]  # (RoIs, 28, 28, classes), some of them; background is the first class
    labels = (torch.full((len(rois),), label) for label in range(stored.shape[-1] - 1))
    masks = torch.stack([heads.mask(features, images, [rois], label).sigmoid() for label in labels], dim=-1)
    whole = torch.cat([torch.zeros_like(masks[..., :1]), masks], dim=-1)[None].numpy()
    assert_near(figures.stored_part("masks", whole)[0, ..., 1:], stored[..., 1:], 1e-5)


@torch.no_grad()
def test_fpn_pytorch_network():
    figures = case("fpnpt_h_head")
    head = import_weights(same_weights(figures, "fpnpt_resnet101.json")).module.roi_heads.box
    hidden = head.trunk(torch.from_numpy(figures.normal("h:pooled", (4, 256, 7, 7), 1.0)))
    assert_map(figures, "fc7", hidden)
    logits = head.scores(hidden)
    assert_map(figures, "cls_score", logits.roll(1, dims=1))
    assert_near(logits.softmax(dim=1).roll(1, dims=1), figures["cls_prob"], 1e-4)
    largest = abs(figures["bbox_pred"]).max()
    assert_near(head.deltas(hidden), figures["bbox_pred"][:, 4:], 1e-4 * largest)
