from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

import fpn
from fpn.detectors.model_file import read_header
from fpn.errors import DataNotFoundError, ModelFileError, OutputError


@pytest.fixture
def saved(small, tmp_path, monkeypatch):
    monkeypatch.setattr(small, "training_record", {"epochs": 3})
    return fpn.save(small, tmp_path / "model.safetensors")


def test_a_loaded_detector_answers_as_the_saved_one(small, saved) -> None:
    loaded = fpn.load(saved, device="cpu")
    image = (torch.arange(64 * 96 * 3) % 251).reshape(64, 96, 3).to(torch.uint8).numpy()
    (wanted,), (got,) = small.predict([image]), loaded.predict([image])
    assert torch.equal(wanted.boxes, got.boxes)
    assert torch.equal(wanted.scores, got.scores)
    assert loaded.classes == fpn.Classes(("cell", "platelet"), (7, 3))
    assert loaded.training_record == {"epochs": 3}
    assert loaded.preprocessor == small.preprocessor
    assert not loaded.training


def test_the_file_tells_its_recipe_without_its_weights(saved) -> None:
    header = read_header(saved)
    assert header["recipe"]["backbone"] == "tf_efficientnet_lite0"
    assert header["recipe"]["dialect"]["name"] == "paper"
    assert header["recipe"]["category_ids"] == [7, 3]


def test_a_missing_file_and_a_folder_say_so(tmp_path) -> None:
    with pytest.raises(DataNotFoundError, match="no such model file"):
        fpn.load(tmp_path / "none.safetensors")
    with pytest.raises(ModelFileError, match="is a folder"):
        fpn.load(tmp_path)


def test_a_run_that_was_stopped_before_its_first_model_says_how_to_go_on(tmp_path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(DataNotFoundError, match=f"no such model file. The run in {tmp_path} .* --resume {tmp_path}"):
        fpn.load(tmp_path / "best.safetensors")


@pytest.mark.parametrize("part", [0.0, 0.0001, 0.5, 0.999])
def test_a_file_cut_short_is_damaged(saved, tmp_path, part) -> None:
    content = saved.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ModelFileError, match="damaged"):
        fpn.load(cut)


class _Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemError('executed')",))


@pytest.mark.parametrize("zipped", [False, True])
def test_a_pickle_is_refused_unopened(tmp_path, zipped) -> None:
    path = tmp_path / "model.pth"
    if zipped:
        torch.save({"model": _Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(ModelFileError, match="is a pickle"):
        fpn.load(path)


def test_anothers_weights_are_told_from_ours(tmp_path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"w": torch.zeros(1)}, path)
    with pytest.raises(ModelFileError, match="no fpn recipe"):
        fpn.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header.update(format=99), "newer format"),
        (lambda header: header["recipe"].update(kind="yolo"), "recipe can't be understood"),
        (lambda header: header.pop("recipe"), "recipe can't be understood"),
        (lambda header: header["recipe"]["dialect"]["box"].update(width=8), "do not fit"),
    ],
    ids=["newer", "kind", "none", "width"],
)
def test_a_recipe_that_does_not_hold_is_refused(saved, tmp_path, change, message) -> None:
    header = read_header(saved)
    change(header)
    path = tmp_path / "changed.safetensors"
    save_file(load_file(saved), path, metadata={"fpn": json.dumps(header)})
    with pytest.raises(ModelFileError, match=message):
        fpn.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: weight.long(), r"is of torch.int64, expected torch.float32\. Save the model again"),
        (lambda weight: weight.index_fill(0, torch.tensor([1]), float("nan")), "not finite numbers: it is damaged"),
        (lambda weight: weight.index_fill(0, torch.tensor([0]), float("-inf")), "not finite numbers: it is damaged"),
    ],
    ids=["whole", "nan", "inf"],
)
def test_weights_that_would_find_nothing_without_a_word_are_refused(saved, tmp_path, change, message) -> None:
    state, path = load_file(saved), tmp_path / "changed.safetensors"
    name = next(name for name in state if name.endswith("bias"))
    save_file({**state, name: change(state[name])}, path, metadata={"fpn": json.dumps(read_header(saved))})
    with pytest.raises(ModelFileError, match=f"{name} .*{message}"):
        fpn.load(path)


def test_weights_of_half_precision_and_absurdly_large_ones_are_weights(saved, tmp_path) -> None:
    state, path = load_file(saved), tmp_path / "changed.safetensors"
    name = next(name for name in state if name.endswith("bias"))
    state = {key: value.half() for key, value in state.items()} | {name: torch.full_like(state[name], 3e38)}
    save_file(state, path, metadata={"fpn": json.dumps(read_header(saved))})
    assert torch.equal(fpn.load(path, device="cpu").state_dict()[name], state[name])


def test_what_was_there_survives_a_failed_save(small, tmp_path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError):
        fpn.save(small, tmp_path / "file" / "model.safetensors")
    assert (tmp_path / "file").read_text() == "mine"
