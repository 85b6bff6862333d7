"""What `--init` names, as settings: of a backbone alone, its name, its weights and how its images are made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpn.cli.model_settings import as_texts, read_assignments
from fpn.errors import ConfigError

if TYPE_CHECKING:
    from fpn.interop.backbone_files import BackboneFile


def resolve_beginning(values: dict[str, Any], beside: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Settings of the group without what has to be found first, and what is to be said of a backbone, if it is one.

    Args:
        values: of one source, a file or options.
        beside: of all sources.

    Raises:
        ConfigError: torchvision or timm have nothing of this name, or the backbone or its weights are given twice.
        DataNotFoundError, ModelFileError: it can't be had, or is something else.
    """
    asked = values.get("init")
    if asked is None or _is_model(Path(asked)):
        return values, ""
    from fpn.interop.beginnings import find_beginning

    found = find_beginning(asked)
    if found.backbone is None:
        return {**values, "init": found.model}, ""
    rest = {name: value for name, value in values.items() if name != "init"}
    if isinstance(found.backbone, str):
        _refuse_two(asked, beside, found.backbone)
        return {**rest, "backbone": found.backbone, "weights": "imagenet"}, (
            f"begins with {asked}: timm's ImageNet weights; the heads begin anew"
        )
    own = found.backbone
    _refuse_two(asked, beside, own.backbone)
    needed = _needed(own, beside)
    more = {"set": as_texts({**read_assignments(rest.get("set") or ()), **needed})} if needed else {}
    return {**rest, "backbone": own.backbone, "weights": str(own.path), **more}, _told(str(asked), own, needed)


def _is_model(path: Path) -> bool:
    """Whether it is surely a file of ours, which nothing has to be looked up for."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        with safe_open(path, framework="np") as file:
            return "fpn" in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError):
        return True  # what is wrong with it is said where it is read


def _refuse_two(asked: object, values: Mapping[str, Any], backbone: str) -> None:
    for name, own in (("backbone", backbone), ("weights", None)):
        if values.get(name, own) != own:
            raise ConfigError(f"--{name} {values[name]}: --init {asked} has a {backbone} with its weights. Keep one.")


def _needed(own: BackboneFile, values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that the dialect has otherwise, but for those that somebody gave."""
    from fpn.detectors.presets import DIALECTS_OF
    from fpn.interop.backbone_files import without

    known = DIALECTS_OF.get(str(values.get("detector", "faster_rcnn")), {})
    dialect = known.get(str(values.get("dialect", "paper")))
    if dialect is None:  # which is told where the model is made
        return {}
    return without(own.settings_over(dialect), read_assignments(values.get("set") or ()))


def _told(asked: str, own: BackboneFile, needed: Mapping[str, Any]) -> str:
    from fpn.interop.findings import show_setting

    aside = own.record.get("aside") or []
    lines = [f"begins with {asked}: ImageNet weights of a {own.backbone}; the heads begin anew"]
    if aside:
        lines.append(f"  left aside: {', '.join(map(str, aside))}")
    if needed:
        told = ", ".join(f"{path} {show_setting(value)}" for path, value in needed.items())
        lines.append(f"  set as these weights need it: {told}")
    return "\n".join(lines)
