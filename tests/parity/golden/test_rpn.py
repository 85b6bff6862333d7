"""The RPN's network, and what is made of its raw output, against the originals'."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fpn.detectors.builder import build_rpn
from fpn.detectors.dialect import Dialect
from fpn.detectors.toolkits import DETECTRON2, FPN_PYTORCH, MATTERPORT
from fpn.heads.rpn import RPN, RawProposals
from fpn.interop import fpn_pytorch, import_weights
from fpn.interop.key_rules import fill_module, rename
from fpn.structures import ImageBatch, Level, Targets
from parity.golden import rule
from parity.golden.cases import Case, case, cases, same_weights
from parity.golden.compare import BOX_TOLERANCE, OP_TOLERANCE, assert_map, assert_near, assert_same_set

YX = [1, 0, 3, 2]
STRIDES = (4, 8, 16, 32, 64)


def head_of(dialect: Dialect, strides: Sequence[int] = STRIDES, **changes) -> RPN:
    levels = tuple(Level(f"p{k}", 256, stride, k) for k, stride in enumerate(strides, 2))
    return build_rpn(levels, dialect.changed(**changes))


def images_of(sizes: Sequence[Sequence[float]]) -> ImageBatch:
    whole = torch.tensor([[int(height), int(width)] for height, width in sizes])
    return ImageBatch(torch.zeros(len(whole), 3, *whole.amax(dim=0).tolist()), whole)


def maps_of(values: np.ndarray | Tensor, shapes: Sequence[Sequence[int]], channels: int) -> list[Tensor]:
    """(B, sum of H*W*A, channels) in the order level, y, x, anchor -> maps (B, A*channels, H, W)."""
    values = torch.as_tensor(values)
    counts = [height * width * 3 for height, width in shapes]
    return [
        part.reshape(len(values), *shape, 3 * channels).permute(0, 3, 1, 2)
        for part, shape in zip(values.split(counts, dim=1), shapes, strict=True)
    ]


def raw_of(logits: np.ndarray, deltas: np.ndarray | Tensor, shapes: Sequence[Sequence[int]]) -> RawProposals:
    objectness = maps_of(logits[..., None], shapes, 1)
    return RawProposals(objectness, maps_of(deltas, shapes, 4), objectness)


# --- from raw boxes to proposals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("figures", cases("d2_6_proposals"), ids=lambda figures: figures.name)
def test_detectron2_takes_the_best_of_each_level(figures):
    meta, shapes = figures.meta, figures.meta["feature_shapes"]
    batch = len(meta["image_sizes"])
    spread = 0.4 if "std 0.4" in meta["inputs"] else 0.3
    prefix = meta["inputs"].split('"')[1].removesuffix("l<i>")
    counts = [height * width * 3 for height, width in shapes]
    logits = [figures.normal(f"{prefix}l{i}", (batch, n), 2.0) for i, n in enumerate(counts)]
    deltas = [figures.normal(f"{prefix}d{i}", (batch, n, 4), spread) for i, n in enumerate(counts)]
    head = head_of(
        DETECTRON2,
        # These figures stand on anchors shifted by half a stride, though their meta.json says offset 0: with 0 all
        # boxes are off by exactly half a stride. (The full detectors have offset 0.)
        anchors_offset=0.5,
        rpn_before_nms=(meta["pre_nms_topk_per_level"],) * 2,
        rpn_after_nms=(meta["post_nms_topk"],) * 2,
        rpn_nms=meta["nms_thresh"],
        rpn_min_size=meta["min_box_size"],
    )
    raw = raw_of(np.concatenate(logits, 1), np.concatenate(deltas, 1), shapes)
    for index, found in enumerate(head.propose(raw, images_of(meta["image_sizes"]))):
        assert_same_set(found.boxes, figures[f"boxes{index}"], BOX_TOLERANCE * 10)
        expected = torch.from_numpy(figures[f"logits{index}"]).sigmoid().numpy()
        assert_near(found.scores, expected, OP_TOLERANCE)


@pytest.mark.parametrize("figures", cases("fpnpt_d_proposals"), ids=lambda figures: figures.name)
def test_fpn_pytorch_takes_the_best_of_all_levels_and_fills_up_with_zeros(figures):
    meta = figures.meta
    counts = (meta["pre_nms_topN"], meta["post_nms_topN"])
    head = head_of(
        FPN_PYTORCH,
        (4, 8, 16, 16, 32),
        rpn_before_nms=(counts[0],) * 2,
        rpn_after_nms=(counts[1],) * 2,
        rpn_nms=meta["nms_thresh"],
    )
    logits, deltas = (rule.from_spec(figures.salt, meta["inputs"][name]) for name in ("logit", "deltas"))
    raw = raw_of(logits, deltas, meta["feat_shapes"])
    found = head.propose(raw, images_of([info[:2] for info in meta["im_info"]]))
    for proposals, rois, valid in zip(found, figures["rois"], figures["n_valid"], strict=True):
        assert len(proposals) == counts[1]
        assert_same_set(proposals.boxes[:valid], rois[:valid, 1:], BOX_TOLERANCE * 10)
        assert not proposals.boxes[valid:].any()


@pytest.mark.parametrize("figures", cases("mrcnn_4"), ids=lambda figures: figures.name)
def test_matterport_proposes_in_normalised_boxes(figures):
    meta = figures.meta
    side = case("mrcnn_2_anchors").meta["image_shape"][0]
    shapes = case("mrcnn_2_anchors").meta["backbone_shapes"]
    head = head_of(
        MATTERPORT,
        rpn_before_nms=(meta["PRE_NMS_LIMIT"],) * 2,
        rpn_after_nms=(meta["proposal_count"],) * 2,
        rpn_nms=meta["nms_threshold"],
        rpn_weights=tuple(1 / spread for spread in meta["RPN_BBOX_STD_DEV"]),
    )
    logits, deltas = (rule.from_spec(figures.salt, meta["inputs"][name]) for name in ("logit", "deltas"))
    [found] = head.propose(raw_of(logits, deltas[..., YX], shapes), images_of([(side, side)]))
    valid = int(figures["n_valid"][0])
    assert len(found) == meta["proposal_count"]
    assert_same_set(found.boxes[:valid, YX] / (side - 1), figures["proposals"][0, :valid], OP_TOLERANCE)
    assert not found.boxes[valid:].any()


# --- the network -----------------------------------------------------------------------------------------------------


def fpn_pytorch_head(figures: Case) -> RPN:
    state = rule.weights(figures.salt, [(n, tuple(s)) for n, s, _ in figures.meta["names"]], figures.factors)
    assert rule.sha256(state) == figures.meta["weights_sha256"]
    renamed, leftover = rename({f"RCNN_rpn.{n}": torch.from_numpy(v) for n, v in state.items()}, fpn_pytorch.RULES)
    assert leftover == ()
    head = head_of(FPN_PYTORCH, (4, 8, 16, 16, 32))
    fill_module(head, {name.removeprefix("rpn."): value for name, value in renamed.items()}, toolkit="fpn.pytorch")
    return head


def flat(maps: Sequence[Tensor], channels: int) -> Tensor:
    """Maps (B, A*channels, H, W) -> (B, sum of H*W*A, channels)."""
    return torch.cat([m.permute(0, 2, 3, 1).reshape(len(m), -1, channels) for m in maps], dim=1)


@torch.no_grad()
def test_fpn_pytorch_reads_other_channels_than_its_softmax_pairs():
    figures = case("fpnpt_g_rpn")
    head = fpn_pytorch_head(figures)
    shapes = [figures[f"cls_score_map{i}"].shape[2:] for i in range(5)]
    features = {
        f"p{i + 2}": torch.from_numpy(figures.normal(f"g:feat{i}", (1, 256, *shape), 1.0))
        for i, shape in enumerate(shapes)
    }
    raw = head(features)
    for i, value in enumerate(features.values()):
        assert_map(figures, f"cls_score_map{i}", head.objectness(head.shared(value).relu()))
    assert_near(flat(raw.objectness, 1)[..., 0].sigmoid(), figures["cls_prob"][..., 1], OP_TOLERANCE)
    assert_map(figures, "bbox_pred", flat(raw.deltas, 4))
    # The loss is on raw scores in pairs (0, 1), (2, 3), (4, 5), the second being foreground.
    scores = figures["cls_score"]
    assert_near(flat(raw.training_objectness, 1)[..., 0], scores[..., 1] - scores[..., 0], 1e-4)
    [found] = head.propose(raw, images_of([figures.meta["im_info"][:2]]))
    assert_same_set(found.boxes, figures["rois"][0, :, 1:], 1e-2)


@torch.no_grad()
def test_detectron2_network():
    figures = case("d2_6_rpn")
    head = import_weights(same_weights(replace_digest(figures), "d2_faster.json")).module.rpn
    features = {
        f"p{i + 2}": torch.from_numpy(figures.normal(f"d2:rpn:f{i}", (1, 256, *figures[f"logits{i}"].shape[2:]), 1.0))
        for i in range(5)
    }
    raw = head(features)
    for i in range(5):
        assert_map(figures, f"logits{i}", raw.objectness[i])
        assert_map(figures, f"deltas{i}", raw.deltas[i])


def replace_digest(figures: Case) -> Case:
    """The case with the digest that another case of the same weights states."""
    figures.meta.setdefault("weights_sha256", case("d2_5_fpn_r50").meta["weights_sha256"])
    return figures


@torch.no_grad()
def test_matterport_network():
    figures = case("mrcnn_1_pyramid_rpn_r50")
    detector = import_weights(same_weights(figures, figures.meta["names"].removeprefix("names/"))).module
    pixels = torch.from_numpy(figures.input()).permute(0, 3, 1, 2).contiguous()
    raw = detector.rpn(detector.features(pixels))
    logits = figures["rpn_class_logits"]
    found = figures.stored_part("rpn_class_logits", np.zeros((*flat(raw.objectness, 1).shape[:2], 2), np.float32))
    assert found.shape == logits.shape
    part = figures.stored_part("rpn_class", np.stack([flat(raw.objectness, 1)[..., 0].sigmoid().numpy()] * 2, -1))
    assert_near(part[..., 1], figures["rpn_class"][..., 1], OP_TOLERANCE * 10)
    assert_map(figures, "rpn_bbox", flat(raw.deltas, 4)[..., YX])


# --- targets and loss ------------------------------------------------------------------------------------------------


def test_fpn_pytorch_targets_and_losses():
    figures = case("fpnpt_j_rpn_targets_loss")
    meta = figures.meta
    head = fpn_pytorch_head(figures)
    # Nothing is left to chance: all anchors are sampled.
    head.sampler = replace(head.sampler, config=head.sampler.config.changed(count=2_000_000))
    boxes = torch.from_numpy(figures["gt_boxes"])[0]
    boxes = boxes[boxes[:, 4] > 0]
    truth = Targets(boxes[:, :4].contiguous(), boxes[:, 4].long() - 1)
    features = {
        f"p{i + 2}": torch.from_numpy(figures.normal(f"j:feat{i}", (1, 256, *shape), 0.5))
        for i, shape in enumerate(meta["feat_shapes"])
    }
    images = images_of([meta["im_info"][0][:2]])
    raw = head(features)
    anchors = torch.cat(head._grids(raw, images.padded_size))
    drawn = head.sampler.draw(anchors, truth, usable=head._usable([anchors], raw, images.sizes[0]))
    labels = torch.full((len(anchors),), -1)
    labels[drawn.negative], labels[drawn.positive] = 0, 1
    assert labels.tolist() == figures["labels"][0].tolist()
    order = drawn.positive.argsort()
    assert drawn.positive[order].tolist() == figures["fg_index"].tolist()
    targets = head.coder.encode(truth.boxes[drawn.gt_index[order]], anchors[drawn.positive[order]])
    assert_near(targets, figures["fg_targets"], OP_TOLERANCE * 10)
    losses = head.losses(raw, images, [truth]).detach()
    assert losses["objectness"] == pytest.approx(meta["rpn_loss_cls"], rel=1e-4)
    assert losses["rpn_box"] == pytest.approx(meta["rpn_loss_box"], rel=1e-4)
    [found] = head.propose(raw, images, training=True)
    best = figures["rois_train"][0, :, 1:]  # the best of them are stored
    assert_same_set(found.boxes[: len(best)], best, 1e-2)
