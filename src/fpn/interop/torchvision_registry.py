"""torchvision's weights by name, from its registry, with its cache and its checked download."""

from __future__ import annotations

import hashlib
import re
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fpn.detectors.detector import IMPORTED
from fpn.detectors.model_file import save
from fpn.errors import DataNotFoundError
from fpn.interop.class_names import coco_classes
from fpn.interop.importing import describe_import, import_weights, require_detector
from fpn.interop.weight_names import BACKBONES, NAMES, TORCHVISION, check_torchvision, is_torchvision
from fpn.structures import Classes
from fpn.version import __version__

# Of these detectors torchvision sets the epsilon of the backbone's norms to 0 when it loads them (`overwrite_eps`).
_WITHOUT_EPSILON = (
    "fasterrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
)
_ALMOST_NOTHING = 1e-12
# And these have settings of their own.
_OWN_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": {
        "pixels.short_side": 320,
        "pixels.long_side": 640,
        "rpn.before_nms": (2000, 150),
        "rpn.after_nms": (2000, 150),
    }
}
# torch's own: a hash stands at the end of a file's name.
_HASH = re.compile(r"-([a-f0-9]{8,})\.")


@dataclass(frozen=True)
class NamedWeights:
    """Weights by name.

    Attributes:
        path: of the file.
        classes: that it was trained on; None: not known.
        settings: of the dialect, that the file does not tell.
        own: which of torchvision's a file is that was not asked for by name; "" where that is not known.
    """

    path: Path
    classes: Classes | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    own: str = ""


def find_torchvision(name: str) -> NamedWeights:
    """The file of "torchvision/NAME", from torch's cache or downloaded to it; of any other name the path itself.

    A file of its own is known by its hash under any name.

    Raises:
        ConfigError: torchvision has no such detector or backbone.
        DataNotFoundError: it is not in the cache, and can't be downloaded.
    """
    if not is_torchvision(name):
        return _by_hash(Path(name))
    from torch import hub

    short = check_torchvision(name)
    weights = _weights(short)
    path = Path(hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    if not path.is_file():
        _download(weights.url, path)
    if short in BACKBONES:
        return NamedWeights(path)
    return _known(path, short, weights)


def _by_hash(path: Path) -> NamedWeights:
    """With what torchvision knows of its own file; detectors' alone, as backbones have no settings beside."""
    if path.suffix != ".pth" or not path.is_file():
        return NamedWeights(path)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    for short in NAMES:
        weights = _weights(short)
        found = _HASH.search(weights.url)
        if found and digest.startswith(found[1]):
            return replace(_known(path, short, weights), own=short)
    return NamedWeights(path)


def _known(path: Path, short: str, weights: Any) -> NamedWeights:
    counted = len(weights.meta["categories"]) - (not short.startswith(("retinanet", "fcos")))
    classes = coco_classes(1 if "keypoint_names" in weights.meta else counted)
    settings = {"backbone.norm_epsilon": _ALMOST_NOTHING} if short in _WITHOUT_EPSILON else {}
    return NamedWeights(path, classes, {**settings, **_OWN_SETTINGS.get(short, {})})


def model_of_torchvision(name: str) -> Path:
    """The model file that "torchvision/NAME" becomes, kept in torch's cache beside the weights.

    Raises:
        ConfigError, DataNotFoundError: as `find_torchvision`.
        OutputError: it can't be written there.
    """
    model = cached(name.removeprefix(TORCHVISION))
    if not model.is_file():
        found = find_torchvision(name)
        imported = import_weights(found.path, classes=found.classes, **found.settings)
        detector = require_detector(imported, name)
        detector.training_record = {IMPORTED: describe_import(imported, name, [])}
        save(detector, model)
    return model


def cached(name: str) -> Path:
    """Where in torch's cache this version keeps what it converted."""
    from torch import hub

    return Path(hub.get_dir()) / "fpn" / f"{name}-{__version__}.safetensors"


def _weights(name: str) -> Any:
    from torchvision.models import get_model_weights

    return get_model_weights(name).DEFAULT


def _download(url: str, path: Path) -> None:
    from torch import hub

    found = _HASH.search(path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        hub.download_url_to_file(url, str(path), found[1] if found else None, progress=False)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise DataNotFoundError(
            f"{url} could not be downloaded ({' '.join(str(error).split())[:200]}). Without a network, copy that file "
            f"to {path}."
        ) from None
