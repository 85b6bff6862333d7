"""Each extra alone, beside the wheel in an empty environment: what it is for works, and without it, it is named."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ROOT.parent / "shared" / "golden" / "names" / "matterport_mrcnn_resnet50_h5.json"
# The suite is what this one is for.
NOT_FOR_USERS = {"dev"}
MODEL, SCENES, IMAGE = "fpn-demo/model.safetensors", "fpn-demo/scenes", "fpn-demo/scenes/images/001.png"
TRAIN = f"fpn train {SCENES} --validation-share 0.25 --short-side 32 --channels 8 --head-width 8 --steps 1 --workers 0"
RANDOM = "--backbone test_efficientnet --weights none"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What an extra is for; a command that does not begin with `fpn` is a program in Python.

    Attributes:
        works: commands that have to end well with the extra.
        leaves: a file or folder, or a pattern of one, that is there then.
        without: a command that needs it, which has to fail without, saying where to get it, and write nothing.
        tells: what `without` writes all the same: an image that can't be read is an error of its own among the results.
    """

    works: tuple[str, ...]
    without: str
    leaves: str = ""
    tells: tuple[str, ...] = ()


HEIF = f"import PIL.Image, pillow_heif; pillow_heif.register_heif_opener(); PIL.Image.open('{IMAGE}').save('a.heic')"
KERAS = f"""
import h5py, json, math, numpy
draw = numpy.random.default_rng(0).standard_normal
with h5py.File("a.h5", "w") as file:
    for group, name, shape in json.load(open({str(NAMES)!r}))["entries"]:
        scale = math.prod(shape[:-1]) ** -0.5 if len(shape) > 1 else 0.0
        still = numpy.full(shape, 0.5 if "gamma" in name or "variance" in name else 0.0, "f4")
        file[f"{{group}}/{{name}}"] = draw(shape, "f4") * numpy.float32(scale) + still * (len(shape) == 1)
"""
FONTS = "import sys; from fpn.fonts import missing_letters; sys.exit(missing_letters(['Żółw', 'Ελιά', 'Ёж']))"
LARGE = """
import numpy, rasterio
pixels = numpy.random.default_rng(0).integers(0, 255, (3, 300, 400)).astype("uint8")
with rasterio.open("a.jp2", "w", driver="JP2OpenJPEG", width=400, height=300, count=3, dtype="uint8") as out:
    out.write(pixels)
"""
FILM = f"""
from fractions import Fraction
from PIL import Image
from fpn.films import FilmWriter
with FilmWriter("a.mp4", rate=Fraction(10)) as writer:
    for number in range(4):
        writer.write(Image.open({IMAGE!r}).convert("RGB"), number / 10)
"""
SERVE = f"""
import re, subprocess, sys, urllib.request
command = [sys.executable, "-m", "fpn", "serve", "shapes={MODEL}", "--port", "0"]
server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
said = ""
for line in server.stdout:
    said += line
    if address := re.search(r"http://127\\.0\\.0\\.1:\\d+", line):
        break
else:
    sys.exit(said)
with open({IMAGE!r}, "rb") as image:
    answer = urllib.request.urlopen(urllib.request.Request(address[0] + "/predict", data=image.read()))
assert answer.status == 200 and b"detections" in answer.read()
assert b"fpn" in urllib.request.urlopen(address[0] + "/metrics").read()
server.terminate()
sys.exit(server.wait())
"""

TRIALS = {
    "offline": Trial(
        works=(f"{TRAIN} --output run --backbone tf_efficientnet_lite0 --weights offline",),
        leaves="run/best.safetensors",
        without=f"{TRAIN} --output other --backbone tf_efficientnet_lite0 --weights offline",
    ),
    "heif": Trial(
        works=(HEIF, f"fpn predict {MODEL} a.heic --output found"),
        leaves="found/a.jpg",
        without=f"fpn predict {MODEL} a.heic --output other",
        tells=("other",),
    ),
    "keras": Trial(
        works=(KERAS, "fpn import a.h5 --output imported.safetensors"),
        leaves="imported.safetensors",
        without="fpn import a.h5 --output other.safetensors",
    ),
    "fonts": Trial(works=(FONTS,), without=FONTS),
    "tensorboard": Trial(
        works=(f"{TRAIN} {RANDOM} --output run --tracker tensorboard",),
        leaves="run/**/events.out.tfevents*",
        without=f"{TRAIN} {RANDOM} --output other --tracker tensorboard",
    ),
    "export": Trial(
        works=(
            f"fpn export {MODEL} --format onnx --output model.onnx",
            f"fpn predict model.onnx {IMAGE} --output found",
        ),
        leaves="found/detections.json",
        without=f"fpn export {MODEL} --format onnx --output other.onnx",
    ),
    "batch": Trial(
        works=(f"fpn batch {MODEL} {SCENES}/images --output rows",),
        leaves="rows/*.parquet",
        without=f"fpn batch {MODEL} {SCENES}/images --output other",
    ),
    "ray": Trial(
        works=(f"fpn batch {MODEL} {SCENES}/images --output rows --engine ray",),
        leaves="rows/*.parquet",
        without=f"fpn batch {MODEL} {SCENES}/images --output other --engine ray",
    ),
    "large": Trial(
        works=(LARGE, f"fpn predict {MODEL} a.jp2 --tiles 256 --output found"),
        leaves="found/detections.json",
        without=f"fpn predict {MODEL} a.jp2 --tiles 256 --output other",
        tells=("other",),
    ),
    "serve": Trial(works=(SERVE,), without=f"fpn serve shapes={MODEL} --port 0"),
    "video": Trial(
        works=(FILM, f"fpn predict {MODEL} a.mp4 --output found"),
        leaves="found/a.jsonl",
        without=f"fpn predict {MODEL} a.mp4 --output other",
    ),
    "track": Trial(
        works=(FILM, f"fpn predict {MODEL} a.mp4 --track --output found"),
        leaves="found/a.jsonl",
        without=f"fpn predict {MODEL} a.mp4 --track --output other",
    ),
    "openvino": Trial(
        works=(
            f"fpn export {MODEL} --format openvino --output model.xml",
            f"fpn predict model.xml {IMAGE} --output found",
        ),
        leaves="found/detections.json",
        without=f"fpn export {MODEL} --format openvino --output other.xml",
    ),
}


def test_every_extra_has_a_trial() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert TRIALS.keys() == extras.keys() - NOT_FOR_USERS


class Environment:
    """An environment of its own, with the wheel and one extra, or none."""

    def __init__(self, folder: Path, wheel: Path, extra: str) -> None:
        self.python = folder / "bin" / "python"
        uv = shutil.which("uv")
        assert uv is not None
        for words in (
            ("venv", "--quiet", "--python", sys.executable, str(folder)),
            ("pip", "install", "--quiet", "--python", str(self.python), f"{wheel}[{extra}]" if extra else str(wheel)),
        ):
            done = subprocess.run([uv, *words], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr

    def run(self, command: str, folder: Path) -> subprocess.CompletedProcess[str]:
        """A command in a folder, as on a machine that has no fonts, no hub, and no variables that lead to this tree."""
        words = ["-m", *shlex.split(command)] if command.startswith("fpn ") else ["-c", command]
        left_out = ("PYTHONPATH", "VIRTUAL_ENV", "PYTEST_CURRENT_TEST")
        environment = {name: value for name, value in os.environ.items() if name not in left_out}
        alone = dict.fromkeys(("HOME", "XDG_DATA_DIRS", "XDG_DATA_HOME"), str(folder))
        alone |= {"HF_HUB_OFFLINE": "1", "PYTHONPYCACHEPREFIX": str(self.python.parents[2] / "compiled")}
        return subprocess.run(
            [str(self.python), *words],
            cwd=folder,
            env=environment | alone,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )


@contextmanager
def environment(folder: Path, wheel: Path, extra: str = "") -> Iterator[Environment]:
    """Removed at the end: it holds PyTorch."""
    try:
        yield Environment(folder, wheel, extra)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Without any extra."""
    with environment(tmp_path_factory.mktemp("bare") / "python", wheel) as alone:
        yield alone


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for one environment after the other, so that what Python compiles in one is of use to the next."""
    return tmp_path_factory.mktemp("alone") / "python"


@pytest.fixture(scope="module")
def demo(bare: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `fpn demo --tiny` leaves: four scenes and a model."""
    folder = tmp_path_factory.mktemp("demo")
    done = bare.run("fpn demo --tiny --scenes 4", folder)
    assert done.returncode == 0, done.stdout
    return folder / "fpn-demo"


@pytest.mark.skipif("FPN_ALL_PACKAGE" not in os.environ, reason="installs packages: FPN_ALL_PACKAGE=1 runs it")
@pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv")
@pytest.mark.parametrize("extra", TRIALS)
def test_an_extra_alone_does_what_it_is_for_and_without_it_it_is_named(
    extra: str, wheel: Path, bare: Environment, demo: Path, place: Path, tmp_path: Path
) -> None:
    if extra == "keras" and not NAMES.is_file():
        pytest.skip("needs ../shared/golden/names, which is not in this checkout")
    folder, trial = tmp_path / "work", TRIALS[extra]
    shutil.copytree(demo, folder / "fpn-demo")
    with environment(place, wheel, extra) as alone:
        for command in trial.works:
            done = alone.run(command, folder)
            assert done.returncode == 0, f"{command}\n{done.stdout}"
        assert not trial.leaves or list(folder.glob(trial.leaves)), f"{command}\n{done.stdout}"
    done = bare.run(trial.without, folder)
    assert done.returncode != 0, f"{trial.without}\n{done.stdout}"
    assert f"pip install 'fpn[{extra}]'" in " ".join(done.stdout.split()), f"{trial.without}\n{done.stdout}"
    assert tuple(path.name for path in folder.glob("other*")) == trial.tells, f"{trial.without}\n{done.stdout}"
