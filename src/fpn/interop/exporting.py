"""Our detectors as other toolkits' weights: nobody is locked in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from fpn.detectors.detector import Detector
from fpn.detectors.dialect import TwoStageDialect
from fpn.detectors.model_file import load
from fpn.detectors.recipe import Recipe
from fpn.errors import ConfigError, OutputError
from fpn.features.backbones.windowed_transformer import TRANSFORMER
from fpn.files import atomic_path, taken
from fpn.interop.detectron2_export import describe_detectron2, name_for_detectron2
from fpn.interop.export_settings import refuse_unlike
from fpn.interop.key_rules import new_name
from fpn.interop.torchvision import rules_of
from fpn.interop.torchvision_models import TorchvisionModel, describe_torchvision
from fpn.interop.vitdet_export import describe_vitdet, name_for_vitdet
from fpn.suggestions import nearest

WeightsFormat: TypeAlias = Literal["torchvision", "detectron2"]
WEIGHTS_FORMATS: tuple[str, ...] = get_args(WeightsFormat)
SUFFIXES = (".pth", ".safetensors")
_COUNTER = ".num_batches_tracked"
_SHOWN = 20


@dataclass(frozen=True)
class ExportedWeights:
    """A detector's weights as another toolkit's.

    Attributes:
        format: whose names they have.
        receiver: what reads them there, such as "fasterrcnn_resnet50_fpn".
        tensors: by its names, on the CPU.
        instructions: what it has to be told: Python for torchvision; for Detectron2 a yaml config, or a LazyConfig in
            Python where its own configs are such: for ViTDet.
        remarks: what else is to be known.
        model: of torchvision, what makes its detector; else None.
    """

    format: str
    receiver: str
    tensors: Mapping[str, Tensor]
    instructions: str
    remarks: tuple[str, ...] = ()
    model: TorchvisionModel | None = None


def export_weights(
    model: Detector | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    format: WeightsFormat | str,
    replace: bool = False,
) -> ExportedWeights:
    """Write a detector's weights so that another toolkit loads them.

    Args:
        model: a detector, or a model file.
        output: `.pth` is written by `torch.save`, as a plain dict of tensors; `.safetensors` is the other choice.
        format: the toolkit, "torchvision" or "detectron2".
        replace: whether a file that is there is replaced.

    Returns:
        What was written, and what the other side has to be told.

    Raises:
        ConfigError: the other side has no such detector, or can't be told a setting that decides what is found; or the
            format or the ending is unknown.
        DataNotFoundError, ModelFileError: no such model, or it can't be read.
        OutputError: `output` is there already, or can't be written.
    """
    output = Path(output)
    check_output(output, replace=replace)
    detector = model if isinstance(model, Detector) else load(model, device="cpu")
    exported = convert_weights(detector, format=format, file=output.name)
    with atomic_path(output) as temporary:
        if output.suffix == ".pth":
            torch.save(dict(exported.tensors), temporary)
        else:
            save_file(dict(exported.tensors), temporary)
    return exported


def check_output(output: Path, *, replace: bool) -> None:
    """Stop before any work where a file can't be written, or something is in its place.

    Raises:
        ConfigError, OutputError: as `export_weights`.
    """
    if output.suffix not in SUFFIXES:
        raise ConfigError(f"{output}: weights are written as {' or '.join(SUFFIXES)}, told by the ending")
    if output.is_dir():
        raise OutputError(f"{output}: is a folder")
    if output.exists() and not replace:
        raise taken(output, "file", otherwise="say --overwrite (replace=True)")


def convert_weights(detector: Detector, *, format: WeightsFormat | str, file: str = "weights.pth") -> ExportedWeights:
    """As `export_weights`, in memory.

    Args:
        detector: ours.
        format: the toolkit.
        file: what the instructions call the weights.

    Raises:
        ConfigError: as there.
    """
    if not detector.saveable:
        raise ConfigError("an optimized detector can't be exported: its norms are gone. Export the original.")
    match format:
        case "torchvision":
            return _for_torchvision(detector, file)
        case "detectron2" if detector.recipe.backbone == TRANSFORMER:
            return _for_vitdet(detector, file)
        case "detectron2":
            return _for_detectron2(detector, file)
    raise ConfigError(
        f"format {format!r}: choose one of {', '.join(WEIGHTS_FORMATS)}.{nearest(format, WEIGHTS_FORMATS)}"
    )


# --- torchvision ------------------------------------------------------------------------------------------------------


def _for_torchvision(detector: Detector, file: str) -> ExportedWeights:
    recipe = detector.recipe
    model, unlike, learning = describe_torchvision(recipe)
    if model is None:
        raise ConfigError(f"torchvision has no {recipe.kind}; it has Faster, Mask and Keypoint R-CNN, RetinaNet, FCOS")
    refuse_unlike(unlike, recipe, f"torchvision's {model.function}", "torchvision")
    tensors = name_for_torchvision(detector.state_dict(), model)
    reader = f'torch.load("{file}", weights_only=True)' if file.endswith(".pth") else f'load_file("{file}")'
    header = "import torch" if file.endswith(".pth") else "from safetensors.torch import load_file"
    lines = (header, model.code(), f"model.load_state_dict({reader})", "model.eval()", f"# {_labels(recipe)}")
    return ExportedWeights(
        format="torchvision",
        receiver=model.function,
        tensors=_on_cpu(tensors),
        instructions="\n".join(lines),
        remarks=_remarks(detector, learning),
        model=model,
    )


def name_for_torchvision(state: Mapping[str, Tensor], model: TorchvisionModel) -> dict[str, Tensor]:
    """Our weights in the names of a detector of torchvision, and in their order; counters that ours lacks are zero."""
    with torch.device("meta"):
        template = model.build().state_dict()
    rules, own = rules_of(template), _with_background_first(state)
    filled: dict[str, Tensor] = {}
    for name, wanted in template.items():
        stem = name.removesuffix(_COUNTER)
        if stem == name:
            value = own[new_name(name, rules) or name]
        else:
            mean = new_name(f"{stem}.running_mean", rules) or name
            value = own.get(mean.replace(".running_mean", _COUNTER), torch.zeros((), dtype=torch.int64))
        assert value.shape == wanted.shape, f"{name}: the settings said that it fits"
        filled[name] = value
    return filled


def _with_background_first(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights as torchvision counts classes: background is class 0, and has boxes and masks that nobody reads."""
    own = dict(state)
    for part in ("weight", "bias"):
        scores, deltas, masks = (f"roi_heads.{head}.{part}" for head in ("box.scores", "box.deltas", "mask.logits"))
        if scores in own:
            own[scores] = own[scores].roll(1, dims=0)
            own[deltas] = torch.cat([torch.zeros_like(own[deltas][:4]), own[deltas]])
        if masks in own:
            own[masks] = torch.cat([torch.zeros_like(own[masks][:1]), own[masks]])
    return own


def _labels(recipe: Recipe) -> str:
    """What the labels mean that torchvision gives."""
    first = 1 if isinstance(recipe.dialect, TwoStageDialect) else 0
    named = [f"{number} {name!r}" for number, name in enumerate(recipe.classes, first)]
    more = ", ..." if len(named) > _SHOWN else ""
    return f"labels: {', '.join(named[:_SHOWN])}{more}{'; 0 is background' if first else ''}"


# --- Detectron2 -------------------------------------------------------------------------------------------------------


def _for_detectron2(detector: Detector, file: str) -> ExportedWeights:
    recipe = detector.recipe
    config, unlike, learning = describe_detectron2(recipe)
    if config is None:
        raise ConfigError(
            f"Detectron2 has no {recipe.kind} that a config makes; it has Faster, Mask, Keypoint and Cascade R-CNN and "
            "RetinaNet"
        )
    refuse_unlike(unlike, recipe, f"Detectron2's {recipe.kind}", "detectron2")
    tensors, left = name_for_detectron2(detector.state_dict(), recipe.dialect)
    assert not left, f"the settings said that there is a place for {left[:3]}"
    model = {"META_ARCHITECTURE": config["MODEL"]["META_ARCHITECTURE"], "WEIGHTS": file, **config["MODEL"]}
    text = yaml.safe_dump({**config, "MODEL": model}, sort_keys=False, default_flow_style=None, width=110)
    loading = "" if file.endswith(".pth") else "; model.load_state_dict(safetensors.torch.load_file(WEIGHTS))"
    head = f"# cfg = get_cfg(); cfg.merge_from_file(this){loading}\n{_things(recipe)}"
    return ExportedWeights(
        format="detectron2",
        receiver=model["META_ARCHITECTURE"],
        tensors=_on_cpu(tensors),
        instructions=f"{head}\n{text.rstrip()}",
        remarks=_remarks(detector, learning),
    )


def _for_vitdet(detector: Detector, file: str) -> ExportedWeights:
    recipe = detector.recipe
    config, unlike, learning = describe_vitdet(recipe)
    if config is None:
        raise ConfigError(
            f"Detectron2 has no {recipe.kind} on ViTDet; its configs have Mask and Cascade R-CNN on it. "
            "A model trained with --detector mask_rcnn --dialect vitdet can be exported."
        )
    refuse_unlike(unlike, recipe, f"Detectron2's ViTDet {recipe.kind}", "vitdet")
    tensors, left = name_for_vitdet(detector.state_dict())
    assert not left, f"the settings said that there is a place for {left[:3]}"
    loading, start = f'DetectionCheckpointer(model).load("{file}")', ""
    if file.endswith(".pth"):
        start = f'\ntrain = model_zoo.get_config("common/train.py").train\ntrain.init_checkpoint = "{file}"'
    else:
        loading = f'model.load_state_dict(safetensors.torch.load_file("{file}"))'
    head = f"# A .py file: model = instantiate(LazyConfig.load(this).model); {loading}\n{_things(recipe)}"
    return ExportedWeights(
        format="detectron2",
        receiver="GeneralizedRCNN on ViTDet",
        tensors=_on_cpu(tensors),
        instructions=f"{head}\n{config}{start}",
        remarks=_remarks(detector, learning),
    )


def _things(recipe: Recipe) -> str:
    names = ", ".join(repr(name) for name in recipe.classes[:_SHOWN])
    return f"# thing_classes: {names}{', ...' if len(recipe.classes) > _SHOWN else ''}"


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _remarks(detector: Detector, learning: list[str]) -> tuple[str, ...]:
    """What of a detector does not travel."""
    remarks: list[str] = []
    seen = detector.recipe.dialect.pixels.pixel_range
    if seen is not None:
        remarks.append(f"images of more than 8 bits: it learned {seen[0]:g} as black and {seen[1]:g} as white")
    if detector.thresholds is not None:
        remarks.append("the classes' thresholds, chosen by calibrate, do not travel: the file holds weights alone")
    if learning:
        remarks.append(f"trained on there, it would learn otherwise in: {', '.join(learning)}")
    return tuple(remarks)
