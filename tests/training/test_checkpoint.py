from __future__ import annotations

import subprocess

import pytest
import torch

from fpn.errors import DataNotFoundError, ModelFileError, OutputError
from fpn.training import checkpoint
from fpn.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from fpn.training.metrics_log import MetricsLog
from fpn.training.run_record import begun_before_restart, claim_output, clear_left_overs, read_record


def at_step(step: int) -> Checkpoint:
    return Checkpoint({"weight": torch.full((2, 2), float(step)), "count": torch.tensor(step)}, {"step": step})


def test_the_newest_two_checkpoints_are_kept_and_the_newest_comes_back(tmp_path):
    for step in (1, 2, 10):
        write_checkpoint(tmp_path, at_step(step))
    assert sorted(path.name for path in (tmp_path / "last").iterdir()) == ["step-00000002", "step-00000010"]
    back = read_checkpoint(tmp_path)
    assert back.progress == {"step": 10}
    assert back.tensors["weight"].tolist() == [[10, 10], [10, 10]]
    assert back.tensors["count"].tolist() == 10


@pytest.mark.parametrize("name", ["state.safetensors", "progress.json", "checksums.txt"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(tmp_path, name):
    write_checkpoint(tmp_path, at_step(1))
    damaged = write_checkpoint(tmp_path, at_step(2)) / name
    damaged.write_bytes(damaged.read_bytes()[:-1])
    # checksums.txt without its last line feed still holds
    assert read_checkpoint(tmp_path).progress["step"] == (2 if name == "checksums.txt" else 1)


def test_one_turned_bit_is_noticed(tmp_path):
    write_checkpoint(tmp_path, at_step(1))
    path = write_checkpoint(tmp_path, at_step(2)) / "state.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert read_checkpoint(tmp_path).progress["step"] == 1


def test_what_was_left_half_written_is_no_checkpoint_and_is_cleared_by_the_next(tmp_path):
    (tmp_path / "last/.writing-step-00000003").mkdir(parents=True)
    assert read_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path, at_step(4))
    assert [path.name for path in (tmp_path / "last").iterdir()] == ["step-00000004"]


def test_when_all_are_damaged_it_says_so(tmp_path):
    (write_checkpoint(tmp_path, at_step(1)) / "checksums.txt").unlink()
    with pytest.raises(ModelFileError, match="all 1 checkpoints are damaged"):
        read_checkpoint(tmp_path)


def test_a_full_disk_spares_the_checkpoint_before(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, at_step(1))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OutputError, match=r"No space left on device.*The checkpoint before it is intact.*--resume"):
        write_checkpoint(tmp_path, at_step(2))
    assert [path.name for path in (tmp_path / "last").iterdir()] == ["step-00000001"]
    assert read_checkpoint(tmp_path).progress["step"] == 1


def test_damaged_newer_ones_do_not_push_whole_ones_out(tmp_path):
    for step in (1, 2, 3):
        (write_checkpoint(tmp_path, at_step(step)) / "progress.json").write_text(
            "damaged" if step > 1 else '{"step": 1}'
        )
    write_checkpoint(tmp_path, at_step(1))  # the run goes on from the beginning
    assert [path.name for path in (tmp_path / "last").iterdir()] == ["step-00000001"]


def test_a_folder_where_a_run_was_killed_at_its_very_beginning_can_be_taken(tmp_path):
    (tmp_path / ".run-abc.json").write_text('{"half": ')
    claim_output(tmp_path, {"fpn": "0"})
    assert read_record(tmp_path) == {"fpn": "0"}
    clear_left_overs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_restart_by_torchrun_goes_on_with_the_run_that_is_there(tmp_path, monkeypatch):
    claim_output(tmp_path / "run", {"fpn": "0"})
    assert begun_before_restart(tmp_path / "run") is None
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert begun_before_restart(tmp_path / "run") is None
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert begun_before_restart(tmp_path / "run") == tmp_path / "run"
    assert begun_before_restart(tmp_path / "other") is None


def test_a_run_of_the_same_job_is_gone_on_with_where_this_machine_counts_no_restart(tmp_path, monkeypatch):
    claim_output(tmp_path / "run", {"job": "cells-1"})
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "cells-2")
    assert begun_before_restart(tmp_path / "run") is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "cells-1")
    assert begun_before_restart(tmp_path / "run") == tmp_path / "run"


def test_sha256sum_can_check_it(tmp_path):
    folder = write_checkpoint(tmp_path, at_step(1))
    checked = subprocess.run(["sha256sum", "-c", "checksums.txt"], cwd=folder, capture_output=True, text=True)
    assert checked.stdout == "state.safetensors: OK\nprogress.json: OK\n"


def test_a_folder_without_a_run_can_not_be_resumed(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"run\.json: no run to resume there"):
        read_record(tmp_path)


def test_the_metrics_log_is_cut_to_its_length_at_the_checkpoint(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write({"step": 1})
    length = log.length()
    log.write({"step": 2})
    log.cut(length)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'
