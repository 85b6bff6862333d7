"""Where a model's weights come from, if they were another toolkit's, and what was proven of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from fpn.detectors.detector import IMPORTED
from fpn.detectors.model_file import read_header, shown
from fpn.interop.proof import MOSTLY
from fpn.studies.tables import TextTable


def origin_table(path: str | os.PathLike[str]) -> TextTable | None:
    """What a model file says of it; None: its weights are from no other toolkit.

    Raises:
        DataNotFoundError, ModelFileError: as `fpn.load`.
    """
    record = read_header(path).get("training", {})
    told = record.get(IMPORTED)
    if not isinstance(told, Mapping):
        return None
    rows = [("from", _text(told.get("from"))), ("toolkit", _text(told.get("toolkit")))]
    for key, name in (("findings", "set"), ("leftover", "left over"), ("missing", "missing, random")):
        rows += [(name, _text(each)) for each in _listed(told.get(key))]
    proofs = [each for each in _listed(told.get("proofs")) if isinstance(each, Mapping)]
    rows += [(_verdict(each), _proof(each)) for each in proofs] or [("proven", "nothing was compared")]
    if "step" in record:
        data = record.get("data")
        name = _text(data.get("name")) if isinstance(data, Mapping) else "?"
        rows.append(("since then", f"trained here, {_number(record['step'])} steps on {name}"))
    return TextTable(title="Imported weights", columns=("what", "as the file says"), rows=tuple(rows))


def _listed(value: Any) -> list[Any]:
    return value[:50] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value[:200] if isinstance(value, str) and value.isprintable() else shown(value)


def _verdict(proof: Mapping[str, Any]) -> str:
    same, theirs = proof.get("same"), proof.get("theirs")
    held = isinstance(same, int) and isinstance(theirs, int) and theirs > 0 and same >= MOSTLY * theirs
    return "proven" if held else "not proven"


def _proof(proof: Mapping[str, Any]) -> str:
    sizes = ", ".join("x".join(map(_number, _listed(size))) for size in _listed(proof.get("sizes")))
    return (
        f"{_number(proof.get('same'))} of {_number(proof.get('theirs'))} detections as {_text(proof.get('against'))} "
        f"finds them on images of {sizes}; largest differences {_number(proof.get('box'))} pixels, "
        f"{_number(proof.get('score'))} of the score"
    )


def _number(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value) if isinstance(value, int) else "?"
