"""From another toolkit's file to our detector: what is in it, what it says of itself, and what only people know."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fpn.detectors.detector import Detector
from fpn.errors import ConfigError, ModelFileError
from fpn.interop.checkpoint_files import CheckpointContent, read_checkpoint_file
from fpn.interop.class_names import COCO, coco_classes
from fpn.interop.conversion import IMAGENET, import_state, unwrap_state
from fpn.interop.findings import compare_settings, needed, show_setting
from fpn.interop.imported import ImportedWeights
from fpn.interop.key_rules import noting_missing
from fpn.interop.toolkit_configs import ToolkitConfig, read_mmdetection, read_toolkit_config
from fpn.sections import flat_name
from fpn.structures import Classes

_SHOWN = 5


def import_weights(
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    classes: Classes | Iterable[str] | str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    allow_missing: bool = False,
    **conventions: Any,
) -> ImportedWeights:
    """Put another toolkit's weights into our modules. Nothing of the file is run.

    Args:
        source: a file (`.pth`, `.pt`, `.pkl`, `.h5`, `.safetensors`), or what it holds: the toolkit's names to arrays
            or tensors, or a checkpoint with such a mapping as "model" or "state_dict". Prefixes such as "module."
            (of data-parallel training) do no harm.
        classes: names of the classes without background; "coco"; or a file of names. None: those that the file tells,
            else "class 1", "class 2", ...
        config: Detectron2's yaml or MMDetection's flattened config, for what no weight tells.
        allow_missing: take a file though it has names without a place, or lacks some; those begin at random.
        conventions: fields of the dialect that the weights were trained with, such as `roi_sampler="pool"`; they win
            over the config, and that over what the file says of itself.

    Returns:
        The module in eval mode, the dialect that was found and how that is known, and the names that had no place.

    Raises:
        DataNotFoundError: no such file.
        ModelFileError: it can't be read, no toolkit has such names, or weights are missing, left over, or of other
            shapes.
        ConfigError: an unknown convention, or other classes than the weights are of.
    """
    if isinstance(source, str | os.PathLike):
        content = read_checkpoint_file(source)
        return import_content(content, source, classes, config, allow_missing=allow_missing, **conventions)
    content = CheckpointContent(source, "", {})
    return import_content(content, None, classes, config, allow_missing=allow_missing, **conventions)


def import_content(
    content: CheckpointContent,
    source: str | os.PathLike[str] | None,
    classes: Classes | Iterable[str] | str | os.PathLike[str] | None,
    config: str | os.PathLike[str] | None,
    *,
    allow_missing: bool,
    **conventions: Any,
) -> ImportedWeights:
    """As `import_weights`, of what was read of the file `source`; None: of no file."""
    is_file = source is not None
    if not isinstance(content.value, Mapping):
        raise ModelFileError(
            f"{source or 'the source'}: holds a {type(content.value).__name__}, expected names and weights, as "
            "torch.save(model.state_dict(), ...) writes them"
        )
    configs = [own for own in (_own_config(content.value), read_toolkit_config(config) if config else None) if own]
    settings, told, names = _settings(configs, content.value, conventions)
    named = names if classes is None else classes
    if named is not None:
        settings["classes"] = named
    try:
        with noting_missing(allowed=allow_missing) as missing:
            imported = import_state(content.value, **settings)
    except (ModelFileError, ConfigError) as error:
        if not is_file:
            raise
        raise type(error)(f"{source}: {error}") from None
    _refuse_leftover(imported, source, allowed=allow_missing or not is_file)
    kind = imported.module.recipe.kind if isinstance(imported.module, Detector) else "faster_rcnn"
    findings, assumed = compare_settings(imported.dialect, kind, told)
    return replace(
        imported,
        toolkit=imported.toolkit.partition("'s ")[0],
        form=content.form,
        findings=findings,
        assumed=assumed,
        missing=tuple(missing),
        skipped=content.skipped,
        remarks=(*imported.remarks, *(remark for each in configs for remark in each.remarks)),
    )


def _settings(
    configs: list[ToolkitConfig], value: Mapping[str, Any], conventions: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str], Classes | None]:
    """Settings by name, who says each, and the classes' names, if somebody says them."""
    settings: dict[str, Any] = {}
    told: dict[str, str] = {}
    names = _own_classes(value)
    foreign = _foreign_sections(unwrap_state(value))
    for config in configs:
        kept = [path for path in config.settings if not path.startswith(foreign)]
        settings |= {flat_name(path): config.settings[path] for path in kept}
        told |= {path: config.told[path] for path in kept}
        if names is None and config.classes is not None:
            names = _named(config.classes)
    for name, each in conventions.items():
        settings[flat_name(name)] = each
        told = {path: who for path, who in told.items() if flat_name(path) != flat_name(name)}
        told[name] = "as you said"
    return settings, told, names


def _foreign_sections(names: Iterable[str]) -> tuple[str, ...]:
    """Sections that a detector with these weights does not have; a config may speak of all kinds of detectors."""
    two_stages = any(re.search(r"(^|\.|/)(roi_heads?\.|RCNN_|mrcnn_)", str(name)) for name in names)
    return ("dense.",) if two_stages else ("rpn.", "roi.", "box.")


def _own_config(value: Mapping[str, Any]) -> ToolkitConfig | None:
    """MMDetection's checkpoints hold their whole config as a text."""
    meta = value.get("meta")
    text = None if not isinstance(meta, Mapping) else meta.get("config", meta.get("cfg"))
    if not isinstance(text, str) or "model" not in text:
        return None
    try:
        return read_mmdetection(text, "the file's own config")
    except ConfigError as error:
        return ToolkitConfig("the file's own config", remarks=[f"{error}"])


def _own_classes(value: Mapping[str, Any]) -> Classes | None:
    """The names that MMDetection's checkpoints hold."""
    meta = value.get("meta")
    if not isinstance(meta, Mapping):
        return None
    inner = meta.get("dataset_meta")
    for holder in (meta, inner if isinstance(inner, Mapping) else {}):
        for key in ("CLASSES", "classes"):
            names = holder.get(key)
            if isinstance(names, list | tuple) and names and all(isinstance(each, str) for each in names):
                return _named(tuple(names))
    return None


def _named(names: tuple[str, ...]) -> Classes:
    """COCO's names have COCO's ids."""
    return coco_classes(len(COCO)) if names == COCO else Classes.of(names)


def _refuse_leftover(imported: ImportedWeights, source: Any, *, allowed: bool) -> None:
    names = needed(imported.leftover)
    if names and not allowed:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise ModelFileError(
            f"{source}: {imported.toolkit} weights with {len(names)} names that have no place here: "
            f"{', '.join(names[:_SHOWN])}{more}. Take the rest with --allow-missing (allow_missing=True)."
        )


def set_aside(imported: ImportedWeights) -> tuple[str, ...]:
    """Of a backbone, the names of what told ImageNet's classes; of others, nothing."""
    if isinstance(imported.module, Detector) or imported.toolkit != IMAGENET:
        return ()
    others = set(needed(imported.leftover))
    return tuple(name for name in imported.leftover if name not in others and not name.endswith("_tracked"))


def require_detector(imported: ImportedWeights, source: str | Path) -> Detector:
    """The detector.

    Raises:
        ModelFileError: it is a pyramid or a neck alone.
    """
    if isinstance(imported.module, Detector):
        return imported.module
    raise ModelFileError(
        f"{source}: {imported.toolkit} weights of a pyramid without a detector's heads, so there is no model to write. "
        "fpn.import_weights(...).module is the pyramid, in Python."
    )


def describe_import(imported: ImportedWeights, source: str, proofs: list[dict[str, Any]]) -> dict[str, Any]:
    """What a model file says of where its weights come from, as JSON has it."""
    return {
        "from": Path(source).name if "/" not in source or Path(source).is_absolute() else source,
        "toolkit": imported.toolkit,
        "form": imported.form,
        "findings": [str(finding) for finding in imported.findings],
        "assumed": [f"{each.setting} = {show_setting(each.value)}" for each in imported.assumed],
        "leftover": list(needed(imported.leftover)),
        "aside": list(set_aside(imported)),
        "missing": list(imported.missing),
        "proofs": proofs,
    }
