"""What runs exported files: a name for each array that goes in, arrays out."""

from __future__ import annotations

import json
import threading
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from fpn.errors import ConfigError, DataNotFoundError, MissingExtraError, ModelFileError

Arrays = Mapping[str, NDArray[Any]]
# How names end of what `equal_scores` puts into files of OpenVINO.
TAKEN_AGAIN = "/equal"


@runtime_checkable
class Runtime(Protocol):
    """A file that is ready to run; several threads may do so at once.

    Attributes:
        name: what runs it, with its version.
        header: what the file says about itself, as JSON text; None: nothing.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def header(self) -> str | None: ...  # noqa: D102

    def __call__(self, arrays: Arrays) -> list[NDArray[Any]]:
        """What comes out, in the file's order."""


class OnnxRuntime:
    """ONNX Runtime on a CPU.

    Args:
        model: a file, or its bytes.
        where: what messages call it.

    Raises:
        MissingExtraError: it is not installed.
        ModelFileError: it can't be read.
    """

    def __init__(self, model: Path | bytes, *, where: str) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError(
                f"{where}: needs the extra `export` (onnxruntime is not installed). "
                "Get it with: pip install 'fpn[export]'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        given = model if isinstance(model, bytes) else str(model)
        try:
            self._session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        # Its errors have no base of their own that could be named.
        except Exception as error:
            raise ModelFileError(_unread(where, "ONNX Runtime", error)) from error
        self.name = f"ONNX Runtime {onnxruntime.__version__}"

    @property
    def header(self) -> str | None:
        """See `Runtime.header`."""
        found: str | None = self._session.get_modelmeta().custom_metadata_map.get("fpn")
        return found

    def __call__(self, arrays: Arrays) -> list[NDArray[Any]]:
        """See `Runtime`."""
        found: list[NDArray[Any]] = self._session.run(None, dict(arrays))
        return found


class OpenVINORuntime:
    """OpenVINO on a CPU.

    Args:
        model: a file that OpenVINO reads.
        where: what messages call it.
        precision: of what is float32 in the file. OpenVINO's own choice would be bf16 wherever the processor has it.

    Raises:
        MissingExtraError: it is not installed.
        DataNotFoundError: its weights are not beside it.
        ModelFileError: it can't be read.
        ConfigError: bf16 on a processor without it.
    """

    def __init__(self, model: Path, *, where: str, precision: Literal["float32", "bf16"] = "float32") -> None:
        openvino = import_openvino(where)
        if not model.with_suffix(".bin").is_file():
            raise DataNotFoundError(
                f"{where}: its weights, {model.with_suffix('.bin').name}, do not lie beside it. Copy both files of the "
                "export."
            )
        if not _begins_with(model, b"<net"):  # else it asks all that it can read, and these talk
            raise ModelFileError(_unread(where, "OpenVINO", "it is not in OpenVINO's form"))
        core = openvino.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ConfigError(
                f"{where}: this processor has no bf16 instructions. Leave --precision bf16 out: the file works in "
                "float32."
            )
        hint = {"float32": "f32", "bf16": "bf16"}[precision]
        try:
            read = core.read_model(str(model))
            if precision == "bf16":
                _as_they_come(read)
            settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": str(torch.get_num_threads())}
            self._compiled = core.compile_model(read, "CPU", settings)
        except RuntimeError as error:
            raise ModelFileError(_unread(where, "OpenVINO", error)) from error
        self.header: str | None = None
        if read.has_rt_info(["fpn", "header"]):
            self.header = str(read.get_rt_info(["fpn", "header"]).astype(str))
        self.name = f"OpenVINO {openvino.__version__.split('-')[0]}"
        self._lock = threading.Lock()

    def __call__(self, arrays: Arrays) -> list[NDArray[Any]]:
        """See `Runtime`."""
        with self._lock:
            found = self._compiled(dict(arrays))
            return [np.array(found[output]) for output in self._compiled.outputs]


class TorchRuntime:
    """A program of `torch.export` on a CPU.

    It can hold pickled parts and formulas that are evaluated: load files of people you trust.

    Args:
        model: a `.pt2`.
        where: what messages call it.

    Raises:
        ModelFileError: it can't be read.
    """

    def __init__(self, model: Path, *, where: str) -> None:
        import fpn.export.operators  # noqa: F401 - what the program calls

        if not zipfile.is_zipfile(model):  # else PyTorch tells how it went astray
            raise ModelFileError(_unread(where, "PyTorch", "it is not a whole archive"))
        extra = {"fpn.json": ""}
        try:
            program = torch.export.load(model, extra_files=extra)
            self._run = program.module()
        # Its errors have no base of their own that could be named.
        except Exception as error:
            raise ModelFileError(_unread(where, "PyTorch", error)) from error
        self.header: str | None = extra["fpn.json"] or None
        self.name = f"PyTorch {torch.__version__.split('+')[0]} (torch.export)"

    @torch.no_grad()
    def __call__(self, arrays: Arrays) -> list[NDArray[Any]]:
        """See `Runtime`."""
        found = self._run(*(torch.from_numpy(array) for array in arrays.values()))
        return [each.numpy() for each in found]


def import_openvino(where: str) -> Any:
    """OpenVINO, or what to install.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError(
            f"{where}: needs the extra `openvino`, which is not installed. Get it with: pip install 'fpn[openvino]'"
        ) from error
    return openvino


def read_file_header(text: str | None, where: str) -> dict[str, Any]:
    """A file's header.

    Raises:
        ModelFileError: there is none, or it is damaged.
    """
    if text is None:
        raise ModelFileError(
            f"{where}: says nothing about itself that fpn knows. Was it exported by another program? Only files of "
            "`fpn export` can be loaded."
        )
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{where}: what it says about itself is damaged. Export it again.") from error
    if not isinstance(header, dict):
        raise ModelFileError(f"{where}: what it says about itself is damaged. Export it again.")
    return header


def as_arrays(names: Sequence[str], tensors: Sequence[torch.Tensor]) -> dict[str, NDArray[Any]]:
    """Tensors by name, as runtimes take them."""
    return {name: tensor.cpu().contiguous().numpy() for name, tensor in zip(names, tensors, strict=True)}


def _as_they_come(model: Any) -> None:
    """Have a changed model take of equal scores whichever come first.

    In bf16 there are some in every image, of which nothing is proven: with a Lite0 taking them once more was 2.8 % of
    the time.
    """
    for node in model.get_ordered_ops():
        if node.get_friendly_name().endswith(TAKEN_AGAIN):
            for output, number in zip(node.outputs(), (2, 4), strict=True):
                for each in output.get_target_inputs():
                    each.replace_source_output(node.input_value(number))


def _begins_with(path: Path, what: bytes) -> bool:
    """Whether it comes among a file's first bytes."""
    with path.open("rb") as file:
        return what in file.read(1000)


def _unread(where: str, runtime: str, error: object) -> str:
    said = " ".join(str(error).split())
    return f"{where}: {runtime} can't read it ({said[:300]}). Copy it again from where it came, or export it again."
