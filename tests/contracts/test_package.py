"""The sdist and the wheel hold what a user needs, and what is in the wheel works by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling")

ROOT = Path(__file__).parents[2]


def _hatch(folder: Path, output: Path, kind: str) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(output)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = output.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return built


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, the wheel that is made of the sdist alone, and what is in both."""
    folder = tmp_path_factory.mktemp("built")
    with tarfile.open(_hatch(ROOT, folder, "sdist")) as archive:
        archive.extractall(folder / "sdist", filter="data")
    (unpacked,) = (folder / "sdist").iterdir()
    with zipfile.ZipFile(_hatch(unpacked, folder, "wheel")) as archive:
        archive.extractall(folder / "wheel")
    return folder


def _run(built: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`fpn` from the wheel, from a folder in which there is nothing."""
    empty = built / "empty"
    empty.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(built / "wheel"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fpn", *words]
    return subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(built: Path) -> None:
    package = ROOT / "src/fpn"
    here = {
        path.relative_to(package) for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    there = {path.relative_to(built / "wheel/fpn") for path in (built / "wheel/fpn").rglob("*") if path.is_file()}
    assert there == here
    assert {Path("py.typed"), Path("cli/help_pages.json")} <= there
    (about,) = (folder for folder in (built / "wheel").iterdir() if folder.name != "fpn")
    assert (about / "licenses/LICENSE").is_file()


def test_the_sdist_holds_tests_pages_and_licence(built: Path) -> None:
    (unpacked,) = (built / "sdist").iterdir()
    for name in ("LICENSE", "README.md", "CHANGELOG.md", "docs/architecture.md", "tests/contracts/test_package.py"):
        assert (unpacked / name).is_file(), name


def test_the_commands_of_the_wheel_are_its_own(built: Path) -> None:
    done = _run(built, "doctor", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["program"]["fpn"].endswith("wheel/fpn")
    assert "usage" in _run(built, "--help").stdout.lower()


def test_the_smallest_demo_runs_from_the_wheel(built: Path) -> None:
    done = _run(built, "demo", "--tiny", "--scenes", "4")
    assert done.returncode == 0, done.stderr
    assert (built / "empty/fpn-demo/model.safetensors").is_file()


@pytest.mark.skipif("FPN_ALL_PACKAGE" not in os.environ, reason="takes 40 seconds: FPN_ALL_PACKAGE=1 runs it")
def test_a_users_program_is_checked_against_the_wheels_types(built: Path) -> None:
    pytest.importorskip("mypy")
    program = built / "program.py"
    program.write_text(
        "import fpn\n\n"
        "found = fpn.load('model.safetensors').predict(['a.jpg'])[0]\n"
        "best: int = int(found.scores.argmax())\n"
        "wrong: str = found.scores.argmax()\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "MYPYPATH": str(built / "wheel")}
    command = [sys.executable, "-m", "mypy", "--config-file", os.devnull, "--follow-imports", "silent", program.name]
    done = subprocess.run(command, cwd=built, env=environment, capture_output=True, text=True, check=False)
    assert [line for line in done.stdout.splitlines() if "error" in line and program.name in line] == [
        'program.py:5: error: Incompatible types in assignment (expression has type "Tensor", variable has type "str")'
        "  [assignment]"
    ]
