"""Reading other toolkits' files without running anything of them: what torch and pickle wrote is what is read."""

import argparse
import collections
import contextlib
import io
import os
import pickle
import random
import signal
import struct
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fpn.errors import DataNotFoundError, ModelFileError
from fpn.interop import checkpoint_files, pickle_reader
from fpn.interop.checkpoint_files import read_checkpoint_file

FORMATS = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}


def written(path, value, form):
    torch.save(value, path, **FORMATS[form])
    return path


def example():
    torch.manual_seed(3)
    base = torch.randn(6, 4)
    state = collections.OrderedDict(
        {
            "plain": base,
            "turned": base.t(),
            "part": base[2:5, 1],
            "half": torch.randn(3).half(),
            "brain": torch.randn(3).bfloat16(),
            "count": torch.tensor(7),
            "flags": torch.tensor([True, False]),
            "none": torch.empty(0, 5),
            "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        }
    )
    state._metadata = {"": {"version": 2}}
    numbers = [1, 2.5, None, True, -(2**40), 2**70, "è", b"raw", (3, ("deep",))]
    return {"state_dict": state, "numbers": numbers, "size": torch.Size([4, 5]), "dtype": torch.float16}


def same(one, other):
    assert type(one) is type(other) or isinstance(other, dict | torch.Tensor | torch.Size), (type(one), type(other))
    if isinstance(other, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(other, dict):
        assert list(one) == list(other)
        for key in other:
            same(one[key], other[key])
    elif isinstance(other, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            same(left, right)
    else:
        assert one == other


# --- what is well written -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_of_torch_is_read_as_torch_reads_it_with_weights_only(form, tmp_path):
    path = written(tmp_path / "a.pth", example(), form)
    content = read_checkpoint_file(path)
    same(content.value, torch.load(path, weights_only=True))
    assert content.skipped == {}
    assert content.form == {"zip": "torch", "legacy": "torch before 1.6"}[form]


@pytest.mark.parametrize("form", FORMATS)
def test_tensors_of_one_storage_share_the_files_bytes_and_may_be_changed(form, tmp_path):
    path = written(tmp_path / "a.pth", example(), form)
    before = path.read_bytes()
    state = read_checkpoint_file(path).value["state_dict"]
    state["plain"][0, 1] = 99
    assert state["turned"][1, 0] == 99
    assert path.read_bytes() == before


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_of_detectron2_of_every_protocol(protocol, tmp_path):
    weights = {
        "stem.conv1.weight": np.arange(60000, dtype=np.float32).reshape(6, 100, 100),
        "columns": np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        "big": np.arange(3, dtype=">f4"),
        "scalar": np.float64(0.1),
        "empty": np.zeros((0, 3), np.float32),
    }
    (tmp_path / "a.pkl").write_bytes(
        pickle.dumps({"model": weights, "__author__": "Detectron2 Model Zoo", "matching": True}, protocol)
    )
    value = read_checkpoint_file(tmp_path / "a.pkl").value
    assert value["__author__"] == "Detectron2 Model Zoo"
    for name, wanted in weights.items():
        np.testing.assert_array_equal(value["model"][name], wanted)
        assert np.asarray(value["model"][name]).dtype == np.asarray(wanted).dtype.newbyteorder("=")


def python2(array):
    """As Python 2 wrote an array: its bytes are a text."""
    dtype = b"cnumpy\ndtype\n(U\x02f4I0\nI1\ntR(I3\nU\x01<NNNI-1\nI-1\nI0\ntb"
    raw = array.tobytes()
    shape = b"(" + b"".join(b"I%d\n" % n for n in array.shape) + b"t"
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR"
    return made + b"(I1\n" + shape + dtype + b"I00\nT" + struct.pack("<I", len(raw)) + raw + b"tb"


def test_an_array_that_python_2_wrote(tmp_path):
    array = np.arange(2000, dtype=np.float32).reshape(20, 100)
    (tmp_path / "R-50.pkl").write_bytes(b"\x80\x02}U\x04res2" + python2(array) + b"s.")
    np.testing.assert_array_equal(read_checkpoint_file(tmp_path / "R-50.pkl").value["res2"], array)


@pytest.fixture
def toolkit(monkeypatch):
    """Classes of MMEngine under their own names, as far as pickles show them."""
    module = types.ModuleType("mmengine.logging.history_buffer")
    names = ("mmengine", "mmengine.logging", module.__name__)
    for name in names[:-1]:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)

    class HistoryBuffer:
        def __init__(self):
            self._log_history = np.arange(3.0)
            self._methods = {"mean": HistoryBuffer.mean}

        def mean(self):
            return 0

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    HistoryBuffer.mean.__module__, HistoryBuffer.mean.__qualname__ = module.__name__, "HistoryBuffer.mean"
    module.HistoryBuffer = HistoryBuffer
    return HistoryBuffer


@pytest.mark.parametrize("protocol", [2, 4])
def test_records_of_a_training_are_left_out_and_counted(toolkit, protocol, tmp_path):
    hub = {"log_scalars": {"loss": toolkit(), "time": toolkit()}, "kept": np.float32(0.5)}
    arguments = argparse.Namespace(lr=0.1, output_dir="runs")
    torch.save(
        {"message_hub": hub, "args": arguments, "meta": {"CLASSES": ("cat", "dog")}, "w": torch.ones(2)},
        tmp_path / "epoch_12.pth",
        pickle_protocol=protocol,
    )
    content = read_checkpoint_file(tmp_path / "epoch_12.pth")
    assert content.value["message_hub"] == {"log_scalars": {}, "kept": 0.5}
    assert content.value["args"] == {"lr": 0.1, "output_dir": "runs"}
    assert content.value["meta"]["CLASSES"] == ("cat", "dog")
    assert content.skipped == {"mmengine.logging.history_buffer.HistoryBuffer": 2}


def test_a_file_of_safetensors(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / "a.safetensors")
    assert read_checkpoint_file(tmp_path / "a.safetensors").value["a"].tolist() == [1, 1, 1]


def test_a_model_of_our_own_is_no_checkpoint_to_import(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / "a.safetensors", {"fpn": "{}"})
    with pytest.raises(ModelFileError, match="a model of fpn already: predict, evaluate and train --init take it as"):
        read_checkpoint_file(tmp_path / "a.safetensors")


def test_a_file_that_is_not_there_and_a_folder(tmp_path):
    with pytest.raises(DataNotFoundError, match="no such file"):
        read_checkpoint_file(tmp_path / "a.pth")
    with pytest.raises(ModelFileError, match="is a folder; a checkpoint is a file"):
        read_checkpoint_file(tmp_path)


# --- what is not ----------------------------------------------------------------------------------------------------


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def in_zip(pickled, records=(), prefix="archive", **options):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(f"{prefix}/data.pkl", pickled, **options)
        for name, content in records:
            archive.writestr(name, content)
    return stream.getvalue()


def tensor_zip(
    storage=("torch", "FloatStorage"), key="0", numbers=4, call="_rebuild_tensor_v2", offset=0, size=(4,), stride=(1,),
    raw=b"\0" * 16,
):  # fmt: skip
    """A file with one tensor, told as one likes."""

    def put(value):
        if isinstance(value, tuple):
            return b"(" + b"".join(map(put, value)) + b"t"
        if isinstance(value, int):
            return b"L%dL\n" % value
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    named = b"c%s\n%s\n" % tuple(word.encode() for word in storage)
    told = b"(" + put("storage") + named + put(key) + put("cpu") + put(numbers) + b"tQ"
    made = b"ctorch._utils\n%s\n(" % call.encode() + told + put(offset) + put(size) + put(stride) + b"\x89}tR"
    return in_zip(b"\x80\x02" + made + b".", [("archive/data/0", raw)])


def bomb(levels=64):
    value = ["x"] * 10
    for _ in range(levels):
        value = [value, value]
    return pickle.dumps(value, 2)


def recursive():
    value = []
    value.append(value)
    return pickle.dumps(value, 2)


# Records of a zip, whose list alone is longer than 2 MiB.
MANY = [(f"{number:05d}" * 40, b"") for number in range(9000)]


@contextlib.contextmanager
def bounds(seconds, mebibytes):
    """Of the processor's time, and of address space beyond what the process has."""

    def too_long(*_):
        raise TimeoutError

    pages = Path("/proc/self/statm")
    if not pages.is_file():
        yield
        return
    resource = pytest.importorskip("resource")
    before, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGPROF, too_long)
    most = int(pages.read_text().split()[0]) * resource.getpagesize() + mebibytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def hostile(canary):
    """Name -> (bytes, what the error says)."""
    write = Calls(Path.touch, Path(canary))
    files = {
        "os.system": (pickle.dumps(Calls(os.system, f"touch {canary}"), 2), r"refers to posix\.system"),
        "eval": (pickle.dumps(Calls(eval, f"open({canary!r}, 'w')"), 4), r"refers to builtins\.eval"),
        "exec in a dict": (pickle.dumps({"model": Calls(exec, "1")}, 2), r"refers to builtins\.exec"),
        "a method of a path": (pickle.dumps(write, 4), "getattr|refers to pathlib"),
        "subprocess": (pickle.dumps(Calls(subprocess.Popen, ["touch", canary]), 4), r"refers to subprocess\.Popen"),
        "in torch's zip": (in_zip(pickle.dumps(Calls(os.system, "x"), 2)), r"refers to posix\.system"),
        "only named": (b"\x80\x02cos\nsystem\n.", r"refers to os\.system"),
        "a chain of calls": (b"\x80\x02cbuiltins\ngetattr\ncbuiltins\nlist\nX\x03\0\0\0popR.", "calls what is no"),
        "getattr of a type": (b"\x80\x02c__builtin__\ngetattr\n(cnumpy\nndarray\nX\x03\0\0\0popt\x85R.", "getattr"),
        "instance": (b"(ios\nsystem\n.", r"is no pickle that is known \(opcode 0x69\)"),
        "object": (b"(cos\nsystem\no.", r"refers to os\.system"),
        "extension": (b"\x80\x02\x82\x01.", r"opcode 0x82"),
        "letters to control a terminal": (b"\x80\x02c\x1b[31m\nx\n.", r"refers to \\x1b\[31m\.x"),
        "a whole model": (pickle.dumps(torch.nn.ReLU(), 2), r"holds a whole model with its code"),
        "a state for a function": (b"\x80\x02cnumpy\nndarray\n}b.", "gives a state to what has none"),
        "deep": (b"\x80\x02" + b"]" * 500 + b"a" * 499 + b".", "nested more than 100 deep"),
        "deep tuples": (b"\x80\x02N" + b"\x85" * 9000 + b".", "nested more than 100 deep"),
        "itself": (recursive(), "contains itself"),
        "memo bomb": (bomb(), "more than 5000000 values"),
        "deep tuples as a type": (b"\x80\x02cnumpy\ndtype\nN" + b"\x85" * 9001 + b"R.", r"type \(\(\(tuple of 1,?\)"),
        "2**40 values as a type": (
            b"\x80\x02cnumpy\ndtype\nN" + b"q\0h\0\x86" * 40 + b"\x85R.", r"type \(\(\(tuple of 2, tuple of 2\)"
        ),
        "tuple as key": (b"\x80\x02}" + b"N" + b"\x85\x86" * 0 + b"\x85" * 99 + b"Ns.", "a mapping with a key of type"),
        "long number": (b"\x80\x02\x8b" + struct.pack("<i", 2**24) + b"\1" * 99, "a whole number of 16777216 bytes"),
        "long text of a number": (b"\x80\x02L" + b"9" * 9000 + b"L\n.", "a whole number of 900"),
        "huge text": (b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"x", "it is not whole"),
        "huge frame": (b"\x80\x04\x95" + struct.pack("<Q", 2**60), "in the midst of a pickle|it is not whole"),
        "many opcodes": (b"\x80\x02" + b"N0" * 200_001, "more than 400000 opcodes"),
        "memo of nothing": (b"\x80\x02h\x07.", "refers to what is not there"),
        "empty stack": (b"\x80\x020.", "takes what is not there"),
        "below a mark": (b"\x80\x02N(0.", "takes what is not there"),
        "no end": (b"\x80\x02]]]", "it is not whole"),
        "persistent in a plain pickle": (b"\x80\x02]Q.", "refers to an object outside of it"),
        "text persistent": (b"\x80\x02P0\n.", "opcode 0x50"),
        "array of objects": (pickle.dumps(np.array([{}, []], object), 2), r"NumPy's type O8"),
        "array of records": (pickle.dumps(np.zeros(2, "i4,f4"), 2), r"NumPy's type V8"),
        "array too short": (pickle.dumps(np.zeros(9, "f4"), 2).replace(b"K\x09\x85", b"K\xff\x85"), "with 36 bytes"),
        "text": (b"hello, world", "refers to what is not there"),
        "image": (b"\x89PNG\r\n", "is none of the files that are read"),
        "empty": (b"", "it is empty"),
        "a model of no toolkit": (b"\x80\x02cnets.yolo\nDetector\n.", "If that is a model, save its numbers alone"),
        "a zip of very many records": (in_zip(b"N.", MANY), "its zip has a list of records of"),
        "cut zip": (tensor_zip()[:-30], "cut short"),
        "zip of another kind": (in_zip(b"N.", prefix="a/b/c"), "torch.save did not write"),
        "compressed": (in_zip(b"\x80\x02" + b"N0" * 99_999 + b"N.", compress_type=8), "is compressed or encrypted"),
        "record that leads out": (in_zip(b"N.", [("../../etc/passwd", b"x")]), "leads out of it"),
        "absolute record": (in_zip(b"N.", [("/etc/passwd", b"x")]), "leads out of it"),
        "big-endian": (in_zip(b"N.", [("archive/byteorder", b"big")]), "big-endian"),
        "script": (in_zip(b"N.", [("archive/code/a.py", b"x")]), "a TorchScript program"),
        "storage beyond the file": (tensor_zip(numbers=2**40), r"should have 4398046511104 bytes, and has 16"),
        "storage missing": (tensor_zip(key="7"), "lacks the numbers of storage 7"),
        "storage elsewhere": (tensor_zip(key="../../0"), "lacks the numbers of storage"),
        "negative stride": (tensor_zip(stride=(-1,)), "expected whole numbers from 0 on"),
        "negative offset": (tensor_zip(offset=-4), "expected whole numbers from 0 on"),
        "negative size": (tensor_zip(size=(-4,)), "expected whole numbers from 0 on"),
        "beyond its storage": (tensor_zip(offset=1), r"reaches beyond the 4 numbers of its storage 0"),
        "overlap": (tensor_zip(size=(2, 3), stride=(1, 1)), "overlaps itself"),
        "a number repeated": (tensor_zip(size=(2**50,), stride=(0,)), "overlaps itself"),
        "strides missing": (tensor_zip(size=(2, 2)), "has strides"),
        "unknown storage": (tensor_zip(storage=("torch", "QInt8Storage")), r"refers to torch\.QInt8Storage"),
        "storage that is no type": (tensor_zip(storage=("numpy", "ndarray")), "a storage of an unknown type"),
        "a sparse tensor": (tensor_zip(call="_rebuild_sparse_tensor"), r"_rebuild_sparse_tensor"),
    }  # fmt: skip
    twice = in_zip(b"N.", [("archive/data.pk2", b"I1\n.")]).replace(b"data.pk2", b"data.pkl")
    files["two records of a name"] = twice, "has archive/data.pkl twice"
    return files


def test_hostile_files_are_refused_with_what_was_found_and_nothing_of_them_runs(tmp_path):
    canary = tmp_path / "canary"
    files = hostile(str(canary))
    assert len(files) > 50
    for number, (name, (content, told)) in enumerate(files.items()):
        path = tmp_path / f"{number}.pkl"
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=told) as caught, bounds(seconds=1, mebibytes=200):
            read_checkpoint_file(path)
        assert str(caught.value).startswith(str(path)), name
        assert str(caught.value).isprintable(), name
    assert not canary.exists()
    pickle.loads(files["os.system"][0])
    assert canary.exists(), "the canary would sing"


def test_the_machine_neither_imports_nor_calls_what_a_file_names():
    with open(pickle_reader.__file__) as one, open(checkpoint_files.__file__) as two:  # noqa: PTH123
        source = one.read() + two.read()
    for word in ("import_module", "__import__", "getattr(", "eval(", "exec(", "import pickle", "find_class"):
        assert word not in source


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_files_with_changed_bytes_are_read_or_refused(form, tmp_path):
    path = tmp_path / "a.pth"
    if form == "pickle":
        path.write_bytes(pickle.dumps({"model": {"w": np.ones((3, 4), np.float32)}, "n": [1, 2.5, "x"] * 9}, 2))
    else:
        written(path, {"w": torch.ones(3, 4), "n": [1, 2.5, "x"] * 9, "h": torch.ones(2).half()}, form)
    whole, chance = path.read_bytes(), random.Random(5)
    read = refused = 0
    for _ in range(200):
        changed = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.choice((0, 1, 0x28, 0x52, 0x71, 0x80, 0xFF, 200))
        if chance.random() < 0.2:
            del changed[chance.randrange(len(changed)) :]
        path.write_bytes(changed)
        try:
            read_checkpoint_file(path)
            read += 1
        except ModelFileError:
            refused += 1
    assert read > 5
    assert refused > 50
