from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from fpn.runtime import health
from fpn.runtime.health import Fact, as_json, examine


@pytest.fixture
def needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """fpn asks for one package, and for another one with an extra."""
    wanted = ["numpy>=1.26", 'no-such-package>=2.1; extra == "wings"', 'mypy>=1; extra == "dev"']
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)


def group(name: str, **folders: Path) -> dict[str, Fact]:
    return {fact.name: fact for fact in examine(folders) if fact.group == name}


@pytest.mark.usefixtures("needs")
def test_packages_and_extras_are_those_that_fpn_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", {"numpy": "1.26.0"}.__getitem__)
    monkeypatch.setattr(health, "_extras", list)
    assert group("packages") == {"numpy": Fact("packages", "numpy", "1.26.0")}


@pytest.mark.usefixtures("needs")
def test_an_extra_that_is_absent_is_no_trouble_and_says_how_to_get_it() -> None:
    [absent] = group("extras").values()
    assert absent == Fact(
        "extras", "wings", "not installed; pip install 'fpn[wings]' brings no-such-package 2.1 or later"
    )


@pytest.mark.usefixtures("needs")
@pytest.mark.parametrize(("version", "old"), [("1.25.9", True), ("1.26", False), ("1.26.0+cpu", False), ("2", False)])
def test_a_package_that_is_too_old_is_told(monkeypatch: pytest.MonkeyPatch, version: str, old: bool) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: version)
    trouble = f"{version} is too old: pip install --upgrade 'numpy>=1.26'" if old else None
    assert group("packages")["numpy"].trouble == trouble


@pytest.mark.usefixtures("needs")
def test_a_package_that_cannot_be_imported_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(health, "import_module", broken)
    assert group("packages")["numpy"].trouble == (
        "can't be imported: OSError: libcudart.so.12: cannot open shared object file"
    )


def test_without_torch_all_that_needs_it_is_told_and_the_rest_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(health, "_packages", list)
    facts = examine({"results": tmp_path})
    torch_needed = [fact.group for fact in facts if fact.trouble and "torch" in fact.trouble]
    assert torch_needed == ["devices", "threads", "folders"]
    assert any(fact.name == "results" and "writable" in fact.value for fact in facts)
    assert any(fact.name == "python" for fact in facts)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    found = group("folders", results=tmp_path, elsewhere=Path("/proc/absent"), later=tmp_path / "not" / "yet")
    assert found["results"].trouble is None
    assert found["elsewhere"].trouble is not None
    assert found["elsewhere"].trouble.startswith("/proc can't be written")
    assert found["later"].value.endswith("not made yet")
    assert list(tmp_path.iterdir()) == []


def test_secrets_and_the_users_name_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abc")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    found = group("variables", mine=Path("/home/ada/runs"))
    assert (found["HF_TOKEN"].value, found["OMP_NUM_THREADS"].value) == ("(set)", "1")
    assert group("folders", mine=Path("/home/ada/runs"))["mine"].value.startswith("~/runs, ")


def test_json_has_values_by_group_and_all_troubles() -> None:
    facts = [Fact("packages", "torch", "2.1", "too old"), Fact("threads", "cores", "2")]
    assert as_json(facts) == {
        "packages": {"torch": "2.1"},
        "threads": {"cores": "2"},
        "troubles": ["torch: too old"],
    }


def test_a_look_that_fails_is_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[Fact]:
        raise RuntimeError("no driver\nat all")

    look: Callable[[], list[Fact]] = fail
    monkeypatch.setattr(health, "_devices", look)
    assert group("devices") == {"devices": Fact("devices", "devices", "can't be looked at", "RuntimeError: no driver")}
