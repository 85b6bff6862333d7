"""Tensors as the Open Inference Protocol writes them in JSON: images in, detections out."""

from __future__ import annotations

import binascii
import math
from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import pydantic_core

from fpn.detectors.operating_point import Score
from fpn.detectors.prediction import TaskName
from fpn.image_io import ImageBytes
from fpn.serving.problems import SCORE_REMEDY, RequestError
from fpn.serving.service import Answer, Sent
from fpn.serving.settings import ServerSettings
from fpn.shapes import in_pixels
from fpn.structures import Detections

# The name of the one input.
INPUT = "images"
# Objects of Python take many times the memory of the JSON that they are read from, lists and tables most. Pixels in
# lists of lists are a million lists a million pixels; a request has no more tables than tensors.
_MOST_LISTS, _MOST_TABLES = 2**20, 1000
_HOW = (
    f'Send {{"inputs": [{{"name": "{INPUT}", "datatype": "BYTES", "shape": [1], "data": ["a file in base64"]}}]}}, '
    'or "UINT8" of shape [images, height, width, 3].'
)

TensorKind: TypeAlias = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class AskedTensors:
    """What a request asks for.

    Attributes:
        images: to look at, with what messages call them.
        id: to be given back; None: none came.
        outputs: which are wanted; None: all.
        score: from which on detections are; None: the server's.
    """

    images: tuple[tuple[str, Sent], ...]
    id: str | None
    outputs: tuple[str, ...] | None
    score: Score


def read_inference(data: bytes, settings: ServerSettings) -> AskedTensors:
    """Check and read the body of a request for inference.

    Raises:
        RequestError: 400, it is none; 413, it is too large.
    """
    if data.count(b"[") > _MOST_LISTS or data.count(b"{") > _MOST_TABLES:
        raise RequestError(413, "the JSON has too many lists", "Send pixels as one flat list, or image files (BYTES).")
    try:
        body = pydantic_core.from_json(data, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise RequestError(400, f"the body is no JSON ({error!s:.200})", _HOW) from error
    body = _table(body, "the body", {"id", "inputs", "outputs", "parameters"})
    inputs = body.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1:
        raise RequestError(400, "inputs has to be a list of one tensor", _HOW)
    identity = body.get("id")
    if identity is not None and not isinstance(identity, str):
        raise RequestError(400, "id has to be a text", _HOW)
    images = _images(_table(inputs[0], "inputs[0]", {"name", "shape", "datatype", "parameters", "data"}), settings)
    return AskedTensors(images, identity, _outputs(body.get("outputs")), _score(body.get("parameters")))


def _table(value: object, what: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RequestError(400, f"{what} has to be a table", _HOW)
    unknown = sorted(value.keys() - known)
    if unknown:
        raise RequestError(400, f"{what} has an unknown {unknown[0]!r:.100}", f"Known: {', '.join(sorted(known))}.")
    return value


def _outputs(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value:
        raise RequestError(400, "outputs has to be a list of tables with a name", "Leave it out for all of them.")
    names = [_table(each, "each of outputs", {"name", "parameters"}).get("name") for each in value[:100]]
    unknown = [name for name in names if not isinstance(name, str) or name not in _KINDS]
    if unknown:
        raise RequestError(400, f"no output is called {unknown[0]!r:.100}", f"There are: {', '.join(_KINDS)}.")
    return tuple(str(name) for name in names)


def _score(parameters: object) -> Score:
    if parameters is None:
        return None
    score = _table(parameters, "parameters", {"score"}).get("score")
    if score is None or score == "calibrated":
        return None if score is None else "calibrated"
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise RequestError(400, f"score {score!r:.100}", SCORE_REMEDY)
    return float(score)


def _images(tensor: dict[str, Any], settings: ServerSettings) -> tuple[tuple[str, Sent], ...]:
    name, kind, shape, data = (tensor.get(key) for key in ("name", "datatype", "shape", "data"))
    if name != INPUT:
        raise RequestError(400, f"no input is called {name!r:.100}", _HOW)
    if not isinstance(shape, list) or not 1 <= len(shape) <= 4 or not all(_is_side(side) for side in shape):
        raise RequestError(400, f"shape {shape!r:.100}: expected one to four whole numbers from 1 to 2**31", _HOW)
    if not isinstance(data, list):
        raise RequestError(400, "data has to be a list", _HOW)
    readers: dict[str, Callable[[list[Any], list[int], ServerSettings], list[Sent]]] = {
        "BYTES": _files,
        "UINT8": _pixels,
    }
    if not isinstance(kind, str) or kind not in readers:
        raise RequestError(400, f"datatype {kind!r:.100}: expected BYTES or UINT8", _HOW)
    return tuple((f"{INPUT}[{k}]", each) for k, each in enumerate(readers[kind](data, shape, settings)))


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 2**31


def _files(data: list[Any], shape: list[int], settings: ServerSettings) -> list[Sent]:
    data = _flat(data, shape)
    _check_count(len(data), settings)
    files: list[Sent] = []
    for number, text in enumerate(data):
        try:
            content = b64decode(text, validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise RequestError(400, f"data[{number}] is no base64 ({error!s:.100})", _HOW) from error
        files.append(ImageBytes(content, f"{INPUT}[{number}]"))
    return files


def _pixels(data: list[Any], shape: list[int], settings: ServerSettings) -> list[Sent]:
    if len(shape) not in (3, 4) or shape[-1] != 3:
        raise RequestError(400, f"shape {shape}: expected [images, height, width, 3]", _HOW)
    full = [1, *shape] if len(shape) == 3 else shape
    _check_count(full[0], settings)
    if full[1] * full[2] > settings.max_pixels:
        what = f"{full[2]} x {full[1]} is {in_pixels(full[1] * full[2])}"
        raise RequestError(413, what, f"At most {in_pixels(settings.max_pixels)}: make it smaller.")
    try:
        values = bytes(_flat(data, shape))
    except (TypeError, ValueError) as error:
        raise RequestError(400, "data has something else than whole numbers from 0 to 255", _HOW) from error
    return list(np.frombuffer(values, np.uint8).reshape(full))


def _check_count(images: int, settings: ServerSettings) -> None:
    if images > settings.max_images:
        raise RequestError(413, f"{images} images in one request", f"At most {settings.max_images} are taken.")


def _flat(data: list[Any], shape: list[int]) -> list[Any]:
    """Values in row-major order, which may have come in lists of lists; as many as the shape says.

    Raises:
        RequestError: 400, they are more or fewer.
    """
    nested = len(data) == shape[0] and all(isinstance(each, list) for each in data)
    for side in shape[1:] if nested else ():
        if not all(isinstance(each, list) and len(each) == side for each in data):
            raise RequestError(400, f"data is not lists of lists of the shape {shape}", _HOW)
        data = list(chain.from_iterable(data))
    if len(data) != math.prod(shape):
        raise RequestError(400, f"data has {len(data)} values, but the shape {shape} has {math.prod(shape)}", _HOW)
    return data


# --- out --------------------------------------------------------------------------------------------------------------

# Name -> type, and shape for B images with at most M detections, -1 for what only an answer knows.
_KINDS: dict[str, TensorKind] = {
    "counts": ("INT64", (-1,)),
    "boxes": ("FP32", (-1, -1, 4)),
    "scores": ("FP32", (-1, -1)),
    "labels": ("INT64", (-1, -1)),
    "category_ids": ("INT64", (-1, -1)),
    "names": ("BYTES", (-1, -1)),
    "masks": ("BYTES", (-1, -1)),
    "keypoints": ("FP32", (-1, -1, -1, 3)),
}


def output_kinds(tasks: Sequence[TaskName]) -> dict[str, TensorKind]:
    """Name -> type and shape of what a model gives; -1 for what only an answer knows."""
    without = set() if {"masks", "segments"} & set(tasks) else {"masks"}
    without |= set() if "keypoints" in tasks else {"keypoints"}
    return {name: kind for name, kind in _KINDS.items() if name not in without}


def to_tensors(answers: Sequence[Answer], wanted: Sequence[str] | None) -> list[dict[str, Any]]:
    """Detections of B images, filled up to the most that one has: `counts` says how many of each are.

    Filled up with boxes, scores and keypoints of 0, labels and ids of -1 and empty texts. Masks are COCO's compressed
    run lengths of the upright image.

    Args:
        answers: of images that were read.
        wanted: names of tensors; None: all.

    Raises:
        RequestError: 400, the model does not give one of them.
    """
    predictor = answers[0].loaded.predictor
    kinds = output_kinds(predictor.tasks)
    for name in wanted or ():
        if name not in kinds:
            raise RequestError(400, f"this model gives no {name}", f"It gives: {', '.join(kinds)}.")
    found = [each.found for each in answers if isinstance(each.found, Detections)]
    most = max(len(each) for each in found)
    tensors: list[dict[str, Any]] = []
    for name in kinds if wanted is None else wanted:
        shape, rows = _column(name, found, answers)
        if name != "counts":
            empty = _filling(name, shape)
            rows = [value for row in rows for value in chain(row, *[empty] * (most - len(row) // len(empty)))]
        full = [len(found)] if name == "counts" else [len(found), most, *shape]
        tensors.append({"name": name, "datatype": kinds[name][0], "shape": full, "data": rows})
    return tensors


def _filling(name: str, shape: Sequence[int]) -> list[Any]:
    value: Any = {"labels": -1, "category_ids": -1, "names": "", "masks": ""}.get(name, 0.0)
    return [value] * math.prod(shape)


def _column(name: str, found: Sequence[Detections], answers: Sequence[Answer]) -> tuple[tuple[int, ...], list[Any]]:
    """Shape of one detection's values, and each image's values one after the other."""
    classes = answers[0].loaded.predictor.classes
    if name == "counts":
        return (), [len(each) for each in found]
    if name == "boxes":
        return (4,), [each.boxes.flatten().tolist() for each in found]
    if name == "scores":
        return (), [each.scores.tolist() for each in found]
    if name == "labels":
        return (), [each.labels.tolist() for each in found]
    if name == "category_ids":
        return (), [[classes.ids[label] for label in each.labels.tolist()] for each in found]
    if name == "names":
        return (), [[classes[label] for label in each.labels.tolist()] for each in found]
    if name == "masks":
        return (), [_codes(each) for each in found]
    if name == "keypoints":
        points = [each.keypoints for each in found if each.keypoints is not None]
        return tuple(points[0].shape[1:]), [each.flatten().tolist() for each in points]
    raise AssertionError(name)


def _codes(found: Detections) -> list[str]:
    assert found.masks is not None, "asked for only of models that give masks"
    return [str(code["counts"]) for code in found.masks.to_coco(polygons=False) if isinstance(code, dict)]
