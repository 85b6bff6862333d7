"""A detector's graph in OpenVINO's form: an `.xml` and the weights in a `.bin` beside it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpn.export.equal_scores import decide_alike
from fpn.export.runtimes import import_openvino


def save_openvino(onnx_model: bytes, header: Mapping[str, Any], target: Path) -> None:
    """Convert an ONNX model.

    Args:
        onnx_model: its bytes.
        header: what the file shall say about itself.
        target: an `.xml`; the weights go to a `.bin` of the same name.

    Raises:
        ConfigError: it takes more scores at once than OpenVINO can tell apart.
        MissingExtraError: OpenVINO is not installed.
    """
    openvino = import_openvino(str(target))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        source.write_bytes(onnx_model)
        model = openvino.Core().read_model(str(source))
        decide_alike(model, openvino)
        model.set_rt_info(json.dumps(header), ["fpn", "header"])
        openvino.save_model(model, str(target), compress_to_fp16=False)
