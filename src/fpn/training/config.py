"""Every knob of a training run, checked before work starts. Imports no torch, so that `--help` stays fast."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import Field, field_validator, model_validator

from fpn.data.loading.augmentation.config import AugmentationConfig
from fpn.errors import ConfigError, DataNotFoundError
from fpn.sections import CheckedSettings

# These may change when a run is resumed: they alter neither weights nor metrics, but that without `skip_unreadable` a
# run with such images could not have gone on.
FREE_ON_RESUME = frozenset({"workers", "log_every", "checkpoint_minutes", "tracker", "skip_unreadable"})

# Of `fpn.detectors.presets`, which needs more than this module may import.
DetectorName = Literal[
    "faster_rcnn",
    "cascade_rcnn",
    "mask_rcnn",
    "cascade_mask_rcnn",
    "keypoint_rcnn",
    "retinanet",
    "fcos",
    "atss",
    "segment_proposals",
]
DETECTORS: tuple[str, ...] = get_args(DetectorName)

_EVERY_KIND = {
    "short_side": ("pixels_short_side",),
    "long_side": ("pixels_long_side",),
    "channels": ("neck_channels", "neck_output_channels"),
}
_ANCHORS = {"anchor_sizes": ("anchors_sizes",), "anchor_ratios": ("anchors_ratios",)}
_TWO_STAGES = {
    **_EVERY_KIND,
    **_ANCHORS,
    "head_width": ("box_width",),
    "roi_samples": ("box_sampling_count",),
    "score_limit": ("box_score_limit",),
    "suppression": ("box_suppression",),
    "max_detections": ("box_limit",),
}
_MASKS = {**_TWO_STAGES, "mask_width": ("mask_channels",)}
_DENSE = {**_EVERY_KIND, "score_limit": ("dense_score_limit",), "max_detections": ("dense_limit",)}
# For each kind of detector, the options of the command that are a setting, or two, of its dialect.
MODEL_SETTINGS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "faster_rcnn": _TWO_STAGES,
    "cascade_rcnn": _TWO_STAGES,
    "retinanet": {**_DENSE, **_ANCHORS},
    "fcos": _DENSE,
    "atss": {**_DENSE, **_ANCHORS},
    "mask_rcnn": _MASKS,
    "cascade_mask_rcnn": _MASKS,
    "keypoint_rcnn": {**_TWO_STAGES, "keypoint_width": ("keypoint_channels",)},
    "segment_proposals": {**_EVERY_KIND, "max_detections": ("segments_limit",)},
}
# Anchors of a level for each size that is named: RetinaNet has three at thirds of an octave.
_OCTAVES: Mapping[str, int] = {"retinanet": 3}
# Options that presets take by the same name.
_OF_PRESETS = ("short_side", "long_side", "channels", "head_width")

# Of `fpn.training.recipes`, whose functions need more than this module may import.
RecipeName = Literal["auto", "small-data", "standard", "long", "torchvision", "paper", "none"]


def takes(kind: str, option: str) -> bool:
    """Whether an option of the model concerns a kind of detector: some are settings of parts that not all have."""
    everywhere = not any(option in settings for settings in MODEL_SETTINGS.values())
    return everywhere or option in MODEL_SETTINGS[kind]


def detector_settings(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the model as the preset of a kind of detector takes them beside `classes`.

    Raises:
        ConfigError: one that is a setting of another kind.
    """
    named = {}
    for name, value in options.items():
        if not takes(kind, name):
            having = ", ".join(each for each in MODEL_SETTINGS if takes(each, name))
            raise ConfigError(f"{name}: {kind} has no such part; it is for {having}. Leave it out.")
        known = () if name in _OF_PRESETS else MODEL_SETTINGS[kind].get(name, ())
        named[known[0] if known else name] = anchor_levels(kind, value) if name == "anchor_sizes" else value
    return {name: value for name, value in named.items() if name != "detector"}


def anchor_levels(kind: str, sizes: Sequence[float]) -> tuple[tuple[float, ...], ...]:
    """A size a level as the dialect has them: all sizes of each level."""
    octaves = _OCTAVES.get(kind, 1)
    return tuple(tuple(size * 2 ** (step / octaves) if step else size for step in range(octaves)) for size in sizes)


# As accelerate calls them.
Tracker = Literal["aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb"]


class RunSettings(CheckedSettings):
    """How to train, but for the images' random changes.

    Raises:
        ConfigError: an unknown name, or a value out of range.
    """

    epochs: int = Field(default=12, ge=1, description="Passes over the data. 12 is the usual 1x schedule.")
    steps: int | None = Field(
        default=None, ge=1, description="Train this many optimizer steps instead of whole epochs."
    )
    batch_size: int = Field(
        default=4, ge=1, description="Images a forward pass, over all processes together. 4 fits a laptop's memory."
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        description="Batches whose gradients are averaged into one step: a larger batch in the same memory.",
    )

    optimizer: Literal["sgd", "adamw"] = Field(
        default="adamw", description="adamw needs less tuning in short runs; sgd is the paper's."
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="Peak rate. None: sgd 0.02 * images / 16; adamw 0.0003 * sqrt(images / 4); images a step.",
    )
    backbone_multiplier: float = Field(
        default=1.0, ge=0, description="The backbone's learning rate as a multiple of the others'. 1: the same."
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of sgd, and beta1 of adamw.")
    weight_decay: float | None = Field(
        default=None, ge=0, description="Not applied to norms and biases. None: 0.0001 for sgd, 0.05 for adamw."
    )
    warmup_steps: int | None = Field(
        default=None, ge=0, description="Steps of linear warm-up. None: a tenth of the run, at most 500."
    )
    schedule: Literal["cosine", "step", "constant"] = Field(
        default="cosine",
        description="What the rate does after warm-up: fall to 0, fall tenfold at each milestone, or stay.",
    )
    milestones: tuple[float, ...] = Field(
        default=(0.67, 0.89),
        description="Where schedule=step falls, as fractions of the run (60 000 and 80 000 of 90 000).",
    )
    clip_norm: float = Field(
        default=10.0,
        ge=0,
        description="Longest gradient (L2 norm over all weights). 0: no limit. 10 stops only explosions.",
    )
    ema_decay: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="Decay a step of the averaged weights that are validated and saved; lower at the start of a run: "
        "min(decay, (1 + step) / (10 + step)). 0: no averaging.",
    )

    precision: Literal["auto", "float32", "bf16"] = Field(
        default="auto",
        description="Of the network's arithmetic; boxes are always float32. auto: bf16 where the chip has it.",
    )
    channels_last: bool | None = Field(
        default=None,
        description="Keep maps in NHWC order in memory. None: on a GPU, with bf16, and on a CPU with AVX-512; on one "
        "without, float32 gradients take up to twice as long with it.",
    )
    compile: bool = Field(
        default=False,
        description="Compile backbone, pyramid and RPN (torch.compile): minutes at first, then faster steps. "
        "On a CPU it needs a C++ compiler.",
    )
    device: Literal["auto", "cpu"] = Field(default="auto", description="auto: the GPU where there is one.")
    deterministic: bool = Field(
        default=False,
        description="Only algorithms that repeat bit by bit, also on a GPU. Slower there; a CPU repeats anyway.",
    )
    frozen: tuple[str, ...] = Field(
        default=(),
        description="Parts that are not trained, such as features.backbone or rpn, beside the preset's own.",
    )

    aspect_grouping: bool = Field(
        default=True, description="Batch wide images with wide ones and tall with tall: less padding, less time."
    )
    repeat_rare: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="A class that fewer than this share of the images have is shown more often: images with it come "
        "sqrt(this / its share) times an epoch. 0: each image once. 0.001 is LVIS's (arXiv:1908.03195), for its 1200 "
        "classes; 0.1 to 0.3 suits a few.",
    )
    reduced_decoding: bool = Field(
        default=True,
        description="Decode JPEGs more than twice as large as the network's images at a half, quarter or eighth.",
    )
    workers: int | None = Field(
        default=None, ge=0, description="Processes that read images. None: half of the CPU's cores, 1 to 8. 0: none."
    )
    skip_unreadable: bool = Field(
        default=False,
        description="Go on without images that can't be read, which are named at the end: the next one stands in for "
        "each. Validations leave them out.",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Same seed, data, settings and machine: same weights.")

    validate_every: int = Field(default=1, ge=0, description="Epochs between validations. 0: only after the last.")
    log_every: int = Field(
        default=20, ge=1, description="Steps between lines of metrics.jsonl; their values are means."
    )
    checkpoint_minutes: float = Field(
        default=10.0,
        gt=0,
        description="Minutes between checkpoints in last/, beside the one each epoch: what a crash can cost.",
    )
    best: str = Field(
        default="ap",
        description="Metric of a validation that says which weights are best: ap, ap50, ap_small, ar100, ...; other "
        "tasks' are called mask_ap, keypoint_ap50, proposal_ar100, ...",
    )
    patience: int = Field(
        default=0,
        ge=0,
        description="Stop early after this many validations in a row whose `best` metric was not better. 0: never.",
    )
    tracker: tuple[Tracker, ...] = Field(
        default=(),
        description="Also send metrics to these trackers, whose packages have to be installed (tensorboard: the extra "
        "of that name).",
    )

    @field_validator("tracker", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _agree(self) -> RunSettings:
        if self.patience and not self.validate_every:
            raise ValueError(f"patience {self.patience}: counts validations, and validate_every 0 has only one")
        if list(self.milestones) != sorted(self.milestones) or not all(0 < m < 1 for m in self.milestones):
            raise ValueError(f"milestones {self.milestones}: expected rising fractions of the run between 0 and 1")
        return self


class TrainConfig(RunSettings, AugmentationConfig):
    """How to train: all settings of a run, those of its augmentation among them, in one flat table.

    Raises:
        ConfigError: an unknown name, or a value out of range.
    """

    @property
    def augmentation(self) -> AugmentationConfig:
        """The settings of the images' random changes alone."""
        return AugmentationConfig(**{name: getattr(self, name) for name in AugmentationConfig.model_fields})

    @classmethod
    def from_file(cls, path: str | Path, **changes: Any) -> TrainConfig:
        """Read settings from a TOML or YAML file; `changes` win over the file.

        Raises:
            DataNotFoundError: no such file.
            ConfigError: not TOML or YAML, an unknown name, or a value out of range.
        """
        path = Path(path)
        try:
            return cls(**{**read_settings(path), **changes})
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None


def read_settings(path: Path) -> dict[str, Any]:
    """Names and values of a TOML or YAML file.

    Raises:
        DataNotFoundError: no such file.
        ConfigError: not TOML or YAML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows' editors write a mark before it
    except OSError as error:
        raise DataNotFoundError(f"{path}: can't read the settings ({error.strerror})") from error
    except UnicodeDecodeError:
        raise ConfigError("not UTF-8 text. Save it again as UTF-8.") from None
    try:
        values = tomllib.loads(text) if path.suffix.lower() == ".toml" else yaml.safe_load(text) or {}
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"can't be parsed: {error}") from None
    except RecursionError:
        raise ConfigError("can't be parsed: nested too deeply") from None
    if not isinstance(values, dict):
        raise ConfigError(f"expected lines such as 'epochs: 12', got a {type(values).__name__}")
    return {str(name): value for name, value in values.items()}
