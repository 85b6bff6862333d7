"""What to do about a stage that loses objects, with the numbers of those that it lost."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from fpn.detectors.dialect import TwoStageDialect
from fpn.heads.anchor_towers import AnchorTowerHead
from fpn.heads.dense_towers import TowerHead

_OF_ALARMS = {
    "classification": "check labels of classes that are taken for one another; more images of the rarer one",
    "localisation": "more epochs; larger images (--short-side); boxes in the labels that are drawn loosely",
    "both": "more images; larger images (--short-side)",
    "duplicate": "a lower box.nms: fpn train --set box.nms=0.4",
    "background": "a higher --score; images without objects; look for objects that are not labelled",
    "missed": "see the stages above",
}

_OF_HEADS = {
    "class": "look at the labels of what it was taken for; more images of these classes; more epochs",
    "box": "more epochs; larger images (--short-side)",
}


def remedy(stage: str, values: Sequence[float], dialect: TwoStageDialect) -> str:
    """One line for a stage; settings are those of `fpn train`.

    Args:
        stage: its name.
        values: what was measured of the objects that it lost, as `LostObject.value`.
        dialect: the detector's.
    """
    if stage in _OF_ALARMS:
        return _OF_ALARMS[stage]
    middle = median(values) if values else None
    return {"top_k": _more_proposals, "rpn_nms": _looser, "suppression": _looser_end, "threshold": _lower}.get(
        stage, _in_words
    )(stage, middle, dialect)


def _in_words(stage: str, middle: float | None, dialect: TwoStageDialect) -> str:
    return {
        "anchors": "fpn check DATA suggests --anchor-sizes, --anchor-ratios and --short-side that reach them",
        "objectness": "more epochs; anchors that fit better (fpn check DATA); more images with such objects",
        "rpn_box": "more epochs; anchors nearer to their shapes (fpn check DATA)",
        "level": f"another size for equation 1: fpn train --set roi.canonical_size={_canonical(middle, dialect):g}",
        **_OF_HEADS,
    }[stage]


def _canonical(step: float | None, dialect: TwoStageDialect) -> float:
    """One level finer is twice the size."""
    return float(f"{dialect.roi.canonical_size * 2.0 ** -(step or 0.0):.3g}")


def _more_proposals(_: str, rank: float | None, dialect: TwoStageDialect) -> str:
    train, test = dialect.rpn.before_nms
    wanted = max(2 * test, round(rank or 0))
    after = max(2 * dialect.rpn.after_nms[1], wanted)
    more = f"rpn.before_nms=[{max(train, wanted)},{wanted}] --set rpn.after_nms=[{max(train, after)},{after}]"
    return f"fpn train --set {more}"


def _looser(_: str, overlap: float | None, dialect: TwoStageDialect) -> str:
    looser = _above(overlap, dialect.rpn.nms)
    return f"they overlap with IoU {overlap or 0:.2f} (median): fpn train --set rpn.nms={looser:g}"


def _looser_end(_: str, overlap: float | None, dialect: TwoStageDialect) -> str:
    if overlap is not None and dialect.box.suppression == "gaussian":
        sigma = 2 * dialect.box.nms_sigma
        return f"they overlap with IoU {overlap:.2f} (median): --set box.nms_sigma={sigma:g} takes less of their scores"
    return _at_overlap(overlap, dialect.box.nms, dialect.box.limit, "box.nms")


def _at_overlap(overlap: float | None, now: float, limit: int, setting: str) -> str:
    if overlap is None:
        return f"more detections an image: --max-detections {2 * limit}"
    if overlap <= now:
        return "boxes of one class that are surer and worse: more epochs"
    return f"they overlap with IoU {overlap:.2f} (median): fpn train --set {setting}={_above(overlap, now):g}"


def _above(overlap: float | None, now: float) -> float:
    return min(0.95, round(max(overlap or 0.0, now) + 0.05, 2))


def _lower(_: str, score: float | None, dialect: TwoStageDialect) -> str:
    return _at_score(score, dialect.box.score_limit, "box.score_limit")


def _at_score(score: float | None, limit: float, setting: str) -> str:
    if score is not None and score <= limit:
        return f"half of them reach fpn train --set {setting}={int(score * 100) / 100:g}"
    return f"half of them reach --score {int((score or 0) * 100) / 100:g} (of fpn predict)"


def dense_remedy(stage: str, values: Sequence[float], head: TowerHead) -> str:
    """As `remedy`, of a one-stage detector's head."""
    config, middle = head.settings, median(values) if values else None
    match stage:
        case "anchors" if isinstance(head, AnchorTowerHead):
            return "fpn check DATA suggests --anchor-sizes, --anchor-ratios and --short-side that reach them"
        case "anchors":
            return "larger images (--short-side): they are smaller than the cells of the finest level"
        case "score":
            return "more epochs; more images with such objects"
        case "quality":
            return f"half of them reach --score {int((middle or 0) * 100) / 100:g} (of fpn predict)"
        case "top_k":
            return f"fpn train --set dense.before_nms={max(2 * config.before_nms, round(middle or 0))}"
        case "suppression":
            return _at_overlap(middle, config.nms, config.limit, "dense.nms")
        case "threshold":
            return _at_score(middle, config.score_limit, "dense.score_limit")
        case "duplicate":
            return "a lower dense.nms: fpn train --set dense.nms=0.4"
        case "class" | "box":
            return _OF_HEADS[stage]
    return _OF_ALARMS[stage]
