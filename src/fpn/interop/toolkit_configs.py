"""Settings of Detectron2 and MMDetection in our words, from the files in which they keep them. Nothing is run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fpn.data.formats.files import is_deep
from fpn.errors import ConfigError, DataNotFoundError
from fpn.interop.python_data import UNKNOWN, read_assignments_of

# Of a file, in bytes: a whole dump of Detectron2's settings has 12 000, MMDetection's largest has 60 000.
_LARGEST, _MOST_BASES = 2**18, 5
_REMEDY = "Give config.yaml of Detectron2's output folder (what cfg.dump() writes), mend it there, or leave it out."
# Of Detectron2's settings.
_SECTIONS = frozenset({"DATALOADER", "DATASETS", "INPUT", "MODEL", "SOLVER", "TEST"})


@dataclass
class ToolkitConfig:
    """What a file of settings says.

    Attributes:
        where: the file, or what else it was.
        settings: of the dialect, by path such as "rpn.nms".
        told: the same paths -> the toolkit's own name of the setting, with the file.
        classes: names of the classes, or None.
        remarks: what could not be read.
    """

    where: str
    settings: dict[str, Any] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    remarks: list[str] = field(default_factory=list)

    def note(self, setting: str, value: Any, key: str) -> None:
        """A setting that the file's `key` tells; None and what is no data are passed over."""
        if value is not None and value is not UNKNOWN:
            self.settings[setting] = value
            self.told[setting] = f"{key} of {self.where}"


def read_toolkit_config(path: str | os.PathLike[str]) -> ToolkitConfig:
    """Detectron2's `.yaml`, or MMDetection's flattened `.py` (as `print_config.py` and its logs write it).

    Raises:
        DataNotFoundError: no such file.
        ConfigError: it can't be read as either.
    """
    path = Path(path)
    if path.suffix.lower() in (".yaml", ".yml"):
        config = ToolkitConfig(path.name)
        read = _read_yaml(path, config)
        if not read.keys() & _SECTIONS and not config.remarks:
            raise ConfigError(
                f"{path}: has none of Detectron2's sections, which are {', '.join(sorted(_SECTIONS))}. {_REMEDY}"
            )
        _tell_detectron2(read, config)
        return config
    return read_mmdetection(_read_text(path), path.name)


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise DataNotFoundError(f"{path}: no such file of settings")
    if path.stat().st_size > _LARGEST:
        raise ConfigError(f"{path}: larger than {_LARGEST} bytes, which no file of settings is")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no text ({error.reason})") from None


# --- Detectron2 -------------------------------------------------------------------------------------------------------


class _PlainLoader(yaml.SafeLoader):
    """Tuples are lists, and nothing refers to anything: what refers to itself could become endless."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse references."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has a reference (*name)")
        return super().compose_node(parent, index)


def _sequence(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node, deep=True)


_PlainLoader.add_constructor("tag:yaml.org,2002:python/tuple", _sequence)
# Some of Detectron2's files compute sizes of anchors by Python code. It is not run.
_PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: UNKNOWN)


def _where(error: Exception) -> str:
    """What a parser stumbled over, in a line."""
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    if mark is None or not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())[:200]
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"


def _read_yaml(path: Path, config: ToolkitConfig, depth: int = 0) -> dict[str, Any]:
    """The file's settings over those of the file that it names as `_BASE_`."""
    text = _read_text(path)
    if is_deep(text):
        raise ConfigError(f"{path}: is no YAML that is read (brackets inside of brackets)")
    try:
        read = yaml.load(text, _PlainLoader)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # The parser's own stumble over a tag whose value is of another kind, such as `!!bool red`.
        raise ConfigError(f"{path}: is no YAML that is read: {_where(error)}. {_REMEDY}") from None
    if not isinstance(read, dict):
        raise ConfigError(f"{path}: holds no settings by name")
    base = read.pop("_BASE_", None)
    if base is None:
        return read
    beside = path.parent / str(base)
    if depth >= _MOST_BASES or beside.suffix.lower() not in (".yaml", ".yml") or not _is_there(beside):
        config.remarks.append(f"{path.name} builds on {str(base)!r}, which is not there: what it sets is not known")
        return read
    return _merged(_read_yaml(beside, config, depth + 1), read)


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # no path that the file system takes
        return False


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(base)
    for key, value in over.items():
        inner = made.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        made[key] = _merged(inner, value) if both else value  # type: ignore[arg-type]
    return made


def _pick(tree: Any, path: str) -> Any:
    """What lies at "A.B.C"; None: nothing."""
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _numbers(value: Any) -> tuple[float, ...]:
    if isinstance(value, str):  # yacs reads "(1.0, 1.0)" so
        value = read_assignments_of(f"it = {value}", "a setting").get("it")
    return tuple(float(each) for each in value)


def _rows(value: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(_numbers(each) if isinstance(each, Sequence) else (float(each),) for each in value)


_DETECTRON2: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("INPUT.MIN_SIZE_TEST", "pixels.short_side", int),
    ("INPUT.MAX_SIZE_TEST", "pixels.long_side", int),
    ("INPUT.FORMAT", "pixels.channel_order", lambda value: str(value).lower()),
    ("MODEL.PIXEL_MEAN", "pixels.mean", _numbers),
    ("MODEL.PIXEL_STD", "pixels.std", _numbers),
    ("MODEL.RESNETS.STRIDE_IN_1X1", "backbone.stride_on", lambda value: "1x1" if value else "3x3"),
    ("MODEL.ANCHOR_GENERATOR.SIZES", "anchors.sizes", _rows),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", "anchors.ratios", lambda value: _rows(value)[0]),
    ("MODEL.ANCHOR_GENERATOR.OFFSET", "anchors.offset", float),
    ("MODEL.RPN.NMS_THRESH", "rpn.nms", float),
    ("MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", "roi.sampling_ratio", int),
    ("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", "box.weights", _numbers),
    ("MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", "box.beta", float),
    ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "box.score_limit", float),
    ("MODEL.ROI_HEADS.NMS_THRESH_TEST", "box.nms", float),
    ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "box.sampling.count", int),
    ("MODEL.ROI_HEADS.POSITIVE_FRACTION", "box.sampling.positive_fraction", float),
    ("TEST.DETECTIONS_PER_IMAGE", "box.limit", int),
    ("MODEL.RETINANET.SCORE_THRESH_TEST", "dense.score_limit", float),
    ("MODEL.RETINANET.NMS_THRESH_TEST", "dense.nms", float),
    ("MODEL.RETINANET.TOPK_CANDIDATES_TEST", "dense.before_nms", int),
    ("TEST.DETECTIONS_PER_IMAGE", "dense.limit", int),
)


def _tell_detectron2(tree: Mapping[str, Any], config: ToolkitConfig) -> None:
    for key, setting, turn in _DETECTRON2:
        value = _pick(tree, key)
        if value is UNKNOWN:
            config.remarks.append(
                f"{config.where}: {key} is Python code, which is not run; --set {setting}=... tells it"
            )
        elif value is not None:
            config.note(setting, _turned(turn, value, key, config.where), key)
    for setting, key in (("rpn.before_nms", "MODEL.RPN.PRE_NMS_TOPK"), ("rpn.after_nms", "MODEL.RPN.POST_NMS_TOPK")):
        both = _pick(tree, f"{key}_TRAIN"), _pick(tree, f"{key}_TEST")
        if None not in both:
            config.note(setting, _turned(lambda pair: tuple(map(int, pair)), both, key, config.where), key)
    pooler = _pick(tree, "MODEL.ROI_BOX_HEAD.POOLER_TYPE")
    if pooler in ("ROIAlign", "ROIAlignV2"):
        config.note("roi.aligned", pooler == "ROIAlignV2", "MODEL.ROI_BOX_HEAD.POOLER_TYPE")
    elif pooler == "ROIPool":
        config.note("roi.sampler", "pool", "MODEL.ROI_BOX_HEAD.POOLER_TYPE")
    elif pooler is not None:
        config.remarks.append(f"{config.where}: POOLER_TYPE {pooler!r} is not known")


def _turned(turn: Callable[[Any], Any], value: Any, key: str, where: str) -> Any:
    try:
        return turn(value)
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where}: {key} {str(value)[:100]!r} is not what it should be ({error!s:.200})") from None


# --- MMDetection ------------------------------------------------------------------------------------------------------


def read_mmdetection(text: str, where: str) -> ToolkitConfig:
    """MMDetection's settings as its checkpoints hold them, 2.x or 3.x: one text with all of them.

    Raises:
        ConfigError: it is no Python, or a setting is not what it should be.
    """
    tree = read_assignments_of(text, where)
    config = ToolkitConfig(where)
    if not isinstance(tree.get("model"), Mapping):
        raise ConfigError(f"{where}: has no `model = dict(...)`. Of a config that builds on others, give the whole.")
    _tell_pixels(tree, config)
    _tell_model(tree["model"], config)
    return config


_MMDETECTION: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
    ("test_cfg.rpn.nms.iou_threshold", "rpn.nms", float),
    ("test_cfg.rpn.nms_thr", "rpn.nms", float),
    ("test_cfg.rcnn.score_thr", "box.score_limit", float),
    ("test_cfg.rcnn.nms.iou_threshold", "box.nms", float),
    ("test_cfg.rcnn.max_per_img", "box.limit", int),
    ("test_cfg.score_thr", "dense.score_limit", float),
    ("test_cfg.nms.iou_threshold", "dense.nms", float),
    ("test_cfg.nms_pre", "dense.before_nms", int),
    ("test_cfg.max_per_img", "dense.limit", int),
    ("rpn_head.anchor_generator.ratios", "anchors.ratios", _numbers),
    ("roi_head.bbox_roi_extractor.roi_layer.sampling_ratio", "roi.sampling_ratio", int),
)


def _tell_model(model: Mapping[str, Any], config: ToolkitConfig) -> None:
    for key, setting, turn in _MMDETECTION:
        value = _pick(model, key)
        if value is not None and value is not UNKNOWN:
            config.note(setting, _turned(turn, value, key, config.where), f"model.{key}")
    style = _pick(model, "backbone.style")
    if style in ("pytorch", "caffe"):
        config.note("backbone.stride_on", "1x1" if style == "caffe" else "3x3", "model.backbone.style")
    for setting, name in (("rpn.before_nms", "nms_pre"), ("rpn.after_nms", "max_per_img")):
        tested = _pick(model, f"test_cfg.rpn.{name}")
        trained = _pick(model, f"train_cfg.rpn_proposal.{name}")
        if isinstance(tested, int):
            pair = (trained if isinstance(trained, int) else tested, tested)
            config.note(setting, pair, f"model.test_cfg.rpn.{name}")
    scales, steps = _pick(model, "rpn_head.anchor_generator.scales"), _pick(model, "rpn_head.anchor_generator.strides")
    if isinstance(scales, list) and isinstance(steps, list):
        key = "model.rpn_head.anchor_generator.scales"
        config.note("anchors.sizes", _turned(_products, (steps, scales), key, config.where), key)


def _products(both: tuple[list[Any], list[Any]]) -> tuple[tuple[float, ...], ...]:
    steps, scales = map(_numbers, both)
    return tuple(tuple(scale * step for scale in scales) for step in steps)


def _tell_pixels(tree: Mapping[str, Any], config: ToolkitConfig) -> None:
    for place, flag in (("img_norm_cfg", "to_rgb"), ("model.data_preprocessor", "bgr_to_rgb")):
        told = _pick(tree, place)
        if isinstance(told, Mapping) and told.get("mean") is not None:
            config.note("pixels.mean", _turned(_numbers, told["mean"], "mean", config.where), f"{place}.mean")
            config.note(
                "pixels.std", _turned(_numbers, told.get("std", [1, 1, 1]), "std", config.where), f"{place}.std"
            )
            order = "rgb" if told.get(flag, place == "img_norm_cfg") else "bgr"
            config.note("pixels.channel_order", order, f"{place}.{flag}")
    sides = _sides(tree.get("test_pipeline"))
    if sides is not None:
        config.note("pixels.short_side", min(sides), "test_pipeline")
        config.note("pixels.long_side", max(sides), "test_pipeline")
    names = tree.get("classes", _pick(tree, "metainfo.classes"))
    if isinstance(names, list) and names and all(isinstance(each, str) for each in names):
        config.classes = tuple(names)


def _sides(steps: Any) -> tuple[int, int] | None:
    """The scale of the first step of a pipeline that has one."""
    for step in steps if isinstance(steps, list) else ():
        if not isinstance(step, Mapping):
            continue
        for key in ("img_scale", "scale"):
            sides = step.get(key)
            if isinstance(sides, list) and len(sides) == 2 and all(isinstance(each, int) for each in sides):
                return sides[0], sides[1]
        inner = _sides(step.get("transforms"))
        if inner is not None:
            return inner
    return None
