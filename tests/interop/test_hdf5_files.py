"""Keras' files: names of both kinds, and what is refused of files that hold more, or less, than arrays."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fpn.errors import MissingExtraError, ModelFileError
from fpn.interop import hdf5_files, hdf5_outline, import_weights
from fpn.interop.checkpoint_files import read_checkpoint_file
from fpn.interop.findings import needed
from fpn.interop.importing import require_detector
from fpn.interop.matterport import _plain
from fpn.shapes import Size
from fpn.structures import ImageBatch, Masks, Targets

h5py = pytest.importorskip("h5py", reason="needs the extra `keras`")
NAMES = Path(__file__).resolve().parents[3] / "shared" / "golden" / "names"


@pytest.fixture
def write(tmp_path):
    def write(fill, **options):
        path = tmp_path / "a.h5"
        with h5py.File(path, "w", **options) as file:
            fill(file)
        return path

    return write


def refusal(path):
    return hdf5_outline.outline(str(path))["refused"]


# --- names ------------------------------------------------------------------------------------------------------------


def put(file, path, shape):
    """An array of zeros that takes no place on the disk."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    group = file.require_group(path.rpartition("/")[0])
    h5py.h5d.create(
        group.id, path.rpartition("/")[2].encode(), h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple(tuple(shape)), plist
    )


def golden(name):
    path = NAMES / name
    if not path.is_file():
        pytest.skip(f"needs ../shared/golden/names/{name}, which is not in this checkout")
    return json.loads(path.read_text())["entries"]


def value(name, shape):
    """Small enough that a network's outputs stay finite."""
    if len(shape) > 1:
        values = np.random.default_rng(len(name)).standard_normal(shape, np.float32)
        return values * np.float32(np.prod(shape[:-1]) ** -0.5)
    return np.full(shape, 0.5 if "gamma" in name or "variance" in name else 0.0, np.float32)


def test_a_file_of_matterport_is_a_mask_rcnn_with_nothing_left_over_that_trains(write):
    entries = golden("matterport_mrcnn_resnet50_h5.json")

    def fill(file):
        for group, name, shape in entries:
            file[f"model_weights/{group}/{name}"] = value(name, shape)  # `save_weights` writes no "model_weights"
        file.create_group("model_weights/activation_67")  # layers without weights have empty groups
        put(file, "optimizer_weights/SGD/conv1/kernel/momentum:0", (7, 7, 3, 64))

    small = {"box.sampling.count": 8, "rpn.after_nms": (20, 20)}
    imported = import_weights(write(fill), short_side=64, long_side=64, **small)
    detector = require_detector(imported, "a.h5")
    recipe = detector.recipe
    told = (imported.toolkit, recipe.kind, recipe.backbone, len(recipe.classes))
    assert told == ("matterport", "mask_rcnn", "resnet50", 4)
    assert (needed(imported.leftover), imported.missing) == ((), ())
    assert imported.skipped == {"arrays of an optimizer": 1}

    torch.manual_seed(0)
    box = torch.tensor([[4.0, 6.0, 40.0, 44.0]])
    targets = [Targets(box, torch.tensor([1]), masks=Masks.of_boxes(box, Size(64, 64)))]
    images = ImageBatch(torch.randn(1, 3, 64, 64) * 60, torch.tensor([[64, 64]]))
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-4)
    before = detector.roi_heads.mask.logits.weight.detach().clone()
    for _ in range(3):
        losses = detector.train().losses(images, targets)
        assert all(term.isfinite() for term in losses.terms.values())
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    assert all(weight.isfinite().all() for weight in detector.parameters())
    assert not torch.equal(before, detector.roi_heads.mask.logits.weight)


def keras_3(file, entries):
    """The same layers as Keras 3 lays them out: numbers, in groups that count layers of a class."""
    leaves = {"kernel": 0, "bias": 1, "gamma": 0, "beta": 1, "moving_mean": 2, "moving_variance": 3}
    numbers = {}
    for group, name, shape in entries:
        layer, leaf = name.removesuffix(":0").split("/")
        number = numbers.setdefault(layer, len(numbers))
        if layer.startswith("mrcnn_"):  # inside of a TimeDistributed, which has the name
            outer = f"layers/time_distributed_{number}"
            place, title = f"{outer}/layer/vars", f"conv2d_{number}"
            file.require_group(f"{outer}/vars").attrs["name"] = layer
        elif group == "rpn_model":
            place, title = f"layers/functional/layers/conv2d_{number}/vars", layer
        else:
            place, title = f"layers/conv2d_{number}/vars", layer
        put(file, f"{place}/{leaves[leaf]}", shape)
        file[place].attrs["name"] = title
    file.create_group("layers/input_layer/vars").attrs["name"] = "input_image"


def test_keras_3_numbers_its_arrays_and_the_names_of_the_layers_tell_which_they_are(write):
    entries = golden("matterport_mrcnn_resnet50_h5.json")
    found = read_checkpoint_file(write(lambda file: keras_3(file, entries))).value
    assert {name: list(value.shape) for name, value in found.items()} == {
        name.removesuffix(":0"): shape for _, name, shape in entries
    }


def test_numbers_of_both_byte_orders_and_formats_arrive_as_they_were(write):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)

    def fill(file):
        file["conv1/conv1/kernel:0"] = values
        file["conv1/conv1/bias:0"] = values.astype(">f4")[0]
        file["empty"] = np.zeros((0, 3))

    for version in ("earliest", "latest"):
        found = read_checkpoint_file(write(fill, libver=version))
        assert found.form == "HDF5"
        np.testing.assert_array_equal(found.value["conv1/conv1/kernel:0"], values)
        assert found.value["conv1/conv1/bias:0"].tolist() == [0.0, 1.0, 2.0]
        assert found.value["empty"].shape == (0, 3)


def test_groups_around_a_layer_and_inside_of_it_do_no_harm():
    assert _plain("rpn_model/rpn_conv_shared/kernel:0") == "rpn_conv_shared/kernel"
    assert _plain("mrcnn_class_conv1/mrcnn_class_conv1/conv2d_3/kernel") == "mrcnn_class_conv1/kernel"
    assert _plain("somewhere/else/kernel:0") == "else/kernel"


# --- what is refused --------------------------------------------------------------------------------------------------


def external_link(file):
    file["a"] = h5py.ExternalLink("/etc/passwd", "/x")


def soft_link(file):
    file.create_group("g")["loop"] = h5py.SoftLink("/g")


def dangling_link(file):
    file["a\x1b[31m\n"] = h5py.SoftLink("/nowhere")


def loop(file):
    file.create_group("g")["loop"] = file["/"]


def alias(file):
    file["a"] = np.ones(5, np.float32)
    file["b"] = file["a"]


def deep(file):
    file.create_group("/".join("g" * 25))


def many(file):
    for number in range(30):
        file.create_group(str(number))


def long_name(file):
    file.create_group("n" * 501)


def compressed(file):
    file.create_dataset("a", (1000, 1000), "f4", compression="gzip")


def never_written(file):
    file.create_dataset("a", (2**40,), "f4")


def elsewhere(file):
    file.create_dataset("a", (10,), "f4", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])


def virtual(file):
    layout = h5py.VirtualLayout((10,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (10,))
    file.create_virtual_dataset("a", layout)


def texts(file):
    file.create_dataset("a", data=["x", "yy"], dtype=h5py.string_dtype())


def references(file):
    file["b"] = np.ones(3, np.float32)
    file.create_dataset("a", data=[file["b"].ref], dtype=h5py.ref_dtype)


def compound(file):
    file["a"] = np.zeros(3, dtype=[("x", "f4"), ("y", "i4")])


def complex_numbers(file):
    file["a"] = np.ones(3, np.complex64)


def nothing(file):
    file["a"] = h5py.Empty("f4")


def a_type(file):
    file["t"] = np.dtype("f8")


def no_name(file):
    file["layers/n/vars/0"] = np.ones(3, np.float32)
    file["layers/n/vars"].attrs["name"] = np.arange(10)


REFUSED = {
    external_link: r"^/a is a link to another file, and is not followed$",
    soft_link: r"^/g/loop is a link to another place, and is not followed$",
    dangling_link: r"^/a\\x1b\[31m\\n is a link to another place",
    loop: r"^/g/loop is there under another name, too$",
    alias: r"^/b is there under another name, too$",
    deep: r"^its groups are nested more than 20 deep$",
    long_name: r"^it has a name of more than 500 letters, /nnn",
    compressed: r"^/a is compressed, in pieces, empty, or elsewhere; h5repack",
    never_written: r"^/a is compressed, in pieces, empty, or elsewhere",
    elsewhere: r"^/a is compressed, in pieces, empty, or elsewhere",
    virtual: r"^/a is compressed, in pieces, empty, or elsewhere",
    texts: r"^/a is no array of numbers, but of object$",
    references: r"^/a is no array of numbers, but of object$",
    compound: r"^/a is no array of numbers, but of \[\(",
    complex_numbers: r"^/a is no array of numbers, but of complex64$",
    nothing: r"^/a is no array of numbers, but of float32$",
    a_type: r"^/t is neither a group nor an array$",
    no_name: r"^/layers/n/vars has a name that is none$",
}


@pytest.mark.parametrize("fill", REFUSED, ids=lambda fill: fill.__name__)
def test_what_is_no_plain_array_is_refused_by_name(write, fill):
    path = write(fill)
    with pytest.raises(AssertionError, match=REFUSED[fill]):
        raise AssertionError(refusal(path))


def test_too_many_groups_are_refused(write, monkeypatch):
    monkeypatch.setattr(hdf5_outline, "_MOST_OBJECTS", 20)
    assert refusal(write(many)) == "it has more than 20 groups and arrays"


def test_a_damaged_file_is_refused(write, tmp_path):
    path = write(alias)
    path.write_bytes(path.read_bytes()[:900])
    assert refusal(path).startswith("its HDF5 is damaged (")


def outline_of(told):
    return lambda path: {"titles": [], **told}


def test_arrays_that_reach_beyond_the_file_or_share_its_numbers_are_refused(write, monkeypatch):
    path = write(alias)
    length = path.stat().st_size
    for arrays, told in (
        ([[["a"], "<f4", [2**40], 100]], r"/a of shape \(1099511627776,\) does not fit into its \d+ bytes"),
        ([[["a"], "<f4", [1], length - 3]], "does not fit"),
        ([[["a"], "<f4", [1], -4]], "does not fit"),
        ([[[str(k)], "<f4", [length // 8], 0] for k in range(3)], "2 shares numbers with others"),
    ):
        monkeypatch.setattr(hdf5_files, "_outline", outline_of({"arrays": arrays}))
        with pytest.raises(ModelFileError, match=told):
            read_checkpoint_file(path)


def test_layers_without_names_or_with_the_same_one_are_refused(write):
    def unnamed(file):
        file["layers/conv2d/vars/0"] = np.ones(3, np.float32)

    def twice(file):
        for each in "ab":
            file[f"layers/{each}/vars/0"] = np.ones(3, np.float32)
            file[f"layers/{each}/vars"].attrs["name"] = "conv1"

    with pytest.raises(ModelFileError, match="layers/conv2d/vars: Keras has written no names of layers into it"):
        read_checkpoint_file(write(unnamed))
    with pytest.raises(ModelFileError, match="two layers of it are called conv1/kernel"):
        read_checkpoint_file(write(twice))


# With the limits of a small file, that is 0.8 seconds of the processor; here 0.05.
ALARM = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("outline", {hdf5_outline.__file__!r})
outline = importlib.util.module_from_spec(spec)
spec.loader.exec_module(outline)
outline._LEAST_TIME = 0.05
outline._set_limits(0)
while True: pass
"""


def test_where_libhdf5_never_ends_or_dies_the_file_is_refused(write, monkeypatch, tmp_path):
    path = write(alias)
    script = tmp_path / "outline.py"
    monkeypatch.setattr(hdf5_outline, "__file__", str(script))
    monkeypatch.setattr(hdf5_files, "_MOST_SECONDS", 1)
    for text, told in (
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"could not read it to an end \(status -11; no wo"),
        ("while True: pass", r"can't be read in 1 seconds: it is damaged"),
    ):
        script.write_text(text)
        with pytest.raises(ModelFileError, match=told):
            read_checkpoint_file(path)


def test_a_small_file_that_takes_long_is_refused_soon(write, monkeypatch, tmp_path):
    path = write(alias)
    script = tmp_path / "outline.py"
    script.write_text(ALARM)
    monkeypatch.setattr(hdf5_outline, "__file__", str(script))
    with pytest.raises(ModelFileError, match="libhdf5 finds no end in it: it is damaged"):
        read_checkpoint_file(path)


def test_without_h5py_the_extra_is_named(write, monkeypatch):
    path = write(alias)
    monkeypatch.setattr(hdf5_files, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fpn\[keras\]'"):
        read_checkpoint_file(path)
