"""Options of `fpn train` in groups, and the file that may carry the same keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from fpn.cli import paths
from fpn.cli.beginning import resolve_beginning
from fpn.cli.complaints import given_name, of_file
from fpn.cli.model_settings import combine, kind_of, read_assignments
from fpn.errors import ConfigError
from fpn.features.necks.designs import DESIGNS, FPN, PAPER_ROWS
from fpn.sections import CheckedSettings, refuse_unknown
from fpn.training.config import DetectorName, RecipeName, TrainConfig, detector_settings, read_settings

if TYPE_CHECKING:
    from fpn.cli.held_out import HeldOut
    from fpn.data import Limits


class LimitOptions(CheckedSettings):
    """What is accepted, so that a broken or hostile file can't fill the memory."""

    max_pixels: int | None = Field(
        default=None,
        ge=1,
        description="Largest image that is read, height times width. None: 134217728, which is 2 ** 27.",
    )
    max_objects: int | None = Field(default=None, ge=1, description="Most objects of one image. None: 50000.")
    max_file_size: int | None = Field(
        default=None,
        ge=1,
        description="Largest file that is read, in MiB. None: 6144 for a COCO json, 8 for XML, 64 for text, 1024 for "
        "an image.",
    )

    def limits(self) -> Limits:
        """As `open_dataset` takes them."""
        from fpn.data import Limits

        return Limits.of(max_pixels=self.max_pixels, max_objects=self.max_objects, max_file_size=self.max_file_size)


class DataOptions(LimitOptions):
    """Which images, and where the run goes."""

    output: Path | None = Field(
        None,
        description="Folder for the run, new or empty: best.safetensors, last/, metrics.jsonl, run.json. Needed, but "
        "with --resume.",
    )
    split: str | None = Field(
        None, description="Split to train on. None: the only one, else all, else trainval, else train."
    )
    images: Annotated[Path | None, paths.folder("--images")] = Field(
        None, description="Folder of DATA's images, if they lie elsewhere than their annotations."
    )
    validation: Annotated[Path | None, paths.dataset("--validation")] = Field(
        None, description="Dataset to measure on after each epoch, if it is another one than DATA."
    )
    validation_split: str | None = Field(
        None,
        description="Split to measure on after each epoch. None, without --validation: val, if train was not "
        "asked for either.",
    )
    validation_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Keep this share of DATA's images, such as 0.2, from training and measure on them, each class in "
        "proportion, images alike on one side. fpn split writes such parts to a folder.",
    )
    by_group: str | None = Field(
        None,
        description="With --validation-share: regular expression that is searched for in each image's path; images in "
        "which it finds the same stay on one side.",
    )
    similar: bool = Field(
        True, description="With --validation-share: keep images on one side that look alike. All are read for it."
    )
    drop_invalid: bool = Field(
        False,
        description="Leave out boxes that are empty, not finite or outside of their image, and count them. `fpn train` "
        "leaves out a few without being asked and says so; --no-drop-invalid stops at them.",
    )
    pixel_range: tuple[float, float] | None = Field(
        None,
        description="Values that become black and white in images of more than 8 bits, such as 0 4095; kept in the "
        "model. None: what fits the images.",
    )
    check_images: bool = Field(
        False,
        description="Decode every image before the first step, and stop at those that can't be read, or name them "
        "(--skip-unreadable).",
    )

    @field_validator("by_group")
    @classmethod
    def _is_an_expression(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"no regular expression ({error})") from None
        return value

    @property
    def names_validation(self) -> bool:
        """Whether it is said what to measure on."""
        return any(each is not None for each in (self.validation, self.validation_split, self.validation_share))


class ModelOptions(CheckedSettings):
    """Which detector; the defaults are those of its preset, such as `fpn.faster_rcnn`."""

    detector: DetectorName = Field("faster_rcnn", description="Kind of detector.")
    backbone: str = Field("resnet50", description="Name of a timm model, such as tf_efficientnet_lite0.")
    weights: Annotated[str, paths.weights("--weights")] = Field(
        "imagenet",
        description="Backbone weights: imagenet (timm's hub), offline (from the extra of that name), none, or a file.",
    )
    init: Annotated[Path | None, paths.beginning("--init")] = Field(
        None,
        description="Begin with an earlier model (.safetensors) instead, also one of other classes: weights of classes "
        "follow their names. Options of this group are then the model's, unless given. torchvision/NAME, such as "
        "torchvision/fasterrcnn_resnet50_fpn_v2: that detector's COCO weights. With a backbone alone the heads begin "
        "anew: timm/NAME, such as timm/resnet50.a1_in1k, torchvision/resnet50, or a file of ImageNet weights, such as "
        "Detectron2's R-50.pkl. docs/importing.md has the names.",
    )
    dialect: str = Field("paper", description="Conventions to follow: paper, torchvision, detectron2, ...")
    neck: str = Field(
        FPN,
        description="How the backbone's maps become levels: fpn; what came after it: "
        f"{', '.join(name for name in DESIGNS if name not in PAPER_ROWS)}; or what the paper compares it with: "
        f"{', '.join(name for name in PAPER_ROWS if name != FPN)}. A plain vision transformer needs simple_pyramid.",
    )
    short_side: int | None = Field(
        None, ge=16, description="Shorter side of images in the network, in pixels. None: the dialect's, 800."
    )
    long_side: int | None = Field(
        None, ge=16, description="Limit of the longer side, in pixels. None: in the dialect's proportion (5/3)."
    )
    frozen_stages: int = Field(2, ge=0, le=5, description="Stages of the backbone that are not trained, stem included.")
    frozen_norm: bool = Field(True, description="Batch norms of the backbone keep their statistics and weights.")
    channels: int | None = Field(
        None, ge=1, description="Width of the pyramid's maps. None: the dialect's, 256. 96 is much faster on a CPU."
    )
    head_width: int | None = Field(None, ge=1, description="Width of the box head's two layers. None: 1024.")
    mask_width: int | None = Field(None, ge=1, description="Width of the mask head's convolutions. None: 256.")
    keypoint_width: int | None = Field(None, ge=1, description="Width of the keypoint head's convolutions. None: 512.")
    anchor_sizes: tuple[float, ...] | None = Field(
        None, description="Anchor side of each level, finest first, in network pixels. None: 32 64 128 256 512."
    )
    anchor_ratios: tuple[float, ...] | None = Field(
        None, description="Aspect ratios (height / width) of the anchors. None: 0.5 1 2."
    )
    roi_samples: int | None = Field(None, ge=1, description="RoIs an image that the box head learns from. None: 512.")
    score_limit: float | None = Field(None, ge=0, lt=1, description="Score that detections must exceed. None: 0.05.")
    suppression: Literal["hard", "linear", "gaussian"] | None = Field(
        None,
        description="What becomes of a detection that overlaps a surer one of its class: hard: it is dropped; else its "
        "score is lowered (Soft-NMS, arXiv:1704.04503). None: hard.",
    )
    max_detections: int | None = Field(
        None,
        ge=1,
        description="Most detections of an image, to be raised where more objects are. None: the dialect's, 100.",
    )

    set: tuple[str, ...] | None = Field(
        None,
        description="Any other setting of the dialect, such as roi.sampler=pool rpn.nms=0.6; docs/dialects.md has all. "
        "In a file: [roi] and so on.",
    )

    def recipe(self, *, given: bool = False, kind: str | None = None) -> dict[str, Any]:
        """As the preset of the kind of detector takes them.

        Args:
            given: only what was asked for.
            kind: of the detector; None: as asked, or as the model to begin with is.
        """
        values = self.model_dump(exclude={"init", "weights", "set"}, exclude_none=True, exclude_unset=given)
        asked = {name: getattr(self, name) for name in self.model_fields_set}
        return {**detector_settings(kind or kind_of(asked), values), **read_assignments(self.set or ())}


def read_duration(text: str) -> float:
    """Seconds.

    Raises:
        ValueError: not hours, minutes and seconds.
    """
    if not re.fullmatch(r"(?=.)(\d+h)?(\d+m)?(\d+s)?", text):
        raise ValueError("expected hours, minutes and seconds, such as 45m or 1h30m")
    parts = re.findall(r"(\d+)([hms])", text)
    return float(sum(int(count) * {"h": 3600, "m": 60, "s": 1}[unit] for count, unit in parts))


class PlanOptions(CheckedSettings):
    """Who chooses what is not given, and how long it may take."""

    recipe: RecipeName = Field(
        "auto",
        description="Chooses every setting that is not given, by the data and the machine, and prints each with its "
        "reason: small-data, standard (1x), long (3x), torchvision, paper, or none for the defaults below. auto: "
        "small-data under 2000 images, else standard; none, where backbone, short side and epochs (or steps) are "
        "given.",
    )
    plan: bool = Field(
        False,
        description="Print what would be done and how long it would take, and stop; with --output also as JSON beside "
        "that folder. What more labels would bring says fpn plan.",
    )
    find_lr: bool = Field(
        False,
        description="Try rising learning rates on a copy for 100 steps, print the losses with a suggestion for "
        "--learning-rate, and stop (LR range test). At most 10 minutes, or --time-budget; figures and chart go beside "
        "--output.",
    )
    time_budget: str | None = Field(
        None,
        description="Train about this long, such as 45m or 1h30m: as many epochs as fit, with the whole schedule. "
        "Steps and validations count; starting, reading labels and timing a few steps come before it.",
    )

    @field_validator("time_budget")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        if value is not None:
            read_duration(value)
        return value

    @model_validator(mode="after")
    def _stop_once(self) -> PlanOptions:
        if self.plan and self.find_lr:
            raise ValueError("plan and find_lr: each stops before the other. Choose one")
        return self

    @property
    def stops(self) -> bool:
        """Whether nothing is trained, so that no folder is needed."""
        return self.plan or self.find_lr

    def seconds(self) -> float | None:
        """Of the budget, if there is one."""
        return None if self.time_budget is None else read_duration(self.time_budget)


GROUPS: Mapping[str, type[CheckedSettings]] = {
    "data": DataOptions,
    "model": ModelOptions,
    "training": TrainConfig,
    "planning": PlanOptions,
}
# What the file may name beside the options: DATA itself.
_POSITIONAL = "data"


class Given:
    """What a person asked for: by option, else by file. What was not asked for is not in it.

    Attributes:
        path: DATA, or None.
        data, model, training, planning: names and values of each group of options.
        sources: who gave each of them: "option", or the file.
        file: of settings, or None.
        held_out: what an earlier run with the same wishes held out; None: it has to be chosen.
        begun: what is to be said of the backbone that it begins with; nothing, where there is none.
    """

    held_out: HeldOut | None = None
    begun: str = ""

    def __init__(self, path: Path | None, file: Path | None, options: Mapping[str, CheckedSettings | None]) -> None:
        """Put the two together; options win.

        Args:
            path: DATA as given.
            file: TOML or YAML file.
            options: group -> options given.

        Raises:
            DataNotFoundError: no such file.
            ConfigError: an unknown name in the file.
        """
        own = {name for asked in options.values() for name in _asked(asked)}
        from_file = {} if file is None else _read(file, own if path is None else {*own, _POSITIONAL})
        self.file = file
        from_path = from_file.pop(_POSITIONAL, None)
        self.path = path if path is not None or from_path is None else Path(from_path)
        self.sources = dict.fromkeys(from_file, str(file))
        for asked in options.values():
            self.sources |= dict.fromkeys(_asked(asked), "option")
        self.data, self.model, self.training, self.planning = (
            _pick(from_file, kind) | _asked(options.get(group)) for group, kind in GROUPS.items()
        )
        self.model = self._begin(_pick(from_file, ModelOptions), _asked(options.get("model")))
        with self.told():
            _refuse_wrong_settings(self.model)
        # Options have a group of their own for them, the file and the settings of a run do not.
        self.training |= _asked(options.get("augmentation"))

    def _begin(self, file: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        """Both together, with the model or the backbone that "init" names, where that has to be found first."""
        if "init" in options:
            file.pop("init", None)
        beside = {**file, **options}
        found = [resolve_beginning(values, beside) for values in (file, options)]
        self.begun = "".join(told for _, told in found)
        if self.begun:
            self.sources |= dict.fromkeys(("backbone", "weights"), "--init")
        return combine(*(values for values, _ in found))

    @contextmanager
    def told(self) -> Iterator[None]:
        """Complaints about a setting of the file name the file and its line."""
        try:
            yield
        except ConfigError as error:
            names = [name for name, source in self.sources.items() if source not in ("option", "--init")]
            setting = str(error).partition(" ")[0].rstrip(":")
            if self.file is None or given_name(setting, names) is None:
                raise
            raise ConfigError(of_file(str(error), self.file, names)) from error

    def take(self, chosen: Mapping[str, Any]) -> None:
        """Add what a recipe chose to what was asked for."""
        self.model |= _pick(chosen, ModelOptions)
        self.training |= _pick(chosen, TrainConfig)


def _read(file: Path, given: Set[str]) -> dict[str, Any]:
    """A file's names and values; its paths are looked for, unless an option or DATA was given in their place."""
    known = [_POSITIONAL, *(name for kind in GROUPS.values() for name in kind.model_fields)]
    try:
        # As on the command line, --batch-size may be written with hyphens.
        values = {name.replace("-", "_"): value for name, value in read_settings(file).items()}
        hints = {_POSITIONAL: Annotated[str, paths.dataset("data")]}
        for kind in GROUPS.values():
            hints |= paths.hints_of(kind)
        paths.refuse_absent({name: value for name, value in values.items() if name not in given}, hints, file)
        values = _sections(values)
        refuse_unknown(values, known)
        if not isinstance(values.get(_POSITIONAL, ""), str):
            raise ConfigError(f"{_POSITIONAL} {values[_POSITIONAL]!r}: expected the path of a folder or file")
        model = _pick(values, ModelOptions)
        combine(resolve_beginning(model, model)[0], {})
        for kind in GROUPS.values():
            kind(**_pick(values, kind))
    except ConfigError as error:
        raise ConfigError(of_file(str(error), file, known)) from None
    return values


def _sections(values: dict[str, Any]) -> dict[str, Any]:
    """Tables of a file, such as [roi], as `--set` has them; each is checked here, so that the file is named."""
    from fpn.detectors.presets import DIALECTS_OF
    from fpn.sections import sections_of

    known = {name for dialects in DIALECTS_OF.values() for name in sections_of(type(dialects["paper"]))}
    tables = {name: value for name, value in values.items() if name in known and isinstance(value, Mapping)}
    if tables:
        DIALECTS_OF[kind_of(values)]["paper"].changed(**tables)
    rest = {name: value for name, value in values.items() if name not in tables}
    if tables:
        texts = rest.get("set", [])
        if not isinstance(texts, list):
            raise ConfigError(f"set {texts!r}: expected a list, such as ['roi.sampler=pool']")
        rest["set"] = [*texts, *(f"{name}={json.dumps(value)}" for name, value in tables.items())]
    return rest


def _refuse_wrong_settings(model: Mapping[str, Any]) -> None:
    """Before the data are read. With an earlier model it is its recipe that counts, of which the file's header says."""
    from fpn.detectors.builder import refuse_unfit_parts
    from fpn.detectors.presets import preset_dialect

    options = ModelOptions(**model)
    asked = options.recipe(given=True)
    if options.init is None:
        dialect = preset_dialect(options.detector, {"dialect": options.dialect, **asked})
        weights = options.weights if "weights" in model else None
        refuse_unfit_parts(asked.get("backbone"), options.neck, dialect.neck, weights)
    elif options.init.is_file():
        from fpn.detectors.fine_tuning import adapt_recipe
        from fpn.detectors.model_file import read_header, recipe_of

        recipe = recipe_of(read_header(options.init), str(options.init))
        adapt_recipe(recipe, classes=recipe.found, **asked)


def _pick(values: Mapping[str, Any], kind: type[CheckedSettings]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in kind.model_fields}


def _asked(options: CheckedSettings | None) -> dict[str, Any]:
    return {} if options is None else {name: getattr(options, name) for name in sorted(options.model_fields_set)}
