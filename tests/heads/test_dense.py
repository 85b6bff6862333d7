from __future__ import annotations

import math

import pytest
import torch

from fpn.features.blocks import LevelNorm
from fpn.heads.anchors import AnchorsConfig
from fpn.heads.atss import ATSSConfig, ATSSHead
from fpn.heads.box_coder import CoderConfig
from fpn.heads.dense import DenseConfig
from fpn.heads.dense_losses import Normalizer, centreness
from fpn.heads.dense_selection import floor_of_best, pick_best
from fpn.heads.fcos import FCOSConfig, FCOSHead
from fpn.heads.retinanet import RetinaNetConfig, RetinaNetHead
from fpn.ops.losses import sigmoid_focal
from fpn.structures import ImageBatch, Level, Targets

LEVELS = (Level("p3", 8, 8, 3), Level("p4", 8, 16, 4))
IMAGES = ImageBatch(torch.zeros(2, 3, 64, 64), torch.tensor([[64, 64], [40, 64]]))
FEATURES = {"p3": torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0)), "p4": torch.ones(2, 8, 4, 4)}
OBJECT = Targets(torch.tensor([[16.0, 16.0, 48.0, 48.0]]), torch.tensor([1]))


def retinanet(**options: object) -> RetinaNetHead:
    torch.manual_seed(0)
    anchors = AnchorsConfig(sizes=((32.0,), (64.0,)), ratios=(1.0,))
    config = RetinaNetConfig(convolutions=1, **options)
    return RetinaNetHead(levels=LEVELS, num_classes=3, anchors=anchors, coder=CoderConfig(), config=config)


def atss(**options: object) -> ATSSHead:
    torch.manual_seed(0)
    anchors = AnchorsConfig(sizes=((32.0,), (64.0,)), ratios=(1.0,))
    config = ATSSConfig(convolutions=1, **options)
    return ATSSHead(levels=LEVELS, num_classes=3, anchors=anchors, coder=CoderConfig(), config=config)


def fcos(**options: object) -> FCOSHead:
    torch.manual_seed(0)
    return FCOSHead(levels=LEVELS, num_classes=3, config=FCOSConfig(convolutions=1, **options))


def test_the_classification_term_is_focal_loss_over_all_that_takes_part_by_the_positives() -> None:
    head = retinanet()
    raw = head(FEATURES)
    terms = head.losses(raw, IMAGES, [OBJECT, Targets.empty()])
    logits = torch.cat([x.permute(0, 2, 3, 1).reshape(2, -1, 3) for x in raw[:2]], dim=1)
    target = torch.zeros_like(logits)
    found = head.assign(head.references(head.maps(raw), IMAGES), OBJECT, IMAGES.sizes[0])
    target[0, found.kind == 1, 1] = 1.0
    every = sigmoid_focal(logits, target).sum(dim=2)
    wanted = (every[0][found.kind >= 0].sum() + every[1].sum()) / int((found.kind == 1).sum())
    torch.testing.assert_close(terms.terms["classification"], wanted)
    # The anchor of 32 pixels on (32, 32) is the object's own box, so there is nothing to be moved but what is said.
    assert int(found.kind[4 * 8 + 4]) == 1


@pytest.mark.parametrize(
    ("kind", "value", "samples"),
    [
        ("batch", 10.0 / 3, 3.0),
        ("images", 10.0 / 4, 4.0),
        ("image", (6.0 / 3 + 4.0) / 2, None),
        ("ema", 10.0 / 90.3, None),
    ],
)
def test_sums_of_losses_are_divided_as_each_toolkit_does(kind: str, value: float, samples: float | None) -> None:
    # Two images with losses of 6 and 4; the first has 3 positive places, the second none.
    normalizer = Normalizer(DenseConfig(normalizer=kind))
    normalizer.see([3, 0])
    assert float(normalizer(torch.tensor([6.0, 4.0]), [3, 0])) == pytest.approx(value)
    assert normalizer.samples([3, 0]) == samples


def test_measuring_leaves_the_average_of_positives_as_it_is() -> None:
    head = retinanet(normalizer="ema").eval()
    head.losses(head(FEATURES), IMAGES, [OBJECT, OBJECT])
    assert float(head.normalizer.mean) == 100.0
    head.train().losses(head(FEATURES), IMAGES, [OBJECT, OBJECT])
    assert float(head.normalizer.mean) < 100.0


@pytest.mark.parametrize("make", [retinanet, fcos, atss])
def test_a_crowd_is_neither_object_nor_background(make) -> None:
    head = make()
    crowd = Targets(torch.tensor([[0.0, 0.0, 64.0, 64.0]]), torch.tensor([0]), torch.tensor([True]))
    raw = tuple(torch.zeros_like(x).requires_grad_() for x in head(FEATURES))
    terms = head.losses(raw, IMAGES, [crowd, Targets.empty()])
    terms.total.backward()
    alone, beside = raw[0].grad
    assert float(terms.counts["positives"]) == 0
    assert float(alone[:, 4, 4].abs().sum()) == 0  # in the midst of the crowd
    assert float(beside[:, 4, 4].abs().sum()) > 0


@pytest.mark.parametrize(("limit", "found"), [(0.5, [0, 4]), (0.9, [4])])
def test_of_a_level_only_pairs_above_the_limit_are_looked_at(limit: float, found: list[int]) -> None:
    # Two anchors, two classes, a map of 1 x 2 cells: channels anchor * 2 + class.
    logits = torch.full((4, 1, 2), -5.0)
    logits[1, 0, 0], logits[2, 0, 1] = 1.0, 3.0  # anchor 0, class 1 at x = 0; anchor 1, class 0 at x = 1
    deltas = torch.arange(16.0).reshape(8, 1, 2)
    picked = pick_best(logits, deltas, None, scoring="class", limit=limit, count=10)
    order = picked.scores.argsort(descending=True)
    assert picked.places[order].tolist() == {2: [3, 0], 1: [3]}[len(found)]
    assert picked.labels[order].tolist() == {2: [0, 1], 1: [0]}[len(found)]
    assert picked.deltas[order][0].tolist() == [9.0, 11.0, 13.0, 15.0]  # anchor 1 at x = 1
    assert float(picked.scores.max()) == pytest.approx(1 / (1 + math.exp(-3.0)))


@pytest.mark.parametrize(("scoring", "score"), [("class", 0.8), ("root", 0.4), ("product", 0.16)])
def test_quality_enters_a_score(scoring: str, score: float) -> None:
    logits, quality = (torch.tensor([[[math.log(p / (1 - p))]]]) for p in (0.8, 0.2))
    picked = pick_best(logits, torch.zeros(4, 1, 1), quality, scoring=scoring, limit=0.3, count=10)
    assert picked.scores.tolist() == pytest.approx([score])


def test_of_a_level_only_the_best_pairs_are_decoded() -> None:
    logits = torch.arange(12.0).reshape(3, 2, 2)
    picked = pick_best(logits, torch.zeros(4, 2, 2), None, scoring="class", limit=0.0, count=2)
    assert sorted(picked.places.tolist()) == [2, 3]
    assert picked.labels.tolist() == [2, 2]


def test_a_floor_is_reached_by_the_wanted_count_and_few_more() -> None:
    # 2 wanted: 8 groups of two, whose largest are 1, 3, ... 15; the second largest of these is 13.
    assert float(floor_of_best(torch.arange(17.0), 2)) == 13.0


def test_of_many_pairs_above_the_limit_the_best_are_the_same() -> None:
    logits = torch.randperm(3 * 20 * 20, generator=torch.Generator().manual_seed(0)).view(3, 20, 20).float()
    picked = pick_best(logits / 100, torch.zeros(4, 20, 20), None, scoring="class", limit=0.0, count=5)
    assert picked.scores.tolist() == (torch.arange(1199.0, 1194.0, -1) / 100).sigmoid().tolist()
    best = logits.flatten().topk(5).indices
    assert picked.labels.tolist() == (best // 400).tolist()
    assert picked.places.tolist() == (best % 400).tolist()


def test_boxes_are_clipped_before_nms_or_behind_the_limit() -> None:
    # Two boxes that overlap by half inside of the image, by less with what lies outside of it.
    head = fcos()
    raw = [torch.full_like(x, -20.0) for x in head(FEATURES)]
    for number in (4, 5):
        raw[number].fill_(20.0)  # quality
    raw[0][0, 0, 4, 4], raw[0][0, 0, 4, 5] = 5.0, 4.0  # at (36, 36) and (44, 36)
    raw[2][0, :, 4, 4] = torch.tensor([2.0, 2.0, 2.0, 2.0])  # 20..52
    raw[2][0, :, 4, 5] = torch.tensor([1.0, 2.0, 12.0, 2.0])  # 36..140, of which 64 are in the image
    counts = {}
    for clipped in ("before_nms", "last"):
        head.settings = head.config.changed(clipped=clipped, nms=0.3)
        found = head.detect(tuple(raw), IMAGES)[0]
        counts[clipped] = len(found)
        assert float(found.boxes.max()) <= 64
    # Inside: 16 of 44 columns, 0.36. As they are: 16 of 120, 0.13.
    assert counts == {"before_nms": 1, "last": 2}


def test_centreness_is_1_in_the_middle_and_0_at_the_rim() -> None:
    # Left 1 and right 4: sqrt(1/4); above and below alike.
    offsets = torch.tensor([[2.0, 2.0, 2.0, 2.0], [1.0, 3.0, 4.0, 3.0], [0.0, 1.0, 4.0, 1.0]])
    assert centreness(offsets).tolist() == pytest.approx([1.0, 0.5, 0.0])


def test_training_begins_with_the_prior_as_every_score() -> None:
    head = retinanet()
    logits = head(FEATURES)[0]
    assert float(logits.detach().sigmoid().mean()) == pytest.approx(0.01, rel=0.05)


def test_a_norm_takes_a_level_of_a_single_cell() -> None:
    norm = LevelNorm(8, 8).train()
    assert norm(torch.ones(1, 8, 1, 1)).tolist() == torch.zeros(1, 8, 1, 1).tolist()


def test_cells_beyond_an_image_of_its_own_padding_take_no_part_where_that_is_asked_for() -> None:
    head = retinanet(padding=32)
    references = head.references(head.maps(head(FEATURES)), IMAGES)
    usable = head.usable(references, torch.tensor([20, 64]))  # padded to 32 x 64: rows 0..3 of 8, and 0..1 of 4
    assert usable[:64].reshape(8, 8).all(dim=1).tolist() == [True] * 4 + [False] * 4
    assert usable[64:].reshape(4, 4).all(dim=1).tolist() == [True] * 2 + [False] * 2
