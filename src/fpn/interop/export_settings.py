"""Whether another toolkit's detector can be told all settings of one of ours, and which it can't."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from fpn.detectors.dialect import Dialect
from fpn.detectors.recipe import Recipe
from fpn.errors import ConfigError
from fpn.interop.findings import flatten, show_setting

# They decide how a detector learns, and nothing of what it finds. Those that end in "." are whole sections.
_TRAINING = (
    "rpn.sampling.", "rpn.inside_only", "rpn.valid_multiple", "rpn.beta", "rpn.loss", "rpn.loss_weight",
    "rpn.normalizer", "box.sampling.", "box.beta", "box.loss", "box.loss_weight", "mask.sampling", "mask.aligned",
    "mask.threshold", "keypoint.normaliser", "cascade.ious", "cascade.loss_weights", "cascade.resampled",
    "cascade.shared_gradient", "dense.prior", "dense.alpha", "dense.gamma", "dense.normalizer",
    "dense.normalizer_start", "dense.positive_iou", "dense.negative_iou", "dense.keep_best", "dense.best_owns",
    "dense.padding", "dense.radius", "dense.range_ends", "dense.box_loss", "dense.box_weighted", "dense.beta",
)  # fmt: skip
# Names, and what is no part of a detector with the usual neck. Values of images of more than 8 bits are told apart.
_NEVER = ("name", "source", "neck.repeats", "neck.fusion", "box.background", "pixels.pixel_range")
# Setting -> the one that decides whether it matters, and with which values.
_MATTERS_WITH: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "neck.norm_epsilon": ("neck.norm", ("batch", "group", "layer")),
    "neck.norm_on_lateral": ("neck.norm", ("batch", "group", "layer")),
    "neck.extra_relu": (
        "neck.extra_levels",
        ("convolutions_on_c5", "convolutions_on_lateral", "convolutions_on_p5"),
    ),
    "roi.aligned": ("roi.sampler", ("align",)),
    "roi.sampling_ratio": ("roi.sampler", ("align",)),
    "roi.max_pool": ("roi.sampler", ("crop",)),
    "box.num_convolutions": ("box.head", ("convolutions",)),
    "box.convolution_channels": ("box.head", ("convolutions",)),
    "box.norm": ("box.head", ("convolutions",)),
    "box.nms_sigma": ("box.suppression", ("gaussian",)),
    "box.nms_lowest": ("box.suppression", ("linear", "gaussian")),
    "dense.norm_bias": ("dense.norm", ("group",)),
}


@dataclass(frozen=True, slots=True)
class UnlikeSetting:
    """A setting that the other side can't be told.

    Attributes:
        setting: its path.
        ours, theirs: the values.
        why: the other side has no other value.
    """

    setting: str
    ours: Any
    theirs: Any
    why: str

    def __str__(self) -> str:
        return f"{self.setting} is {show_setting(self.ours)}, there {show_setting(self.theirs)}: {self.why}"


def active_settings(dialect: Dialect) -> dict[str, Any]:
    """What matters of a dialect, by path; what follows from other settings is spelled out."""
    own = dict(flatten(dialect))
    own["neck.norm"] = own["neck.norm"] or "none"
    own["neck.num_extra"] = dialect.neck.extra_count
    if own["neck.norm"] in ("batch", "group"):
        own["neck.norm_epsilon"] = own["neck.norm_epsilon"] or 1e-5
    if "rpn.channels" in own:
        own["rpn.channels"] = own["rpn.channels"] or own["neck.output_channels"]
    if own.get("mask.norm") == "frozen":  # as batch norms are, once training is over
        own["mask.norm"] = "batch"
    idle = {path for path, (other, values) in _MATTERS_WITH.items() if other in own and own[other] not in values}
    if "cascade.weights" in own:  # one for each stage in place of this
        idle.add("box.weights")
    if "anchors.sizes" in own and (len(own["anchors.ratios"]) == 1 or max(map(len, own["anchors.sizes"])) == 1):
        idle.add("anchors.order")
    return {path: value for path, value in own.items() if path not in (*_NEVER, *idle)}


def compare_dialects(
    own: Dialect, usual: Dialect, *, told: Collection[str], reasons: Mapping[str, str]
) -> tuple[list[UnlikeSetting], list[str]]:
    """What the other side can't be told, and which settings differ that matter in training alone.

    Args:
        own: the detector's.
        usual: what the other side does unless it is told something else.
        told: paths of the settings that it can be told.
        reasons: path -> why it can't be told that one.
    """
    ours, theirs = active_settings(own), active_settings(usual)
    differing = [path for path in ours if path in theirs and ours[path] != theirs[path] and path not in told]
    learning = [path for path in differing if _of_training(path)]
    unlike = [
        UnlikeSetting(path, ours[path], theirs[path], reasons.get(path, "it can't be set"))
        for path in differing
        if path not in learning
    ]
    return unlike, learning


def _of_training(path: str) -> bool:
    return any(path == each or (each.endswith(".") and path.startswith(each)) for each in _TRAINING)


def refuse_unlike(unlike: list[UnlikeSetting], recipe: Recipe, receiver: str, dialect: str) -> None:
    """Stop where the other side would find something else.

    Args:
        unlike: the settings.
        recipe: of the detector.
        receiver: what the other side is, for the message.
        dialect: name of the dialect that it would understand.

    Raises:
        ConfigError: there are such settings.
    """
    if not unlike:
        return
    soft = any(each.setting == "box.suppression" for each in unlike)
    remedy = f"A model trained with --dialect {dialect}{' --suppression hard' if soft else ''} can."
    if all(each.setting == "box.suppression" for each in unlike):
        remedy = "`fpn train DATA --init MODEL --suppression hard` goes on with its weights, and what it writes can."
    listed = "\n".join(f"  {each}" for each in unlike)
    raise ConfigError(
        f"this {recipe.kind} can't become {receiver}, which would find something else with its weights:\n{listed}\n"
        f"{remedy}"
    )
