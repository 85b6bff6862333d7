# ruff: noqa: E501  a row on as few lines as a person can take in
"""Datasets as people have them, by kind of trouble: how each is made, and what has to come of it.

A row's `reads` is what training sees, image -> objects; None: it is refused. `says` are the findings of `fpn check`,
"kind | words of the message"; those of the severity "error" make its exit status 1, and a row that is refused has one.
`fixed` is what training sees of the copy that `fpn check --fix` writes. Nothing is silent: a row that is refused, or is
read otherwise than it is written, says something.

Kinds: 1 orientation, 2 lines with several meanings, 3 what readers discard, 4 data that nobody reads, 5 contradictions,
6 brightness, 7 layouts, 8 paths, 9 what training would stop at, 10 what can be repaired, 11 damaged images, 12 splits,
15 names in any script, 16 messages.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .build import (
    BOTH,
    LINE_A,
    OUTLINE_A,
    YAML,
    A,
    B,
    Objects,
    Step,
    coco,
    copy,
    cut,
    deep,
    draw,
    drop,
    edit,
    flat,
    image,
    move,
    note,
    put,
    rewrite,
    thing,
    voc,
    xml,
    yolo,
)


class Case(NamedTuple):
    kind: int
    name: str
    steps: tuple[Step, ...]
    reads: Objects | None
    says: tuple[str, ...] = ()
    fixed: Objects | None = None
    split: str | None = None


ONLY_A: Objects = {"a": BOTH["a"]}
ONLY_B: Objects = {"b": BOTH["b"]}
A_EMPTY: Objects = {"a": [], "b": BOTH["b"]}
NAMES = "bolt\nnut\n"
YOLO_A = "labels/train/a.txt"
VOC_A = "Annotations/a.xml"
JSON = "annotations/instances.json"
RUNS_OF_A = {"size": [48, 64], "counts": [8 * 48 + 6, *[24, 24] * 31, 24, 24 * 48 + 18]}


def line(text: str) -> Step:
    return put(YOLO_A, text + "\n")


def annotated(text: str) -> Step:
    return put(VOC_A, xml("a.png", text))


def tagged(*tags: tuple[str, float]) -> str:
    return "".join(f"<{tag}>{value:g}</{tag}>" for tag, value in tags)


def floats(path: str) -> Step:
    """A TIFF of 32-bit numbers with one that is none."""

    def step(root: Any) -> None:
        values = np.full((48, 64), 100, dtype=np.float32)
        values[3, 4] = np.nan
        Image.fromarray(values).save(root / path)

    return step


def two_pages(path: str) -> Step:
    def step(root: Any) -> None:
        pages = [Image.new("RGB", (64, 48), grey) for grey in ("red", "blue")]
        pages[0].save(root / path, save_all=True, append_images=pages[1:])

    return step


def roboflow(root: Any) -> None:
    data = json.loads((root / JSON).read_text())
    data["categories"].insert(0, {"id": 0, "name": "parts", "supercategory": "none"})
    for entry in data["categories"][1:]:
        entry["supercategory"] = "parts"
    put("train/_annotations.coco.json", json.dumps(data))(root)
    for name in "ab":
        move(f"images/{name}.png", f"train/{name}.png")(root)
    drop("annotations")(root)
    drop("images")(root)


def other_folders(annotations: str, images: str) -> tuple[Step, ...]:
    return voc, move("Annotations", annotations), move("JPEGImages", images)


def written(*names: str) -> tuple[Step, ...]:
    """COCO whose json calls the images so."""
    return coco, *(image(number, file_name=name) for number, name in enumerate(names))


def darknet(root: Any) -> None:
    for name in "ab":
        move(f"images/train/{name}.png", f"obj_train_data/{name}.png")(root)
        move(f"labels/train/{name}.txt", f"obj_train_data/{name}.txt")(root)
    for path in ("images", "labels", "data.yaml"):
        drop(path)(root)
    put("train.txt", "data/obj_train_data/a.png\ndata/obj_train_data/b.png\n")(root)
    put("obj.names", NAMES)(root)
    put("obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")(root)


CASES = (
    # --- 1 orientation ---
    *(
        Case(1, f"YOLO, turned {turn}, {suffix}", (yolo, drop("images/train/a.png"),
             draw(f"images/train/a.{suffix}", 0, turn=turn)), BOTH, ("exif-unclear | EXIF orientation",))
        for turn, suffix in ((6, "jpg"), (8, "png"), (6, "tif"), (3, "webp"), (8, "webp"))
    ),
    Case(1, "COCO, size as it stands upright", (coco, draw("images/a.png", 0, turn=6)), BOTH),
    Case(1, "COCO, size as it is stored", (coco, draw("images/a.png", 0, turn=6), image(0, width=48, height=64),
         note(0, bbox=[6, 24, 24, 32])), None, ("exif-rotation | a.png: EXIF orientation 6",), BOTH),
    # --- 2 lines with several meanings ---
    Case(2, "an outline of four corners", (yolo, line("0 0.125 0.125 0.625 0.125 0.625 0.625 0.125 0.625")), BOTH),
    Case(2, "a triangle", (yolo, line("0 0.125 0.125 0.625 0.625 0.125 0.625")), BOTH),
    Case(2, "a triangle that ends in a corner of the image", (yolo, line("0 0.5 0.5 1.0 0.25 1.0 1.0")),
         {"a": [("bolt", (32, 12, 64, 48))], "b": BOTH["b"]}),
    Case(2, "keypoints that are declared", (yolo, put("data.yaml", YAML + "kpt_shape: [2, 3]\n"),
         line("0 0.375 0.375 0.5 0.5 0.25 0.25 2 0 0 0")), BOTH),
    Case(2, "keypoints that are not declared", (yolo, line("0 0.375 0.375 0.5 0.5 0.25 0.25 0.5 0.5"),
         put("labels/train/b.txt", "1 0.5 0.5 0.5 0.5 0.4 0.4 0.6 0.6\n")), None,
         ("annotations-unreadable | kpt_shape: [2, 2]",)),
    Case(2, "keypoints of another number than declared", (yolo, put("data.yaml", YAML + "kpt_shape: [2, 3]\n"),
         line("0 0.375 0.375 0.5 0.5 0.25 0.25 2")), None, ("entry-broken | kpt_shape [2, 3] says 10",), A_EMPTY),
    Case(2, "pixels", (yolo, line("0 24 18 32 24")), None, ("box-outside | YOLO boxes are fractions",), A_EMPTY),
    Case(2, "pixels of a box at the corner", (yolo, line("0 2 2 4 4")), None, ("entry-broken | far out of",), A_EMPTY),
    Case(2, "a confidence", (yolo, line("0 0.375 0.375 0.5 0.5 0.93")), None, ("line-scored | 0.93",), BOTH),
    Case(2, "a confidence and a track", (yolo, line("0 0.375 0.375 0.5 0.5 0.93 4")), None,
         ("entry-broken | may be a box with a confidence and a track",), A_EMPTY),
    Case(2, "three numbers", (yolo, line("0 0.375 0.375 0.5")), None, ("entry-broken | 3 numbers after",), A_EMPTY),
    Case(2, "decimal commas", (yolo, line("0 0,375 0,375 0,5 0,5")), None, ("entry-broken | not a number",), A_EMPTY),
    Case(2, "a class between two", (yolo, line("0.5 0.375 0.375 0.5 0.5")), None, ("id-unknown | class 0.5",), A_EMPTY),
    Case(2, "a class that is not listed", (yolo, line("7 0.375 0.375 0.5 0.5")), None, ("id-unknown | 7",), A_EMPTY),
    Case(2, "a class that counts from 1", (yolo, line("1 0.375 0.375 0.5 0.5"), put("labels/train/b.txt", "2 0.5 0.5 0.5 0.5")),
         None, ("id-unknown | b.txt, line 1: class 2",)),
    Case(2, "not a number", (yolo, line("0 nan 0.375 0.5 0.5")), None, ("box-not-finite | a.txt, line 1",), A_EMPTY),
    Case(2, "exponents, tabs, spaces, CRLF and a byte order mark",
         (yolo, put(YOLO_A, "\ufeff\r\n0\t3.75e-1  0.375 5E-1 .5 \r\n\r\n")), BOTH),
    # --- 3 what readers discard ---
    Case(3, "a list whose names end in a digit", (voc, move(VOC_A, "Annotations/img 0.xml"),
         move("JPEGImages/a.png", "JPEGImages/img 0.png"), put("ImageSets/Main/train.txt", "img 0\n")),
         {"img 0": BOTH["a"]}, ("image-unlabelled | b.png", "file-aside | Annotations/b.xml"), split="train"),
    Case(3, "one class's lists beside a split's", (voc, put("ImageSets/Main/train.txt", "a\nb\n"),
         put("ImageSets/Main/bolt_train.txt", "a 1\nb -1\n")), BOTH, ("file-aside | one class's list",), split="train"),
    Case(3, "a comment among labels", (yolo, line(f"# by hand\n{LINE_A}")), None, ("entry-broken | '# by hand'",), BOTH),
    Case(3, "empty lines", (yolo, line(f"\n\n{LINE_A}\n")), BOTH),
    Case(3, "a list with an image twice", (yolo, put("data.yaml", "train: list.txt\nnames: [bolt, nut]\n"),
         put("list.txt", "images/train/a.png\nimages/train/b.png\nimages/train/a.png\n")), None,
         ("image-listed-twice | a.png",), BOTH),
    # --- 4 data that nobody reads ---
    Case(4, "folders with a dot in their name", (yolo, *(move(f"{kind}/train/{name}", f"{kind}/train/2024.05/{name}")
         for kind, name in (("images", "a.png"), ("labels", "a.txt")))), BOTH),
    Case(4, "nested XML", (voc, move(VOC_A, "Annotations/cam1/a.xml"), move("JPEGImages/a.png", "JPEGImages/cam1/a.png"),
         move("Annotations/b.xml", "Annotations/cam2/b.xml")), BOTH),
    Case(4, "labels beside images", (yolo, move(YOLO_A, "images/train/a.txt")), BOTH),
    *(
        Case(4, f"images called .{suffix}", (yolo, drop("images/train/a.png"),
             draw("images/train/a.jpg", 0, quality=95), move("images/train/a.jpg", f"images/train/a.{suffix}")), BOTH)
        for suffix in ("jfif", "JPG", "jpe", "JPEG")
    ),
    Case(4, "images called .TIF", (yolo, drop("images/train/a.png"), draw("images/train/a.tif", 0),
         move("images/train/a.tif", "images/train/a.TIF")), BOTH),
    Case(4, "the labels in a folder of another name", (yolo, move("labels", "label")), {"a": [], "b": []},
         ("objects-none | no image has an object", "file-aside | label/train/a.txt and 1 more: label files")),
    Case(4, "raw files", (coco, put("images/c.NEF", b"raw")), BOTH, ("file-aside | images of a kind (.nef)",)),
    Case(4, "a folder of images in no split", (yolo, draw("more/c.png", 7)), BOTH, ("file-aside | more/c.png",)),
    Case(4, "an image among the others without labels", (voc, draw("JPEGImages/c.png", 7)), BOTH,
         ("image-unlabelled | c.png",)),
    Case(4, "a TIFF of two pages", (yolo, drop("images/train/a.png"), two_pages("images/train/a.tif")), BOTH,
         ("image-part-unread | a.tif",)),
    Case(4, "what predict wrote", (yolo, put("images/train/out/detections.json", '{"info": {"made_by": "fpn predict"}}'),
         draw("images/train/out/a.jpg", 5)), BOTH, ("file-aside | what `fpn predict` wrote",)),
    # --- 5 contradictions ---
    Case(5, "an image listed once for each box", (coco, edit(lambda data: (
         data["images"].append({**data["images"][0], "id": 11}),
         data["annotations"].append({**data["annotations"][0], "id": 3, "image_id": 11, "bbox": [40, 30, 8, 8]})))),
         {"a": [("bolt", A), ("bolt", (40, 30, 48, 38))], "b": BOTH["b"]}, ("image-merged | (ids 5, 11)",)),
    Case(5, "one stem, two images, <filename> decides", (voc, draw("JPEGImages/a.jpg", 8)), BOTH,
         ("image-unlabelled | a.jpg",)),
    Case(5, "one stem, two images, nothing decides", (voc, draw("JPEGImages/a.jpg", 8),
         rewrite(VOC_A, "a.png", "old.bmp")), None,
         ("entry-broken | <filename> says none of them", "image-unlabelled | a.jpg", "image-unlabelled | a.png")),
    Case(5, "a rectangle that CVAT turned by 90 degrees", (coco, note(0, bbox=[12, 2, 24, 32],
         attributes={"rotation": 90.0})), BOTH, ("box-mended | turned by 90 degrees",)),
    Case(5, "another size than the image has", (coco, image(0, width=128, height=96), note(0, bbox=[16, 12, 64, 48])),
         None, ("size-differs | the image is 64 x 48, its annotation says 128 x 96",), BOTH),
    Case(5, "one file in two splits", (voc, put("ImageSets/Main/train.txt", "a\nb\n"),
         put("ImageSets/Main/val.txt", "a\n")), ONLY_A, ("split-overlap | a.png",), split="val"),
    Case(5, "one id for two images", (coco, image(1, id=5)), None,
         ("id-repeated | image id 5 is given twice", "id-unknown | which two images have", "annotations-unreadable | no images")),
    Case(5, "one object labelled twice", (coco, edit(lambda data: data["annotations"].append(
         {**data["annotations"][0], "id": 3}))), {"a": [("bolt", A), ("bolt", A)], "b": BOTH["b"]},
         ("box-repeated | annotation id 3",), BOTH),
    Case(5, "one box of two classes", (coco, edit(lambda data: data["annotations"].append(
         {**data["annotations"][0], "id": 3, "category_id": 7}))), {"a": [("bolt", A), ("nut", A)], "b": BOTH["b"]},
         ("box-contradicted | annotation id 3",)),
    Case(5, "one class spelled in two ways", (voc, rewrite("Annotations/b.xml", "nut", "Bolt")), {"a": [("bolt", A)],
         "b": [("Bolt", B)]}, ("class-spelling | 'Bolt' (1 object) and 'bolt' (1 object)",)),
    # --- 6 brightness ---
    Case(6, "12 bits in files of 16", (yolo, deep("images/train/a.png", 0, 4095)), BOTH, ("image-dark | too dark; pixel_range=(0, 4095) would fit",)),
    Case(6, "grey with transparency", (yolo, drop("images/train/a.png"),
         lambda root: Image.new("LA", (64, 48), (90, 200)).save(root / "images/train/a.png")), BOTH),
    # --- 7 layouts ---
    *(
        Case(7, f"VOC in {annotations}/ and {images}/", other_folders(annotations, images), BOTH)
        for annotations, images in (("annots", "images"), ("xmls", "photos"), ("Annotations", "img"))
    ),
    Case(7, "XML beside the images", (voc, *(move(f"{folder}/{name}.{suffix}", f"{name}.{suffix}") for name in "ab"
         for folder, suffix in (("Annotations", "xml"), ("JPEGImages", "png"))), drop("Annotations"), drop("JPEGImages")), BOTH),
    Case(7, "label files beside images, classes.txt", (yolo, flat, put("classes.txt", NAMES)), BOTH),
    Case(7, "Label Studio's notes.json", (yolo, flat, put("notes.json", json.dumps(
         {"categories": [{"id": 0, "name": "bolt"}, {"id": 1, "name": "nut"}]}))), BOTH),
    Case(7, "no names anywhere", (yolo, flat), {"a": [("0", A)], "b": [("1", B)]}, ("class-unnamed | called 0 to 1",)),
    Case(7, "CVAT's YOLO 1.1", (yolo, darknet), BOTH, ("name-repaired | is taken for obj_train_data/a.png",)),
    Case(7, "a subset whose name is a path", (yolo, darknet, rewrite("obj.data", "train = ", "../out = ")), None,
         ("| '../out' is no name of a split",)),
    Case(7, "Ultralytics, names by number", (yolo, put("data.yaml", "path: .\ntrain: images/train\nnames:\n  0: bolt\n  1: nut\n")),
         BOTH),
    Case(7, "a yaml with a byte order mark", (yolo, put("data.yaml", "\ufeffnames: [bolt, nut]\ntrain: images/train\n")), BOTH),
    Case(7, "two yaml files that say the same", (yolo, copy("data.yaml", "copy.yaml")), BOTH),
    Case(7, "a yaml with fewer names than nc", (yolo, put("data.yaml", YAML + "nc: 3\n")), None, ("| nc is 3",)),
    Case(7, "two yaml files that differ", (yolo, put("other.yaml", "train: images/train\nnames: [nut, bolt]\n")), None,
         ("| several .yaml files",)),
    Case(7, "Roboflow's COCO export", (coco, roboflow), BOTH),
    Case(7, "COCO for keypoints", (coco, move(JSON, "annotations/person_keypoints_default.json")), BOTH),
    Case(7, "a json of another kind", (coco, put(JSON, '{"shapes": [], "version": "5.0"}')), None,
         ("annotations-unreadable | no 'images' list",)),
    # --- 8 paths ---
    *(
        Case(8, f"written as {pattern}", written(pattern.format("a.png"), pattern.format("b.png")), BOTH, said)
        for pattern, said in (
            ("images\\{}", ("name-repaired | is taken for images/a.png",)),
            ("D:\\set\\images\\{}", ("name-repaired | is taken for images/a.png",)),
            ("/home/me/set/images/{}", ("name-repaired | is taken for images/a.png",)),
            ("../images/{}", ()),
            ("http://host/data/images/{}", ("name-repaired | is taken for images/a.png",)),
        )
    ),
    Case(8, "percent signs", (*written("a%201.png"), move("images/a.png", "images/a 1.png")),
         {"a 1": BOTH["a"], "b": BOTH["b"]}, ("name-repaired | 'a%201.png' is taken for images/a 1.png",)),
    Case(8, "an accent in two signs", (*written("\u00e4.png"), move("images/a.png", "images/a\u0308.png")),
         {"a\u0308": BOTH["a"], "b": BOTH["b"]}, ("name-repaired | is taken for images/a",)),
    Case(8, "upper case and another suffix", written("A.JPEG"), BOTH, ("name-repaired | 'A.JPEG' is taken for images/a.png",)),
    Case(8, "out of the folder", written("../../etc/passwd"), None, ("path-outside | leads out of", "image-unlabelled | a.png"), ONLY_B),
    Case(8, "gone", (coco, drop("images/a.png")), None, ("image-missing | images/a.png does not exist",), ONLY_B),
    Case(8, "a missing test split", (yolo, put("data.yaml", YAML + "test: images/test\n")), BOTH,
         ("split-missing | images of split 'test' should be in",), split="train"),
    Case(8, "a missing training split", (yolo, put("data.yaml", "train: images/gone\nval: images/train\nnames: [bolt, nut]\n")),
         BOTH, ("image-missing | images of split 'train' should be in",)),
    # --- 9 what training would stop at ---
    Case(9, "no object at all", (coco, edit(lambda data: data["annotations"].clear())), {"a": [], "b": []},
         ("objects-none | no image has an object",)),
    Case(9, "crowds alone", (coco, note(0, iscrowd=1), note(1, iscrowd=1)), BOTH,
         ("objects-none | all of its 2 objects are crowds",)),
    Case(9, "a negative class id", (coco, note(0, category_id=-3), edit(lambda data: data["categories"][0].update(id=-3))),
         None, ("id-unusable | 'id' of category -3",), BOTH),
    Case(9, "image ids that are texts", (coco, *(image(k, id=f"x{k}") for k in (0, 1)),
         *(note(k, image_id=f"x{k}") for k in (0, 1))), None, ("id-unusable | 'id' of image 'x0'",), BOTH),
    Case(9, "image ids that are texts in the annotations alone", (coco, note(0, image_id="5"), note(1, image_id="9")), None,
         ("id-unusable | 'image_id' of annotation 1 is '5': 5 is taken",), BOTH),
    Case(9, "annotation ids that are texts", (coco, note(0, id="6f9619ff"), note(1, id="b42d")), None,
         ("id-unusable | 'id' of annotation 1 is '6f9619ff'",), BOTH),
    Case(9, "no categories", (coco, edit(lambda data: data["categories"].clear())), None,
         ("annotations-unreadable | 'categories' is empty",)),
    Case(9, "an object of a class that is not listed", (coco, note(0, category_id=4)), None,
         ("id-unknown | category_id 4",), A_EMPTY),
    # --- 10 what can be repaired ---
    Case(10, "no bbox, an outline", (coco, note(0, bbox=None, segmentation=[OUTLINE_A])), BOTH,
         ("box-mended | has no bbox",), BOTH),
    Case(10, "a bbox of zeros, an outline", (coco, note(0, bbox=[0, 0, 0, 0], segmentation=[OUTLINE_A])), BOTH,
         ("box-mended | has bbox [0, 0, 0, 0]",), BOTH),
    Case(10, "no bbox, a run-length code", (coco, note(0, bbox=[], segmentation=RUNS_OF_A)), BOTH,
         ("box-mended | has no bbox",), BOTH),
    Case(10, "no box, a polygon (VOC)", (voc, annotated(thing("bolt", None, "<polygon>" + tagged(
         ("x1", 8), ("y1", 6), ("x2", 40), ("y2", 6), ("x3", 40), ("y3", 30)) + "</polygon>"))), BOTH,
         ("box-mended | has a polygon and no box",), BOTH),
    Case(10, "no box, a polygon of points (VOC)", (voc, annotated(thing("bolt", None, "<polygon>" + "".join(
         f"<pt>{tagged(('x', x), ('y', y))}</pt>" for x, y in ((8, 6), (40, 6), (8, 30))) + "</polygon>"))), BOTH,
         ("box-mended | has a polygon and no box",), BOTH),
    Case(10, "roLabelImg's turned box", (voc, annotated(thing("bolt", None, "<robndbox>" + tagged(
         ("cx", 24), ("cy", 18), ("w", 24), ("h", 32), ("angle", 1.5707963267948966)) + "</robndbox>"))), BOTH,
         ("box-mended | has a turned box and no box",), BOTH),
    Case(10, "corners swapped (VOC)", (voc, annotated(thing("bolt", (40, 30, 8, 6)))), None,
         ("box-reversed | object 1 (bolt) has box (40, 30, 8, 6)",), BOTH),
    Case(10, "a negative width (COCO)", (coco, note(0, bbox=[40, 6, -32, 24])), None, ("box-reversed | id 1",), BOTH),
    Case(10, "a negative height (YOLO)", (yolo, line("0 0.375 0.375 0.5 -0.5")), None, ("box-reversed | line 1",), BOTH),
    Case(10, "over the edge", (voc, annotated(thing("bolt", (8, 6, 90, 30)))), {"a": [("bolt", (8, 6, 64, 30))],
         "b": BOTH["b"]}, ("box-over-edge | object 1",), {"a": [("bolt", (8, 6, 64, 30))], "b": BOTH["b"]}),
    Case(10, "a JPEG called .png", (coco, draw("images/a.png", 0, format="JPEG")), BOTH,
         ("suffix-wrong | is a JPEG file",), BOTH),
    Case(10, "a class without a name", (coco, edit(lambda data: data["categories"][0].pop("name"))), None,
         ("class-broken | category 3 has no name",), {"a": [("class-3", A)], "b": BOTH["b"]}),
    Case(10, "one id for two objects", (coco, note(1, id=1)), None, ("id-repeated | annotation id 1",), BOTH),
    Case(10, "keypoints without names", (coco, edit(lambda data: data["categories"][0].update(keypoints=[1, 2])),
         note(0, keypoints=[9, 9, 2, 0, 0, 0])), None, ("keypoints-broken | 'keypoints' of category 3",), BOTH),
    Case(10, "a size that is no number", (voc, rewrite(VOC_A, "<width>64<", "<width>wide<")), None,
         ("size-unusable | width 'wide'",), BOTH),
    Case(10, "a polygon of seven numbers", (coco, note(0, segmentation=[[*OUTLINE_A[:6], 8]])), BOTH,
         ("outline-broken | a polygon has 7 numbers",), BOTH),
    Case(10, "a box without width", (coco, note(0, bbox=[8, 6, 0, 24])), None, ("box-empty | width 0",), A_EMPTY),
    Case(10, "a box beside the image", (voc, annotated(thing("bolt", (80, 6, 90, 30)))), None, ("box-outside | outside",), A_EMPTY),
    # --- 11 damaged images ---
    Case(11, "a JPEG without its last bytes", (yolo, drop("images/train/a.png"), draw("images/train/a.jpg", 0, quality=95),
         cut("images/train/a.jpg", 0.99)), BOTH, ("image-cut-short | a.jpg",)),
    Case(11, "half of a JPEG", (yolo, drop("images/train/a.png"), draw("images/train/a.jpg", 0), cut("images/train/a.jpg", 0.6)),
         None, ("image-unreadable | a.jpg",), ONLY_B),
    Case(11, "an empty file", (coco, put("images/a.png", b"")), None, ("image-unreadable | the file is empty",), ONLY_B),
    Case(11, "a page of HTML called .png", (coco, put("images/a.png", "<html>404</html>")), None,
         ("image-unreadable | not an image",), ONLY_B),
    # --- 12 splits ---
    Case(12, "valid for val", (yolo, put("data.yaml", "train: images/train\nvalid: images/train\nnames: [bolt, nut]\n")), BOTH),
    Case(12, "a split that is part of another", (voc, put("ImageSets/Main/trainval.txt", "a\nb\n"),
         put("ImageSets/Main/train.txt", "a\n")), ONLY_A, split="train"),
    # --- 15 names in any script ---
    *(
        Case(15, f"{name} in COCO and YOLO", (build, rewrite(file, "bolt", name)), {"a": [(name, A)], "b": BOTH["b"]})
        for build, file, name in ((coco, JSON, "Schäden"), (yolo, "data.yaml", "Трещина"), (voc, VOC_A, "螺栓"))
    ),
    # --- 16 messages ---
    Case(16, "a NaN in a TIFF", (coco, *(image(0, file_name=n) for n in ("a.tif",)), drop("images/a.png"), floats("images/a.tif")),
         None, ("image-unreadable | images/a.tif",), ONLY_B),
    Case(16, "XML in Chinese bytes that says nothing", (voc, put(VOC_A, xml("a.png", thing("螺栓", A)).encode("gb2312"))), None,
         ("annotations-unreadable | Save it again as UTF-8", "image-unlabelled | a.png"), ONLY_B),
    Case(16, "labels in Latin-1", (yolo, put("data.yaml", YAML.replace("bolt", "Schäden").encode("latin-1"))), None,
         ("| Save it again as UTF-8",)),
    Case(16, "half of a json", (coco, cut(JSON, 0.5)), None, ("annotations-unreadable | seems to be cut off",)),
    Case(16, "an empty XML", (voc, put(VOC_A, b"")), None, ("annotations-unreadable | the file is empty", "image-unlabelled | a.png"),
         ONLY_B),
)  # fmt: skip
