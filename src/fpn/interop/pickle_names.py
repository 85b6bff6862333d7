"""The names that a pickle may refer to, and what our own code makes of them. All others are refused.

Nothing here, and nothing that a file names, is looked up in a module: a name is compared with those of this table.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from fpn.interop.pickle_parts import (
    ArrayRef,
    Attributes,
    DtypeRef,
    Known,
    LongText,
    RefusedFileError,
    Skipped,
    StorageRef,
    TensorRef,
    check_tensor,
    fail,
    printable,
    whole_numbers,
)

# Older names of modules.
_RENAMED = (("__builtin__.", "builtins."), ("copy_reg.", "copyreg."), ("numpy.core.", "numpy._core."))
# NumPy's types: kind and bytes. The largest is a text of a thousand letters.
_CODE = re.compile(r"(b1|[iu][1248]|f[248]|c(8|16)|[SU]\d{1,3})")

STORAGES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.UntypedStorage": None,
    "torch.storage.UntypedStorage": None,
}
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
# Mappings with attributes, in which toolkits keep their settings.
_MAPPINGS = (
    "collections.OrderedDict",
    "collections.Counter",
    "addict.addict.Dict",
    "easydict.EasyDict",
    "yacs.config.CfgNode",
    "fvcore.common.config.CfgNode",
    "detectron2.config.config.CfgNode",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
)
_OBJECTS = ("argparse.Namespace", "types.SimpleNamespace")
# Records of a training, which hold nothing that a detector needs.
_NOT_READ = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "mmengine.config.config.Config",
    "mmcv.utils.config.Config",
    "fvcore.common.history_buffer.HistoryBuffer",
    "datetime.datetime",
    "datetime.timedelta",
    "datetime.date",
)


def _mapping(args: tuple[Any, ...]) -> dict[Any, Any]:
    if not args:
        return {}
    pairs = args[0]
    if isinstance(pairs, dict):
        return pairs
    if not isinstance(pairs, list | tuple) or len(args) > 1:
        raise RefusedFileError("a mapping that is made of something else than pairs")
    made: dict[Any, Any] = {}
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RefusedFileError("a mapping that is made of something else than pairs")
        made[check_key(pair[0])] = pair[1]
    return made


def check_key(key: Any) -> Any:
    """A key of a mapping, or a RefusedFileError of one that would take long to compare."""
    plain = key is None or type(key) in (str, bool, float) or (type(key) is int and -(2**63) <= key < 2**63)
    flat = type(key) is tuple and len(key) <= 16 and all(type(each) in (str, int, bool, float) for each in key)
    return key if plain or flat else fail(f"a mapping with a key of type {type(key).__name__}")


def _listed(args: tuple[Any, ...]) -> list[Any]:
    if len(args) > 2 or (args and not isinstance(args[0], list | tuple)):
        raise RefusedFileError("a set or a queue that is made of something else than a list")
    return list(args[0]) if args else []


def _encoded(args: tuple[Any, ...]) -> bytes:
    """Bytes, as Python 3 writes them for Python 2."""
    if len(args) != 2 or args[1] not in ("latin1", "latin-1") or not isinstance(args[0], str | LongText):
        raise RefusedFileError("a text that is encoded in another way than latin1")
    text = args[0] if isinstance(args[0], str) else args[0].text()
    try:
        return text.encode("latin1")
    except UnicodeEncodeError:
        raise RefusedFileError("bytes that are written with letters beyond latin1") from None


def _raw(args: tuple[Any, ...]) -> bytes:
    if not args:
        return b""
    return args[0] if isinstance(args[0], bytes) else fail("bytes that are made of something else")


def _dtype(args: tuple[Any, ...]) -> DtypeRef:
    code = args[0] if args else None
    if isinstance(code, bytes):
        code = code.decode("latin1")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise RefusedFileError(
            f"numbers of NumPy's type {printable(code)}; known are the plain ones, such as f4 and i8"
        )
    return DtypeRef(code)


def _scalar(args: tuple[Any, ...]) -> Any:
    if len(args) != 2 or not isinstance(args[0], DtypeRef):
        raise RefusedFileError("a NumPy number without a type")
    dtype, raw = args[0].dtype(), raw_bytes(args[1])
    if len(raw) != dtype.itemsize:
        raise RefusedFileError(f"a NumPy number of {dtype} with {len(raw)} bytes")
    return np.frombuffer(raw, dtype)[0].item()


def raw_bytes(value: Any) -> bytes | memoryview:
    """Bytes of an array or number; Python 2 has them as texts."""
    if isinstance(value, str):
        return _encoded((value, "latin1"))
    return value if isinstance(value, bytes | memoryview) else fail("an array of objects: only numbers are read")


def fill_array(array: ArrayRef, state: Any) -> None:
    """What an array's pickle tells of it: (version, shape, type, whether columns come first, bytes).

    Raises:
        RefusedFileError: it does not.
    """
    if not isinstance(state, tuple) or len(state) not in (4, 5) or not isinstance(state[-3], DtypeRef):
        raise RefusedFileError("an array without shape and type")
    array.shape = whole_numbers(state[-4], "an array of shape")
    array.kind, array.columns_first = state[-3], bool(state[-2])
    array.data = raw_bytes(state[-1])
    wanted = array.kind.dtype().itemsize
    for length in array.shape:
        wanted *= length
    if wanted != len(array.data):
        raise RefusedFileError(
            f"an array of shape {array.shape} and type {array.kind.code} with {len(array.data)} bytes"
        )


def _array_of_bytes(args: tuple[Any, ...]) -> ArrayRef:
    """NumPy's `_frombuffer(bytes, type, shape, order)`, of pickles of protocol 5."""
    if len(args) != 4 or args[3] not in ("C", "F"):
        raise RefusedFileError("an array in another order than rows or columns")
    array = ArrayRef()
    fill_array(array, (args[2], args[1], args[3] == "F", args[0]))
    return array


def _tensor(args: tuple[Any, ...]) -> TensorRef:
    """torch's `_rebuild_tensor_v2(storage, offset, size, stride, ...)`."""
    return _on_storage(args, args[0].dtype if args and isinstance(args[0], StorageRef) else None)


def _typed_tensor(args: tuple[Any, ...]) -> TensorRef:
    """torch's `_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, ...)`."""
    return _on_storage(args, args[6] if len(args) > 6 else None)


def _on_storage(args: tuple[Any, ...], dtype: Any) -> TensorRef:
    if len(args) < 4 or not isinstance(args[0], StorageRef):
        raise RefusedFileError("a tensor without a storage")
    if not isinstance(dtype, torch.dtype):
        raise RefusedFileError("a tensor of an unknown type of numbers")
    (offset,) = whole_numbers((args[1],), "a tensor's offset")
    size, stride = whole_numbers(args[2], "a tensor of size"), whole_numbers(args[3], "a tensor's strides")
    tensor = TensorRef(args[0], dtype, offset, size, stride)
    check_tensor(tensor)
    return tensor


def _parameter(args: tuple[Any, ...]) -> TensorRef:
    return args[0] if args and isinstance(args[0], TensorRef) else fail("a parameter that is not made of a tensor")


def _device(args: tuple[Any, ...]) -> str:
    return ":".join(printable(each) for each in args)


def _attribute(args: tuple[Any, ...]) -> Skipped:
    """`getattr`, with which Python 3 writes the methods of a class for Python 2."""
    owner, name = args if len(args) == 2 else (None, None)
    if isinstance(name, str) and (isinstance(owner, Skipped) or (isinstance(owner, Known) and owner.skipped)):
        return Skipped(f"{owner.name}.{printable(name)}")
    raise RefusedFileError("an attribute of something that is not a record of a training (getattr)")


def _skip(name: str) -> Callable[[tuple[Any, ...]], Skipped]:
    return lambda _args: Skipped(name)


def _table() -> Iterable[Known]:
    yield from (Known(name, _mapping) for name in (*_MAPPINGS, "builtins.dict"))
    # The first of its arguments makes values that are missing.
    yield Known("collections.defaultdict", lambda args: _mapping(args[1:]))
    yield from (Known(name, lambda _args: Attributes()) for name in _OBJECTS)
    yield from (Known(name, _skip(name), skipped=True) for name in _NOT_READ)
    yield from (Known(name, _listed) for name in ("builtins.set", "builtins.frozenset", "collections.deque"))
    yield from (Known(f"builtins.{name}", skipped=True) for name in ("list", "int", "float", "str", "bool", "tuple"))
    yield Known("builtins.getattr", _attribute)
    yield Known("builtins.bytes", _raw)
    yield Known("builtins.bytearray", _raw)
    yield Known("builtins.complex", lambda _args: Skipped("complex"))
    yield Known("builtins.slice", lambda _args: Skipped("slice"))
    yield Known("_codecs.encode", _encoded)
    for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"):
        yield Known(f"pathlib.{name}", lambda args: "/".join(map(printable, args)))
    yield Known("numpy.dtype", _dtype)
    yield Known("numpy.ndarray")
    yield Known("numpy._core.multiarray._reconstruct", lambda _args: ArrayRef())
    yield Known("numpy._core.multiarray.scalar", _scalar)
    yield Known("numpy._core.numeric._frombuffer", _array_of_bytes)
    yield Known("torch.Size", lambda args: tuple(_listed(args)))
    yield Known("torch.device", _device)
    yield Known("torch.serialization._get_layout", _skip("torch.layout"))
    yield Known("torch._utils._rebuild_tensor", _tensor)
    yield Known("torch._utils._rebuild_tensor_v2", _tensor)
    yield Known("torch._utils._rebuild_tensor_v3", _typed_tensor)
    yield Known("torch._utils._rebuild_parameter", _parameter)
    yield from (Known(f"torch.{name}", value=getattr(torch, name)) for name in _DTYPES)
    yield from (Known(name) for name in STORAGES)


_KNOWN = {known.name: known for known in _table()}


def find_name(module: Any, name: Any) -> Known:
    """What a pickle refers to by module and name.

    Raises:
        RefusedFileError: it is not in the table.
    """
    if not isinstance(module, str) or not isinstance(name, str):
        raise RefusedFileError("a reference to a class whose name is not a text")
    whole = f"{module}.{name}"
    for old, new in _RENAMED:
        if whole.startswith(old):
            whole = new + whole.removeprefix(old)
    found = _KNOWN.get(whole)
    if found is None:
        owner = _KNOWN.get(whole.rpartition(".")[0])
        if owner is not None and owner.name in _NOT_READ:
            return Known(whole, skipped=True)
        raise RefusedFileError(_refused(whole))
    return found


def _refused(name: str) -> str:
    reason = f"it refers to {printable(name)}, which is not data; nothing of it was run"
    outside = name.partition(".")[0] not in (*sys.stdlib_module_names, "__builtin__", "torch", "numpy")
    if re.match(r"(torch\.nn\.modules|torchvision\.models|mmdet|detectron2\.modeling|__torch__)\b", name):
        reason += (
            ". The file holds a whole model with its code; save its numbers alone where it was made: "
            "torch.save(model.state_dict(), ...)"
        )
    elif outside and name.rpartition(".")[2][:1].isupper():
        reason += ". If that is a model, save its numbers alone where it was made: torch.save(model.state_dict(), ...)"
    elif not outside:
        reason += (
            ". No checkpoint has use for it: open it with nothing that runs pickles, and get weights that you trust"
        )
    return reason
