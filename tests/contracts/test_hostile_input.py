"""Whatever a file holds, reading it succeeds or says what is wrong; `benchmarks/fuzz` does this at length."""

from __future__ import annotations

import json
import os
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from written_sets import coco_json, save_image, write_coco, write_json, write_text, write_voc, write_yolo

from fpn.cli import main
from fpn.data import Limits, open_dataset
from fpn.detectors import builder, model_file
from fpn.detectors.recipe import FasterRCNNRecipe
from fpn.errors import DataError, DataNotFoundError, FpnError, ImageError, ModelFileError
from fpn.image_io import ImageWarning, read_image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from fuzz.mutations import mutate
from fuzz.seeds import SEEDS
from fuzz.targets import TARGETS, Target

BRIEF = settings(
    max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
READERS = ("coco", "voc", "yolo", "images")


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Target, list[bytes]]]:
    return {name: (TARGETS[name](tmp_path_factory.mktemp(name)), SEEDS[name]()) for name in READERS}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    before = dict(builder.BUILDERS)
    target, seeds = TARGETS["models"](tmp_path_factory.mktemp("models")), SEEDS["models"]()
    target(seeds[0])
    yield target, seeds
    builder.BUILDERS.update(before)


def _either_way(target: Target, data: bytes) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImageWarning)  # a file without its end is used
            target(data)
    except FpnError as error:
        assert 0 < len(str(error).encode()) < 20_000  # noqa: PT017  # printable, and of a length that is read


@pytest.mark.parametrize("name", READERS)
def test_every_seed_is_sound(readers: Any, name: str) -> None:
    target, seeds = readers[name]
    for seed in seeds[:4]:
        target(seed)


@pytest.mark.parametrize("name", READERS)
def test_changed_files_are_read_or_refused(readers: Any, name: str) -> None:
    target, seeds = readers[name]

    @BRIEF
    @given(st.integers(0, 2**32))
    def check(number: int) -> None:
        _either_way(target, mutate(name, seeds, random.Random(number)))

    check()


@pytest.mark.parametrize("name", READERS)
def test_bytes_of_any_kind_are_read_or_refused(readers: Any, name: str) -> None:
    target, _ = readers[name]

    @settings(BRIEF, max_examples=60)
    @given(st.binary(max_size=300))
    def check(data: bytes) -> None:
        _either_way(target, data)

    check()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def test_an_area_of_400_digits_is_no_area(tmp_path: Path) -> None:
    data = coco_json()
    data["annotations"][0]["area"] = 10**400
    write_coco(tmp_path)
    write_json(tmp_path / "annotations/instances.json", data)
    assert open_dataset(tmp_path).coco()["annotations"][0]["area"] == 17 * 26


@BRIEF
@given(st.sampled_from(("images", "annotations", "categories")), st.integers(0, 20), _JSON)
def test_any_value_anywhere_in_a_coco_file_is_read_or_refused(readers: Any, part: str, key: int, value: Any) -> None:
    data = coco_json()
    data[part][0][list(data[part][0])[key % len(data[part][0])]] = value
    _either_way(readers["coco"][0], json.dumps(data).encode())


def test_changed_model_files_are_loaded_or_refused(models: Any) -> None:
    target, seeds = models

    @BRIEF
    @given(st.integers(0, 2**32))
    def check(number: int) -> None:
        _either_way(target, mutate("models", seeds, random.Random(number)))

    check()


# --- names that lead out of the dataset's folder ----------------------------------------------------------------------

OUTSIDE = ("../secret.png", "images/../../secret.png", "/etc/hostname", "..", "a/../../../secret.png", "..\\secret.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset's folder, beside which lies an image that is none of its business."""
    save_image(tmp_path / "secret.png", 53, 37)
    return tmp_path / "data"


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_coco_file_name_stays_inside(root: Path, name: str) -> None:
    write_coco(root)
    data = coco_json()
    data["images"][0]["file_name"] = name
    write_json(root / "annotations/instances.json", data)
    with pytest.raises((DataError, DataNotFoundError), match=r"leads out of|missing|does not exist"):
        open_dataset(root)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_voc_list_and_a_voc_file_name_stay_inside(root: Path, name: str) -> None:
    write_voc(root)
    listed = write_text(root / "ImageSets/Main/train.txt", f"{name}\n")
    with pytest.raises((DataError, DataNotFoundError), match=r"leads out of|missing|there is no"):
        open_dataset(root)
    listed.unlink()
    annotation = root / "Annotations/a.xml"
    annotation.write_text(annotation.read_text().replace("a.png", name))
    (root / "JPEGImages/a.png").unlink()
    with pytest.raises((DataError, DataNotFoundError), match=r"leads out of|does not exist"):
        open_dataset(root)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_yolo_list_a_split_and_a_path_stay_inside(root: Path, name: str) -> None:
    write_yolo(root)
    write_text(root / "list.txt", f"{name}\n")
    for line in ("train: list.txt", f"train: '{name}'", f"path: '{name}'\ntrain: ../secret.png"):
        write_text(root / "data.yaml", f"{line}\nnames: [bolt, nut, washer]\n")
        with pytest.raises(FpnError, match=r"leads out of|does not exist|not exist or is empty"):
            open_dataset(root)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_place_of_a_image_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ImageError, match="not a plain file"):
        read_image(tmp_path / "a.png")


def test_a_format_that_would_start_another_program_is_not_opened(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="not an image of a known format"):
        read_image(tmp_path / "a.jpg")


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(image_pixels=53 * 37 - 1), "a.png: annotated as 53 x 37, more than the limit"),
        (Limits(objects_per_image=1), "more than 1 objects"),
        (Limits(json_bytes=100), "more than the limit of 0 MiB"),
    ],
)
def test_a_limit_that_is_passed_stops_the_reading(tmp_path: Path, limits: Limits, says: str) -> None:
    write_coco(tmp_path)
    assert len(open_dataset(tmp_path)) == 3
    with pytest.raises(DataError, match=says):
        open_dataset(tmp_path, limits=limits)


def test_limits_are_options_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_coco(tmp_path)
    assert main(["check", str(tmp_path), "--max-pixels", "1000"]) == 1
    assert "more than the limit" in " ".join(capsys.readouterr().out.split())
    out = tmp_path / "out"
    for option, value, says in (("--max-objects", "1", "more than 1 objects"), ("--max-pixels", "1000", "53 x 37")):
        assert main(["convert", str(tmp_path), str(out), "--to", "voc", option, value]) == 1
        assert says in " ".join(capsys.readouterr().err.split())


def test_one_size_of_file_is_the_limit_of_all_kinds() -> None:
    limits = Limits.of(max_file_size=3, max_pixels=7, max_objects=5)
    sizes = (limits.json_bytes, limits.text_bytes, limits.xml_bytes, limits.image_bytes)
    assert sizes == (3 * 2**20,) * 4
    assert (limits.image_pixels, limits.objects_per_image) == (7, 5)
    assert Limits.of() == Limits()


def test_limits_of_images_and_masks_hold_when_they_are_read(tmp_path: Path) -> None:
    data = coco_json()
    data["annotations"][0]["segmentation"] = [[3, 4, 20, 4, 20, 30]]
    write_coco(tmp_path)
    write_json(tmp_path / "annotations/instances.json", data)
    with pytest.raises(ImageError, match="MiB, more than the limit"):
        open_dataset(tmp_path, limits=Limits(image_bytes=50))[0]
    # Two objects in 53 x 37 pixels have masks of 3922.
    masks = open_dataset(tmp_path).targets(0, masks=True).masks
    assert masks.dense(max_pixels=3922).shape == (2, 37, 53)
    with pytest.raises(DataError, match="more than the limit"):
        masks.dense(max_pixels=3921)


@pytest.mark.parametrize("name", ["b" * 201, "bo\ud800lt", "bo\x1b[2Jlt"])
def test_a_class_that_cannot_be_printed_is_refused(tmp_path: Path, name: str) -> None:
    data = coco_json()
    data["categories"][0]["name"] = name
    write_coco(tmp_path)
    write_json(tmp_path / "annotations/instances.json", data)
    with pytest.raises(DataError, match="is no class name"):
        open_dataset(tmp_path)


# --- model files ------------------------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.update(backbone="hf-hub:someone/something"), "timm has no such model"),
        (lambda r: r.update(backbone="../weights"), "timm has no such model"),
        (lambda r: r.update(backbone="vit_giant_patch14_dinov2"), "larger detector than it has weights for"),
        (lambda r: r["dialect"]["box"].update(width=10**6), "larger detector than it has weights for"),
        (
            lambda r: r["dialect"]["box"].update(width="wide"),
            "dialect.box.width 'wide': input should be a valid integer",
        ),
        (lambda r: r["dialect"]["neck"].update(channels=10**6), "larger detector than it has weights for"),
        (lambda r: r["dialect"]["anchors"].update(sizes=[[32]]), "anchors.sizes has 1 entries"),
        (lambda r: r["dialect"]["anchors"].update(ratios=[0.0]), "anchors.ratios 0.0: expected more than 0"),
        (lambda r: r["dialect"]["pixels"].update(std=[1, 1, float("nan")]), "pixels.std nan: expected"),
        (lambda r: r["dialect"]["roi"].update(sampler="aling"), "dialect.roi.sampler 'aling': .* Did you mean 'align'"),
        (lambda r: r.update(classes=[]), "classes"),
        (lambda r: r.update(dialect=7), "can't be understood"),
    ],
)
def test_a_recipe_of_anyones_making_is_refused_before_it_costs_anything(
    tmp_path: Path, models: Any, monkeypatch: pytest.MonkeyPatch, change: Change, says: str
) -> None:
    monkeypatch.setitem(builder.BUILDERS, FasterRCNNRecipe, builder.build_two_stage)
    data = models[1][0]
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    inner = json.loads(header["__metadata__"]["fpn"])
    change(inner["recipe"])
    header["__metadata__"]["fpn"] = json.dumps(inner)
    text = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(ModelFileError, match=says):
        model_file.load(path, device="cpu")
    assert torch.nn.Linear(2, 2).weight.shape == (2, 2)  # what counted the weights is gone again
