"""What is done with each input: everything that a reader offers, so that nothing is left to break later."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fpn.data import Limits, open_dataset
from fpn.data.checks.inspection import check
from fpn.data.checks.repair import repair
from fpn.data.dataset import Dataset
from fpn.data.formats.open import list_splits, survey_dataset
from fpn.detectors import builder, model_file
from fpn.detectors.recipe import FasterRCNNRecipe
from fpn.errors import FpnError
from fpn.image_io import image_size, read_image
from fpn.interop import hdf5_files, hdf5_outline, import_weights
from fpn.interop.checkpoint_files import read_checkpoint_file
from fpn.interop.class_names import resolve_classes
from fpn.interop.pickle_parts import RefusedFileError
from fpn.interop.proof import compare_stored
from fpn.interop.toolkit_configs import read_toolkit_config
from fpn.structures import Detections
from fuzz.elsewhere import ELSEWHERE
from fuzz.seeds import CUT

Target = Callable[[bytes], None]

# Small limits, so that what would fill a machine with the real ones shows itself here.
LIMITS = Limits(objects_per_image=500, image_pixels=2**20)
_IMAGES = (("a.png", 53, 37), ("c.png", 31, 7))


def coco(folder: Path) -> Target:
    """A json in annotations/; every second input under the name that Roboflow gives its exports."""
    _images(folder / "plain/images")
    _images(folder / "exported/train")
    plain, exported = folder / "plain/annotations/instances.json", folder / "exported/train/_annotations.coco.json"
    plain.parent.mkdir()

    def run(data: bytes) -> None:
        file = exported if len(data) % 2 else plain
        file.write_bytes(data)
        _open_one_way(file.parent.parent, data)

    return run


def voc(folder: Path) -> Target:
    """An XML file beside a sound one, with a list of the split and a list of classes."""
    _images(folder / "JPEGImages")
    sound = "<annotation><object><name>nut</name><bndbox>{}</bndbox></object></annotation>"
    corners = "<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>6</ymax>"
    _write(folder / "Annotations/c.xml", sound.format(corners).encode())
    names = ("Annotations/a.xml", "ImageSets/Main/train.txt", "labels.txt")
    return _several(folder, names, needed=1)


def yolo(folder: Path) -> Target:
    """data.yaml, one label file, a list of images, a list of classes, Darknet's obj.data and Label Studio's notes."""
    _images(folder / "images/train")
    _write(folder / "labels/train/c.txt", b"1 0.5 0.5 0.25 0.5\n")
    return _several(
        folder, ("data.yaml", "labels/train/a.txt", "list.txt", "classes.txt", "obj.data", "notes.json"), needed=0
    )


def images(folder: Path) -> Target:
    """A file that is called an image."""
    file = folder / "a.jpg"

    def run(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(FpnError):
            height, width = image_size(file)
            assert height > 0, "an image has rows"
            assert width > 0, "an image has columns"
        image = read_image(file, max_pixels=LIMITS.image_pixels)
        assert image.mode == "RGB", f"mode {image.mode}"
        assert 0 < image.width * image.height <= LIMITS.image_pixels, f"{image.size}"

    return run


# Of changed recipes that hold, one in so many is built: building takes 50 times longer than all the rest.
BUILT = 20


def models(folder: Path) -> Target:
    """A model file; detectors of the same recipe are built once."""
    file = folder / "model.safetensors"
    made: dict[str, Any] = {}
    build = builder.BUILDERS[FasterRCNNRecipe]

    def remembered(recipe: FasterRCNNRecipe, weights: Any) -> Any:
        key = json.dumps(recipe.to_json(), sort_keys=True)
        if key not in made:
            if made and zlib.crc32(key.encode("utf-8", "surrogatepass")) % BUILT:
                raise FpnError("one of those that are not built")
            detector = build(recipe, weights)
            if made:
                return detector
            made[key] = detector
        return made[key]

    builder.BUILDERS[FasterRCNNRecipe] = remembered

    def run(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(FpnError):
            model_file.read_header(file)
        model_file.load(file, device="cpu")

    return run


def checkpoints(folder: Path) -> Target:
    """A file of weights: read, and offered to every toolkit."""
    file = folder / "model_final.pkl"

    def run(data: bytes) -> None:
        file.write_bytes(data)
        content = read_checkpoint_file(file)
        assert sum(content.skipped.values()) >= 0, "what is left out is counted"
        with suppress(FpnError):
            import_weights(file)

    return run


class _Blind:
    """A detector that finds nothing, at once."""

    def predict(self, images: list[Any]) -> list[Detections]:
        return [Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)) for _ in images]


def results(folder: Path) -> Target:
    """What a toolkit found, an .npz."""
    file = folder / "outputs.npz"

    def run(data: bytes) -> None:
        file.write_bytes(data)
        json.dumps(compare_stored(_Blind(), file).to_json(), allow_nan=False)  # type: ignore[arg-type]

    return run


def hdf5(folder: Path) -> Target:
    """A file of Keras. What libhdf5 does runs in a process of its own, as in use, but begun quickly."""
    file = folder / "weights.h5"
    hdf5_files._outline = _Outlines(folder / "said.json").outline

    def run(data: bytes) -> None:
        file.write_bytes(data)
        content = read_checkpoint_file(file)
        assert sum(content.skipped.values()) >= 0, "what is left out is counted"
        with suppress(FpnError):
            import_weights(content.value)

    return run


class _Outlines:
    """In place of `hdf5_files._outline`: the same limits and answers, of a process that is forked, not begun anew."""

    def __init__(self, said: Path) -> None:
        program, source = Path(__file__).with_name("outlines.py"), Path(hdf5_outline.__file__).parent
        surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join([str(source), *filter(None, sys.path)])}
        command = [sys.executable, "-P", str(program), str(said)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=surroundings, stdin=pipe, stdout=pipe, text=True)

    def outline(self, path: Path) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(path, file=self._process.stdin, flush=True)
        status, seconds, kibibytes, told = json.loads(self._process.stdout.readline())
        ELSEWHERE.add(seconds, kibibytes // 1024)
        if status:
            raise RefusedFileError(f"libhdf5 could not read it to an end (status {status})")
        return told


def settings(folder: Path) -> Target:
    """A yaml and its base, a config that is Python, and a file of names."""
    _write(folder / "Base.yaml", b"MODEL: {ROI_HEADS: {SCORE_THRESH_TEST: 0.05}}\n")
    readers: tuple[tuple[str, Callable[[Path], object]], ...] = (
        ("a.yaml", read_toolkit_config),
        ("a.py", read_toolkit_config),
        ("names.txt", lambda path: resolve_classes(path, 2)),
    )

    def run(data: bytes) -> None:
        parts = data.split(CUT)
        refused: FpnError | None = None
        for (name, read), part in zip(readers, parts, strict=False):
            file = folder / (name if part[:1] not in (b"{", b"[") else "names.json")
            _write(file, part)
            try:
                read(file)
            except FpnError as error:
                refused = error
        if refused is not None:
            raise refused

    return run


def names(folder: Path) -> Target:
    """Names and shapes of weights, as JSON; no weights, no memory."""

    def run(data: bytes) -> None:
        try:
            listed = json.loads(data)
            with torch.device("meta"):
                state = {name: torch.empty(shape) for name, shape in listed.items()}
        except (ValueError, TypeError, AttributeError, RuntimeError, RecursionError, OverflowError):
            raise FpnError("no names and shapes") from None
        with torch.device("meta"):
            import_weights(state)

    return run


TARGETS: Mapping[str, Callable[[Path], Target]] = {
    "coco": coco,
    "voc": voc,
    "yolo": yolo,
    "images": images,
    "models": models,
    "checkpoints": checkpoints,
    "results": results,
    "hdf5": hdf5,
    "settings": settings,
    "names": names,
}


def _open_one_way(root: Path, data: bytes) -> None:
    """Without invalid boxes, strictly, as a check does, or repaired: by the input, as all would take too long."""
    way = zlib.crc32(data) % 16
    if way == 0:
        _repair(root)
    elif way < 4:
        survey_dataset(root, limits=LIMITS)
    elif way < 8:
        open_dataset(root, limits=LIMITS)
    else:
        _read_all(open_dataset(root, drop_invalid=True, limits=LIMITS), root)


def _repair(root: Path) -> None:
    """Check, write the repaired copy, and open each of its splits: it holds nothing that would be refused."""
    report = check(root, limits=LIMITS, workers=1)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        repair(report, copy)
        for split in list_splits(copy):
            try:
                open_dataset(copy, split=split, limits=LIMITS)
            except FpnError as error:
                raise AssertionError(f"the repaired copy is refused: {str(error).replace(folder, '')}") from error


def _read_all(dataset: Dataset, root: Path) -> None:
    for index in range(len(dataset)):
        place = Path(dataset.path(index)).resolve()
        assert place.is_relative_to(root.resolve()), f"{place} is outside of the dataset's folder"
        with suppress(FpnError):
            sample = dataset[index]
            boxes = sample.targets.boxes
            assert bool(boxes.isfinite().all()), "boxes are finite"
            assert bool((boxes >= 0).all()), "boxes are inside"
            assert bool((boxes[:, 2] <= sample.image.width).all()), "boxes are inside"
        with suppress(FpnError):
            dataset.targets(index, masks=True)
    json.dumps(dataset.coco()).encode()
    ", ".join([*dataset.classes, *dataset.dropped]).encode()


def _several(folder: Path, names: tuple[str, ...], *, needed: int) -> Target:
    files = [folder / name for name in names]

    def run(data: bytes) -> None:
        parts = data.split(CUT)
        for number, file in enumerate(files):
            part = parts[number] if number < len(parts) else b""
            if part or number < needed:
                _write(file, part)
            else:
                file.unlink(missing_ok=True)
        _open_one_way(folder, data)

    return run


def _images(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, width, height in _IMAGES:
        Image.new("RGB", (width, height), (90, 120, 150)).save(folder / name)


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
