from __future__ import annotations

import copy
import queue
from pathlib import Path
from typing import Any

import pytest

from fpn.errors import ConfigError, DataNotFoundError, MissingExtraError, ModelFileError
from fpn.serving import extra, models
from fpn.serving.models import ServedModel, ServedModels, name_models


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    for name in ("a.safetensors", "runs/a.safetensors", "my model.onnx", "b=c.onnx"):
        (tmp_path / name).write_text("1")
    return tmp_path


class TestNames:
    def test_a_file_is_called_by_its_stem_or_as_it_was_said(self, files: Path) -> None:
        named = name_models([f"{files}/a.safetensors", f"other={files}/runs/a.safetensors"])
        assert named == {"a": files / "a.safetensors", "other": files / "runs/a.safetensors"}

    def test_a_file_whose_name_has_an_equals_sign_is_found(self, files: Path) -> None:
        assert name_models([f"x={files}/b=c.onnx"]) == {"x": files / "b=c.onnx"}
        with pytest.raises(ConfigError, match="can't be a model's name"):
            name_models([f"{files}/b=c.onnx"])

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ([], "no model was named"),
            (["a.safetensors", "runs/a.safetensors"], "both called 'a': give names, such as first="),
            (["my model.onnx"], "'my model' can't be a model's name"),
        ],
    )
    def test_what_cannot_be_named_is_told_with_the_remedy(self, files: Path, given: list[str], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            name_models([str(files / each) for each in given])

    def test_a_file_that_is_not_there_is_told(self) -> None:
        with pytest.raises(DataNotFoundError, match=r"nothing\.onnx: no such model file"):
            name_models(["x=nothing.onnx"])


class Loader:
    """Loads a file as one of some detectors, by the text in it; "broken" can't be loaded."""

    def __init__(self, loaded: Any) -> None:
        self.by_text = {text: copy.copy(loaded) for text in ("old", "newer", "mended")}

    def __call__(self, path: Path) -> Any:
        if path.read_text() == "broken":
            raise ModelFileError(f"{path}: damaged")
        return self.by_text[path.read_text()]

    def text(self, model: ServedModel) -> str:
        return next(text for text, each in self.by_text.items() if each is model.now.predictor)


@pytest.fixture
def load(loaded: Any) -> Loader:
    return Loader(loaded)


class TestAFileThatChanges:
    def test_it_is_loaded_once_it_rests(self, tmp_path: Path, load: Loader) -> None:
        path = tmp_path / "m.safetensors"
        path.write_text("old")
        model = ServedModel("m", path, load)
        assert (model.look(), load.text(model), model.now.number) == ("same", "old", 1)
        path.write_text("newer")
        assert [model.look(), model.look(), model.look()] == ["same", "reloaded", "same"]
        assert (load.text(model), model.now.number) == ("newer", 2)

    def test_a_broken_one_leaves_the_old_model_and_says_so_until_it_is_mended(
        self, tmp_path: Path, load: Loader
    ) -> None:
        path = tmp_path / "m.safetensors"
        path.write_text("old")
        model = ServedModel("m", path, load)
        path.write_text("broken")
        assert [model.look(), model.look(), model.look()] == ["same", "failed", "same"]
        assert load.text(model) == "old"
        assert model.fault == "m.safetensors: damaged"
        path.write_text("mended")
        assert [model.look(), model.look()] == ["same", "reloaded"]
        assert (load.text(model), model.fault) == ("mended", None)

    def test_one_that_is_gone_leaves_the_old_model(self, tmp_path: Path, load: Loader) -> None:
        path = tmp_path / "m.safetensors"
        path.write_text("old")
        model = ServedModel("m", path, load)
        path.unlink()
        assert [model.look(), model.look()] == ["same", "failed"]
        assert model.fault is not None
        assert "is gone" in model.fault
        assert load.text(model) == "old"

    def test_weights_beside_a_graph_count_too(self, tmp_path: Path, load: Loader) -> None:
        (tmp_path / "m.xml").write_text("old")
        (tmp_path / "m.bin").write_text("weights")
        model = ServedModel("m", tmp_path / "m.xml", load)
        (tmp_path / "m.bin").write_text("other weights")
        assert [model.look(), model.look()] == ["same", "reloaded"]

    def test_the_first_one_is_meant_where_none_is_named(self, tmp_path: Path, load: Loader) -> None:
        for name in ("b", "a"):
            (tmp_path / name).write_text("old")
        models = ServedModels([ServedModel(name, tmp_path / name, load) for name in ("b", "a")])
        assert (models.first.name, list(models), len(models)) == ("b", ["b", "a"], 2)

    def test_files_are_looked_at_while_the_server_runs(
        self, tmp_path: Path, load: Loader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(models, "_EVERY", 0.001)
        path = tmp_path / "m.safetensors"
        path.write_text("old")
        served = ServedModels([ServedModel("m", path, load)])
        told: queue.Queue[tuple[str, str]] = queue.Queue()
        served.changed = lambda name, outcome: told.put((name, outcome))
        served.start()
        path.write_text("newer")
        assert told.get(timeout=60) == ("m", "reloaded")
        path.write_text("broken")
        assert told.get(timeout=60) == ("m", "failed")
        served.close()
        assert load.text(served.first) == "newer"


def test_a_package_that_is_missing_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra, "find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(MissingExtraError, match=r"uvicorn not installed\): pip install 'fpn\[serve\]'"):
        extra.check_extra()
