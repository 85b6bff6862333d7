"""Small valid files that every input descends from. Made here, so that they need no data and no network."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

# Separates the files of an input that is several files: plain text, so that a finding can be read.
CUT = b"\n=====\n"


def coco_seeds() -> list[bytes]:
    """Annotation files with boxes, polygons, run-length codes, crowds, as Roboflow exports them, and the least."""
    polygon = [[3.0, 4.0, 20.0, 4.0, 20.0, 30.0, 3.5, 28.0]]
    runs = {"size": [37, 53], "counts": [40, 10, 1911]}
    packed = {"size": [37, 53], "counts": "X1:gj1"}
    records = [
        {"id": 1, "image_id": 100, "category_id": 7, "bbox": [3, 4, 17, 26], "area": 300.5, "segmentation": polygon},
        {"id": 2, "image_id": 100, "category_id": 3, "bbox": [0, 0, 53, 37], "iscrowd": 1, "segmentation": runs},
        {"id": 3, "image_id": 102, "category_id": 11, "bbox": [5.5, 1.5, 9.25, 4.5], "segmentation": packed},
    ]
    images = [
        {"id": 100, "file_name": "a.png", "width": 53, "height": 37},
        {"id": 102, "file_name": "c.png", "width": 31, "height": 7, "license": 1},
    ]
    categories = [{"id": number, "name": name} for number, name in ((3, "bolt"), (7, "nut"), (11, "washer"))]
    whole = {"info": {"year": 2026}, "images": images, "annotations": records, "categories": categories}
    group = [{"id": 0, "name": "things", "supercategory": "none"}]
    exported = {**whole, "categories": [*group, *({**c, "supercategory": "things"} for c in categories)]}
    least: dict[str, Any] = {"images": images[1:], "annotations": [], "categories": categories[:1]}
    unsized = {**whole, "images": [{"id": 100, "file_name": "a.png"}, {"id": 102, "file_name": "c.png"}]}
    points = {"keypoints": [4, 5, 2, 0, 0, 0], "num_keypoints": 1}
    odd = [
        {"id": "x", "image_id": "100", "category_id": 7, "bbox": None, "segmentation": polygon},
        {"id": 2, "image_id": 100, "category_id": -3, "bbox": [], "segmentation": runs},
        {
            "id": 2,
            "image_id": 102,
            "category_id": 11,
            "bbox": [9, 4, -4, -3],
            "attributes": {"rotation": 30.0},
            **points,
        },
    ]
    named = {**categories[2], "keypoints": ["head", "tip"], "skeleton": [[1, 2]]}
    mended = {"images": [*images, {"id": 103, "file_name": "images\\A.PNG"}], "annotations": odd}
    mended["categories"] = [{"id": -3}, categories[1], named]
    return [json.dumps(each).encode() for each in (whole, exported, least, unsized, mended)]


def voc_seeds() -> list[bytes]:
    """XML, list of a split and list of classes; an empty list is none."""
    thing = (
        "<object><name>nut</name><pose>Left</pose><truncated>1</truncated><difficult>0</difficult><bndbox>"
        "<xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>30.5</ymax></bndbox></object>"
    )
    size = "<size><width>53</width><height>37</height><depth>3</depth></size>"
    head = "<annotation><folder>x</folder><filename>a.png</filename>"
    plain = f"{head}{size}{thing}{thing.replace('nut', 'bolt')}</annotation>"
    declared = '<?xml version="1.0" encoding="utf-8"?>\n<!-- by hand -->\n' + plain
    unsized = f"{head}{thing}</annotation>"
    empty = f"{head}{size}</annotation>"
    listed = b"a\nc\n"
    angle = "<attributes><attribute><name>rotation</name><value>30.0</value></attribute></attributes>"
    boxes = (
        "<polygon><x1>3</x1><y1>4</y1><x2>20</x2><y2>4</y2><x3>9</x3><y3>30</y3></polygon>",
        "<polygon><pt><x>3</x><y>4</y></pt><pt><x>20</x><y>4</y></pt><pt><x>9</x><y>30</y></pt></polygon>",
        "<robndbox><cx>20</cx><cy>15</cy><w>9</w><h>5</h><angle>0.7</angle></robndbox>",
        f"{angle}<bndbox><xmin>20</xmin><ymin>30</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>",
    )
    odd = head + "".join(f"<object><name>nut</name>{each}</object>" for each in boxes) + "</annotation>"
    return [
        CUT.join(parts)
        for parts in (
            (plain.encode(), b"", b""),
            (declared.encode(), listed, b""),
            (unsized.encode(), listed, b"bolt\nnut\n"),
            (empty.encode(), b"", b"bolt\nnut\nwasher\n"),
            (odd.encode(), b"a.png\nc 1\n", b""),
        )
    ]


def yolo_seeds() -> list[bytes]:
    """data.yaml, a label file, lists of images and of classes, obj.data, notes.json; an empty one is none."""
    labels = b"1 0.25 0.5 0.3 0.7\n0 0.5 0.5 1 1\n2 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.6\n"
    folder = b"path: .\ntrain: images/train\nnames: [bolt, nut, washer]\n"
    numbered = b"train: images/train\nnc: 3\nnames:\n  0: bolt\n  1: nut\n  2: washer\n"
    listed = b"path: .\ntrain: list.txt\nnames: [bolt, nut, washer]\n"
    pose = b"train: images/train\nkpt_shape: [2, 3]\nflip_idx: [1, 0]\nnames: [bolt, nut, washer]\n"
    posed = b"1 0.5 0.5 0.5 0.5 0.4 0.4 2 0 0 0\n0 0.5 0.5 0.25 0.25 0.5 0.5 1 0.5 0.6 2\n"
    odd = b"1 0.25 0.5 0.3 -0.7\n0 0.5 0.5 1 1 0.9\n2 0.1 0.1 0.5 0.1 0.5 1\n"
    darknet = b"classes = 3\ntrain = data/list.txt\nnames = data/classes.txt\nbackup = backup/\n"
    noted = json.dumps({"categories": [{"id": k, "name": name} for k, name in enumerate(("bolt", "nut", "washer"))]})
    several = b"train: [./list.txt]\nnc: 4\n"
    return [
        CUT.join(parts)
        for parts in (
            (folder, labels, b"", b""),
            (numbered, labels, b"", b""),
            (listed, labels, b"./images/train/a.png\nimages/train/c.png\n", b""),
            (several, labels, b"images/train/a.png\n", b""),
            (b"", labels, b"", b"bolt\nnut\nwasher\n"),
            (b"", labels, b"", b""),
            (pose, posed, b"", b""),
            (folder, odd, b"", b""),
            (b"", labels, b"data/images/train/a.png\n", b"bolt\nnut\nwasher\n", darknet),
            (b"", labels, b"", b"", b"", noted.encode()),
        )
    ]


def image_seeds() -> list[bytes]:
    """Every format and mode that a labelled image comes in, a few hundred bytes each."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    colour = Image.fromarray(noise)
    turned = Image.Exif()
    turned[0x0112] = 6
    turned[0x010E] = "seen from above"
    deep = Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257)
    ways: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (colour, "PNG", {"exif": turned}),
        (colour.convert("P"), "PNG", {"transparency": 3}),
        (colour.convert("RGBA"), "PNG", {}),
        (colour.convert("1"), "PNG", {}),
        (deep, "PNG", {}),
        (colour, "JPEG", {"exif": turned}),
        (colour, "JPEG", {"progressive": True, "quality": 30}),
        (colour.convert("CMYK"), "JPEG", {}),
        (colour.convert("L"), "JPEG", {}),
        (colour.convert("P"), "GIF", {}),
        (colour, "GIF", {"save_all": True, "append_images": [colour.rotate(90, expand=True)]}),
        (colour, "BMP", {}),
        (colour.convert("P"), "BMP", {}),
        (colour, "WEBP", {"lossless": True, "exif": turned}),
        (colour.convert("RGBA"), "WEBP", {}),
        (colour, "TIFF", {"exif": turned}),
        (colour, "TIFF", {"compression": "tiff_lzw"}),
        (colour, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (colour.convert("F"), "TIFF", {}),
        (deep, "TIFF", {}),
        (colour, "PPM", {}),
        (deep, "PPM", {}),
        (colour, "MPO", {"save_all": True, "append_images": [colour]}),
        (colour, "TGA", {}),
        (colour, "EPS", {}),
        (colour, "ICO", {}),
    ]
    return [_saved(*way) for way in ways]


def _saved(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def model_seeds() -> list[bytes]:
    """The smallest detector that there is, another program's weights, and pickles."""
    import pickle
    import tempfile
    from pathlib import Path

    import torch
    from safetensors.torch import save_file

    import fpn

    detector = fpn.faster_rcnn(
        backbone="test_efficientnet", weights=None, classes=["bolt", "nut"], channels=4, head_width=4, short_side=64
    )
    with tempfile.TemporaryDirectory() as folder:
        whole = fpn.save(detector, Path(folder) / "tiny.safetensors").read_bytes()
        save_file({"weight": torch.zeros(2, 3)}, Path(folder) / "other.safetensors")
        other = (Path(folder) / "other.safetensors").read_bytes()
        torch.save({"weight": torch.zeros(2, 3)}, Path(folder) / "model.pth")
        zipped = (Path(folder) / "model.pth").read_bytes()
    # Most inputs shall descend from the detector.
    return [*(whole,) * 9, other, zipped, pickle.dumps({"weight": [1.0, 2.0]})]


def checkpoint_seeds() -> list[bytes]:
    """A few small weights as torch, pickle and safetensors write them, with what toolkits keep beside them."""
    import argparse
    import pickle
    from collections import OrderedDict

    import torch
    from safetensors.torch import save

    base = torch.arange(12.0).reshape(3, 4)
    state = OrderedDict(
        {
            "backbone.conv1.weight": base,
            "turned": base.t(),
            "part": base[1:, 2],
            "half": base.half(),
            "count": torch.tensor(7),
            "none": torch.empty(0, 5),
            "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        }
    )
    meta = {"CLASSES": ("bolt", "nut"), "epoch": 12, "cfg": "model = dict(backbone=dict(depth=50))", "time": 1.5}
    trained = {"meta": meta, "state_dict": state, "optimizer": {"lr": 0.1, "betas": [0.9, 0.999], "none": None}}
    args = argparse.Namespace(lr=0.1, output="runs")
    arrays = {
        "stem.conv1.weight": np.arange(60, dtype=np.float32).reshape(3, 4, 5),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "scalar": np.float64(0.1),
        "large": np.zeros(2000, np.float32),
    }
    model = {"model": arrays, "__author__": "Detectron2 Model Zoo", "matching_heuristics": True}
    two = b"\x80\x02}U\x04res2cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR(I1\n(I2\nt"
    two += b"cnumpy\ndtype\n(U\x02f4I0\nI1\ntR(I3\nU\x01<NNNI-1\nI-1\nI0\ntbI00\nU\x08\0\0\0\0\0\0\x80?tbs."
    return [
        _by_torch(trained),
        _by_torch({"args": args, "model": state}),
        _by_torch(trained, _use_new_zipfile_serialization=False),
        _by_torch({"model": base}, pickle_protocol=4),
        *(pickle.dumps(model, protocol) for protocol in (0, 2, 4, 5)),
        two,
        save({"a": base, "b": torch.ones(2)}),
    ]


def _by_torch(value: Any, **options: Any) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def result_seeds() -> list[bytes]:
    """What a toolkit found, as `fpn import --verify` takes it: plain, packed, and what would fill a memory."""
    chance = np.random.default_rng(0)
    image = chance.integers(0, 256, (9, 13, 3), dtype=np.uint8)
    one = {"image_0": image, "boxes_0": chance.random((2, 4)), "scores_0": np.array([0.9, 0.5], np.float32)}
    whole = {**one, "labels_0": np.array([0, 3]), "image_1": np.asfortranarray(image), "boxes_1": np.zeros((0, 4))}
    whole |= {"scores_1": np.zeros(0, np.float16), "labels_1": np.zeros(0, np.int8)}
    grown = {**whole, "image_1": np.zeros((4000, 10_000, 3), np.uint8)}
    seeds = []
    for arrays, save in ((whole, np.savez), (whole, np.savez_compressed), (grown, np.savez_compressed)):
        buffer = io.BytesIO()
        save(buffer, **arrays)  # type: ignore[operator]
        seeds += [buffer.getvalue()] * (1 if arrays is grown else 4)
    return seeds


def hdf5_seeds() -> list[bytes]:
    """Layers as Keras 2 and 3 write them in both formats of HDF5, and everything that is refused."""
    return [_by_h5py(fill, version) for fill in (_keras_2, _keras_3) for version in ("earliest", "latest")] * 3 + [
        _by_h5py(_odd_hdf5, version) for version in ("earliest", "latest")
    ]


def _by_h5py(fill: Callable[[Any], None], version: str) -> bytes:
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=version) as file:
        fill(file)
    return buffer.getvalue()


def _keras_2(file: Any) -> None:
    file.attrs["layer_names"] = [b"conv1", b"bn_conv1"]
    for name, shape in (("conv1/kernel:0", (3, 3, 2, 4)), ("conv1/bias:0", (4,)), ("bn_conv1/gamma:0", (4,))):
        file[f"{name.partition('/')[0]}/{name}"] = np.ones(shape, np.float32)
    file.create_group("activation_1")


def _keras_3(file: Any) -> None:
    for number, name in enumerate(("conv1", "bn_conv1")):
        file[f"layers/layer_{number}/vars/0"] = np.ones((3, 4), np.float32)
        file[f"layers/layer_{number}/vars"].attrs["name"] = name


def _odd_hdf5(file: Any) -> None:
    import h5py

    file["a/plain"] = np.arange(6, dtype=">f4").reshape(2, 3)
    file["a/again"] = file["a/plain"]
    file["a/loop"] = file["a"]
    file["b/elsewhere"] = h5py.ExternalLink("other.h5", "/x")
    file["b/round"] = h5py.SoftLink("/b/round")
    file.create_dataset("c/packed", (100, 100), "f4", compression="gzip", chunks=(50, 50))
    file.create_dataset("c/outside", (10,), "f4", external=[("/etc/hostname", 0, 40)])
    file.create_dataset("c/texts", data=["x", "yy"], dtype=h5py.string_dtype())
    file["d/type"] = np.dtype("f8")
    file["d/records"] = np.zeros(3, dtype=[("x", "f4"), ("y", "i4")])


def setting_seeds() -> list[bytes]:
    """Detectron2's yaml, MMDetection's config, and names of classes."""
    yaml = (
        b"_BASE_: Base.yaml\nINPUT: {MIN_SIZE_TEST: 640, FORMAT: BGR}\nMODEL:\n  PIXEL_STD: [57.375, 57.12, 58.395]\n"
        b"  ANCHOR_GENERATOR: {SIZES: [[32], [64]], ASPECT_RATIOS: [[0.5, 1.0, 2.0]]}\n"
        b"  RPN: {PRE_NMS_TOPK_TRAIN: 2000, PRE_NMS_TOPK_TEST: 1000}\n  RESNETS: {STRIDE_IN_1X1: false}\n"
        b"  ROI_BOX_HEAD:\n    POOLER_TYPE: ROIAlignV2\n    BBOX_REG_WEIGHTS: !!python/tuple [10, 10, 5, 5]\n"
    )
    code = (
        b"norm = dict(mean=[123.675, 116.28, 103.53], std=[1.0, 1.0, 1.0], to_rgb=False)\n"
        b"model = dict(data_preprocessor=norm, backbone=dict(style='caffe'), rpn_head=dict(anchor_generator=dict("
        b"scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8])), test_cfg=dict(rpn=dict(nms_pre=500, nms_thr=0.6), "
        b"rcnn=dict(score_thr=0.05, max_per_img=100)))\ntest_pipeline = [dict(type='Resize', scale=(1333, 640))]\n"
        b"classes = ('bolt', 'nut')\n"
    )
    listed = json.dumps({"categories": [{"id": 7, "name": "bolt"}, {"id": 3, "name": "nut"}]}).encode()
    return [
        CUT.join(parts) for parts in ((yaml, code, b"bolt\nnut\n"), (yaml, code, listed), (yaml, code, b'["a", "b"]'))
    ]


def name_seeds() -> list[bytes]:
    """Names and shapes of weights, of those toolkits whose lists lie beside the tests."""
    from pathlib import Path

    folder = Path(__file__).resolve().parents[2] / "tests/parity/golden/names"
    seeds = []
    for path in sorted(folder.glob("*.json")):
        entries = json.loads(path.read_text())["entries"]
        pairs = [(each[1], each[2]) if isinstance(each[1], str) else (each[0], each[1]) for each in entries]
        seeds.append(json.dumps(dict(pairs)).encode())
    return seeds


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "coco": coco_seeds,
    "voc": voc_seeds,
    "yolo": yolo_seeds,
    "images": image_seeds,
    "models": model_seeds,
    "checkpoints": checkpoint_seeds,
    "results": result_seeds,
    "hdf5": hdf5_seeds,
    "settings": setting_seeds,
    "names": name_seeds,
}
