from __future__ import annotations

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from fpn.data.synthetic.scenes import SceneDataset
from fpn.detectors import faster_rcnn
from fpn.errors import ConfigError, OutputError, TrainingError
from fpn.training import saving, validation
from fpn.training.checkpoint import write_checkpoint
from fpn.training.config import TrainConfig
from fpn.training.interrupt import Terminated
from fpn.training.run import Run
from fpn.training.run_lock import hold
from fpn.training.run_record import read_record
from fpn.training.setup import _compile
from fpn.training.trainer import train

from .tiny import TinyDetector, tiny_detector, tiny_scenes

# Six scenes in batches of two: three steps an epoch.
CONFIG = TrainConfig(
    epochs=3, batch_size=2, workers=0, device="cpu", precision="float32", learning_rate=0.01, log_every=2, seed=1
)


def changed(**settings: object) -> TrainConfig:
    return CONFIG.model_copy(update=settings)


def lines(run, kind="step"):
    every = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timings = ("images_per_second", "seconds")
    return [{k: v for k, v in line.items() if k not in timings} for line in every if line["kind"] == kind]


def equal(one: TinyDetector, other: TinyDetector) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


TAKE_STEP = Run.take_step


def kill_at(monkeypatch, step):
    """Make a run end like by SIGKILL when step number `step` is done, but nothing was written about it yet."""

    def take_and_die(self, group):
        TAKE_STEP(self, group)
        if self.position.step == step:
            raise MemoryError("killed")

    monkeypatch.setattr(Run, "take_step", take_and_die)


def test_training_lowers_the_loss(tmp_path):
    train(tiny_detector(), tiny_scenes(), changed(epochs=12), output=tmp_path / "run", progress=False)
    losses = [line["loss"] for line in lines(tmp_path / "run")]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(optimizer):
    config = changed(optimizer=optimizer)
    one, two, three = tiny_detector(), tiny_detector(), tiny_detector()
    train(one, tiny_scenes(), config, progress=False)
    train(two, tiny_scenes(), config, progress=False)
    train(three, tiny_scenes(), config.model_copy(update={"seed": 2}), progress=False)
    assert equal(one, two)
    assert not equal(one, three)


def test_the_number_of_workers_changes_nothing():
    one, two = tiny_detector(), tiny_detector()
    train(one, tiny_scenes(), CONFIG, progress=False)
    train(two, tiny_scenes(), changed(workers=2), progress=False)
    assert equal(one, two)


def test_a_line_a_log_interval_holds_terms_counts_rate_and_gradient(tmp_path):
    train(tiny_detector(), tiny_scenes(), CONFIG, output=tmp_path / "run", progress=False)
    told = lines(tmp_path / "run")
    assert [(line["step"], line["epoch"]) for line in told] == [(2, 1), (4, 2), (6, 2), (8, 3), (9, 3)]
    assert set(told[0]) == {
        "kind",
        "step",
        "epoch",
        "learning_rate",
        "loss",
        "count",
        "box",
        "objects",
        "gradient_norm",
    }
    assert told[0]["loss"] == pytest.approx(told[0]["count"] + told[0]["box"])
    assert told[0]["learning_rate"] == pytest.approx(
        0.01 * 0.5 * (1 + 0.9396926)
    )  # cosine, step 1 of 9: cos 20 degrees


def test_each_epoch_has_a_line_without_validation_too(tmp_path):
    train(tiny_detector(), tiny_scenes(), CONFIG, output=tmp_path / "run", progress=False)
    expected = [{"kind": "epoch", "step": 3 * epoch, "epoch": epoch} for epoch in (1, 2, 3)]
    assert lines(tmp_path / "run", "epoch") == expected


def test_the_best_weights_are_those_of_the_epoch_with_the_highest_ap(tmp_path, aps):
    aps += [0.2, 0.5, 0.3]
    detector = tiny_detector()
    result = train(detector, tiny_scenes(), CONFIG, validation=tiny_scenes(2), output=tmp_path / "run", progress=False)
    assert (result.best_value, result.best_epoch, result.epochs, result.steps) == (pytest.approx(0.5), 2, 3, 9)
    saved = load_file(result.model)
    assert all(torch.equal(saved[name], tensor) for name, tensor in detector.state_dict().items())
    assert [line["ap"] for line in lines(tmp_path / "run", "epoch")] == [0.2, 0.5, 0.3]


def test_validation_can_be_rarer_but_is_never_left_out_at_the_end(aps):
    aps += [0.2, 0.1]
    config = changed(validate_every=2)
    result = train(tiny_detector(), tiny_scenes(), config, validation=tiny_scenes(2), progress=False)
    assert (result.best_value, result.best_epoch) == (pytest.approx(0.2), 2)


def test_without_validation_the_best_weights_are_the_last_average(tmp_path):
    plain, averaged = tiny_detector(), tiny_detector()
    train(plain, tiny_scenes(), changed(ema_decay=0.0), progress=False)
    result = train(averaged, tiny_scenes(), CONFIG, output=tmp_path / "run", progress=False)
    assert (result.best_value, result.best_epoch) == (None, 3)
    assert not equal(plain, averaged)
    assert torch.equal(load_file(result.model)["head.weight"], averaged.head.weight)


def test_steps_take_the_place_of_epochs():
    result = train(tiny_detector(), tiny_scenes(), changed(steps=4), progress=False)
    assert (result.steps, result.epochs) == (4, 2)


def test_two_batches_of_one_make_the_step_of_one_batch_of_two():
    # Without norms, dropout and padding, which depend on how images are batched.
    one, two = tiny_detector(), tiny_detector()
    for each in (one, two):
        each.features["backbone"] = torch.nn.Conv2d(3, 4, 3, stride=4)
    two.load_state_dict(one.state_dict())
    data = SceneDataset(6, seed=3, height=32, width=32, objects=(1, 3), extent=(8.0, 24.0))
    train(one, data, changed(optimizer="sgd"), progress=False)
    train(two, data, changed(optimizer="sgd", batch_size=1, accumulate=2), progress=False)
    torch.testing.assert_close(one.head.weight, two.head.weight)


def test_a_frozen_part_does_not_move():
    detector, before = tiny_detector(), tiny_detector()
    train(detector, tiny_scenes(), changed(frozen=("features.backbone",)), progress=False)
    assert torch.equal(detector.features["backbone"][0].weight, before.features["backbone"][0].weight)
    assert not torch.equal(detector.head.weight, before.head.weight)


def test_a_loss_that_is_not_finite_names_step_term_and_images_and_spares_the_last_checkpoint(tmp_path):
    run = tmp_path / "run"
    with pytest.raises(TrainingError) as caught:
        train(tiny_detector(spoil_step=5), tiny_scenes(), CONFIG, output=run, progress=False)
    said = str(caught.value)
    assert "step 5: count = nan" in said
    named = [number for number in range(6) if f"scene {number} of seed 3" in said]
    assert len(named) == 2
    # The epoch of steps 1 to 3 was saved, and going on from there gives what an unspoilt run gives.
    again, unspoilt = tiny_detector(), tiny_detector()
    train(again, tiny_scenes(), resume=run, progress=False)
    train(unspoilt, tiny_scenes(), CONFIG, progress=False)
    assert equal(again, unspoilt)


def test_an_output_folder_that_holds_something_is_refused_before_work_starts(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    detector = tiny_detector()
    with pytest.raises(OutputError, match=r"is already there\. Name a new or empty folder; nothing"):
        train(detector, tiny_scenes(), CONFIG, output=tmp_path, progress=False)
    assert detector.calls == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_that_is_being_trained_is_not_trained_by_another(tmp_path):
    train(tiny_detector(), tiny_scenes(), CONFIG, output=tmp_path / "run", progress=False)
    before = (tmp_path / "run" / "run.json").read_bytes()
    with hold(tmp_path / "run"), pytest.raises(OutputError, match="another training is at work there"):
        train(tiny_detector(), tiny_scenes(), resume=tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_an_earlier_run_is_not_overwritten_but_can_be_resumed(tmp_path):
    train(tiny_detector(), tiny_scenes(), CONFIG, output=tmp_path / "run", progress=False)
    with pytest.raises(OutputError, match=r"or go on with the run in it \(--resume"):
        train(tiny_detector(), tiny_scenes(), CONFIG, output=tmp_path / "run", progress=False)


def test_no_images_and_no_objects_are_refused_before_work_starts():
    with pytest.raises(TrainingError, match="has no images, so there is nothing for training"):
        train(tiny_detector(), tiny_scenes().subset([]), CONFIG, progress=False)
    empty = tiny_scenes()
    empty.objects = (0, 0)
    with pytest.raises(TrainingError, match="none of its 6 images has an object that counts"):
        train(tiny_detector(), empty, CONFIG, progress=False)
    with pytest.raises(TrainingError, match="nothing for validation"):
        train(tiny_detector(), tiny_scenes(), CONFIG, validation=empty, progress=False)


def test_a_detector_of_other_classes_is_refused():
    with pytest.raises(ConfigError, match=r"its classes are .*, the detector's are cat, dog"):
        train(TinyDetector(["cat", "dog"]), tiny_scenes(), CONFIG, progress=False)


@pytest.mark.parametrize(("step", "optimizer"), [(1, "adamw"), (3, "adamw"), (4, "sgd"), (5, "adamw"), (9, "adamw")])
def test_a_killed_and_resumed_run_ends_bit_by_bit_like_an_undisturbed_one(tmp_path, monkeypatch, aps, step, optimizer):
    config = changed(optimizer=optimizer, checkpoint_minutes=1e-9)  # after each step
    data = tiny_scenes()
    straight, killed = tiny_detector(), tiny_detector()
    aps += [0.1, 0.3, 0.2]
    train(straight, data, config, validation=data, output=tmp_path / "straight", progress=False)
    kill_at(monkeypatch, step)
    aps += [0.1, 0.3, 0.2][: (step - 1) // 3]
    with pytest.raises(MemoryError):
        train(killed, data, config, validation=data, output=tmp_path / "killed", progress=False)
    kill_at(monkeypatch, None)
    aps += [0.1, 0.3, 0.2][(step - 1) // 3 :]
    resumed = tiny_detector()
    resumed.head.weight.data.zero_()  # everything comes from the checkpoint
    result = train(resumed, data, validation=data, resume=tmp_path / "killed", progress=False)
    assert equal(straight, resumed)
    assert (result.best_value, result.best_epoch) == (pytest.approx(0.3), 2)
    for kind in ("step", "epoch"):
        assert lines(tmp_path / "straight", kind) == lines(tmp_path / "killed", kind)
    newest = "last/step-00000009/state.safetensors"
    ours, theirs = (load_file(tmp_path / name / newest) for name in ("straight", "killed"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_composed_and_repeated_images_are_the_same_for_any_workers_and_after_a_stop(tmp_path, monkeypatch):
    config = changed(
        mosaic=0.5, mix_up=0.5, copy_paste=0.5, jitter=(0.5, 1.5), repeat_rare=1.0, epochs=2, checkpoint_minutes=1e-9
    )  # fmt: skip
    straight, killed, resumed = tiny_detector(), tiny_detector(), tiny_detector()
    done = train(straight, tiny_scenes(), config, output=tmp_path / "straight", progress=False)
    assert done.steps > 6  # of 6 images, some come again
    kill_at(monkeypatch, 5)
    with pytest.raises(MemoryError):
        train(killed, tiny_scenes(), config, output=tmp_path / "killed", progress=False)
    kill_at(monkeypatch, None)
    more = config.model_copy(update={"workers": 1})
    train(resumed, tiny_scenes(), more, resume=tmp_path / "killed", progress=False)
    assert equal(straight, resumed)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_ctrl_c_saves_after_the_step_and_the_run_can_go_on(tmp_path, monkeypatch, number, raised):
    def take_and_press(self, group):
        TAKE_STEP(self, group)
        if self.position.step == 4:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Run, "take_step", take_and_press)
    with pytest.raises(KeyboardInterrupt) as ended:
        train(tiny_detector(), tiny_scenes(), CONFIG, output=tmp_path / "run", progress=False)
    assert ended.type is raised
    kill_at(monkeypatch, None)
    assert (tmp_path / "run/last/step-00000004").is_dir()
    resumed, straight = tiny_detector(), tiny_detector()
    train(resumed, tiny_scenes(), resume=tmp_path / "run", progress=False)
    train(straight, tiny_scenes(), CONFIG, progress=False)
    assert equal(resumed, straight)


def test_ctrl_c_while_validating_leaves_at_once_and_the_epoch_is_validated_anew(tmp_path, monkeypatch, capsys):
    run, find = tmp_path / "run", validation.find_objects

    def press_and_find(*arguments, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return find(*arguments, **options)

    monkeypatch.setattr(validation, "find_objects", press_and_find)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_detector(), tiny_scenes(), CONFIG, validation=tiny_scenes(4), output=run)
    assert f"stopped after step 3; all is saved up to step 3; go on with: fpn train --resume {run}" in (
        capsys.readouterr().err
    )
    assert lines(run, "epoch") == []
    monkeypatch.setattr(validation, "find_objects", find)
    resumed, straight = tiny_detector(), tiny_detector()
    train(resumed, tiny_scenes(), validation=tiny_scenes(4), resume=run, progress=False)
    train(straight, tiny_scenes(), CONFIG, validation=tiny_scenes(4), output=tmp_path / "straight", progress=False)
    assert equal(resumed, straight)
    assert lines(run, "epoch") == lines(tmp_path / "straight", "epoch")


@pytest.mark.skipif(os.name == "nt", reason="needs a limit of the file size")
def test_a_full_disk_stops_the_run_and_the_last_checkpoint_goes_on(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_disk_and_take(self, group):
        if self.position.step == 4:  # no file can grow beyond 500 bytes: the system's own error, as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
        TAKE_STEP(self, group)

    monkeypatch.setattr(Run, "take_step", fill_disk_and_take)
    config = changed(checkpoint_minutes=1e-9, log_every=100)
    try:
        with pytest.raises(OutputError, match=r"writing .*failed.*intact.*--resume"):
            train(tiny_detector(), tiny_scenes(), config, output=tmp_path / "run", progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    kill_at(monkeypatch, None)
    left = sorted(path.name for path in (tmp_path / "run" / "last").iterdir())
    assert left == ["step-00000003", "step-00000004"]
    resumed, straight = tiny_detector(), tiny_detector()
    train(resumed, tiny_scenes(), resume=tmp_path / "run", progress=False)
    train(straight, tiny_scenes(), CONFIG, progress=False)
    assert equal(resumed, straight)


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path, monkeypatch):
    def die(*_, **__):
        raise MemoryError("killed")

    monkeypatch.setattr(saving, "write_checkpoint", die)
    with pytest.raises(MemoryError):
        train(tiny_detector(), tiny_scenes(), CONFIG, output=tmp_path / "run", progress=False)
    monkeypatch.setattr(saving, "write_checkpoint", write_checkpoint)
    resumed, straight = tiny_detector(), tiny_detector()
    train(resumed, tiny_scenes(), resume=tmp_path / "run", progress=False)
    train(straight, tiny_scenes(), CONFIG, progress=False)
    assert equal(resumed, straight)


def test_resuming_a_finished_run_trains_no_further_and_gives_its_best_weights(tmp_path):
    done, again = tiny_detector(), tiny_detector()
    train(done, tiny_scenes(), CONFIG, output=tmp_path / "run", progress=False)
    result = train(again, tiny_scenes(), resume=tmp_path / "run", progress=False)
    assert (again.calls, result.steps) == (0, 9)
    assert equal(done, again)


def test_resuming_refuses_other_data_or_settings_and_names_them_unless_told(tmp_path):
    train(tiny_detector(), tiny_scenes(), changed(steps=2), output=tmp_path / "run", progress=False)
    other = changed(steps=2, learning_rate=0.5, log_every=1)
    with pytest.raises(ConfigError) as caught:
        train(tiny_detector(), tiny_scenes(8), other, resume=tmp_path / "run", progress=False)
    said = str(caught.value)
    assert "config.learning_rate was 0.01, is 0.5" in said
    assert "data.images was 6, is 8" in said
    assert "data.labels was" in said
    assert "log_every" not in said
    train(tiny_detector(), tiny_scenes(8), other, resume=tmp_path / "run", allow_changes=True, progress=False)


def test_an_allowed_change_lasts_through_the_next_resume_and_stands_in_the_record(tmp_path):
    run = tmp_path / "run"
    train(tiny_detector(), tiny_scenes(), changed(steps=2), output=run, progress=False)
    longer = changed(steps=4, learning_rate=0.5)
    train(tiny_detector(), tiny_scenes(), longer, resume=run, allow_changes=True, progress=False)
    result = train(tiny_detector(), tiny_scenes(), resume=run, progress=False)
    assert result.steps == 4
    assert read_record(run)["changes"] == [["config.learning_rate was 0.01, is 0.5", "config.steps was 2, is 4"]]


def test_a_change_deep_in_the_recipe_and_a_file_of_another_size_are_named(tmp_path):
    def image_set(size):
        data = tiny_scenes()
        data.path = lambda index: str(tmp_path / "a.png")
        (tmp_path / "a.png").write_bytes(bytes(size))
        return data

    one, other = tiny_detector(), tiny_detector()
    one.recipe, other.recipe = (
        one.recipe.model_copy(update={"dialect": one.recipe.dialect.changed(pixels={"mean": (mean,) * 3})})
        for mean in (0.5, 0.6)
    )
    train(one, image_set(3), changed(steps=1), output=tmp_path / "run", progress=False)
    with pytest.raises(ConfigError) as caught:
        train(other, image_set(4), resume=tmp_path / "run", progress=False)
    assert "recipe.dialect.pixels.mean was [0.5, 0.5, 0.5], is [0.6, 0.6, 0.6]" in str(caught.value)
    assert "data.file_sizes was" in str(caught.value)
    assert "paper" not in str(caught.value)


def test_two_runs_of_a_whole_detector_with_one_seed_give_the_same_weights():
    def weights():
        torch.manual_seed(0)
        options = {"weights": None, "short_side": 32, "long_side": 64, "channels": 8, "head_width": 16}
        detector = faster_rcnn(classes=tiny_scenes().classes, backbone="test_efficientnet", **options)
        # Other randomness in the process must not matter.
        torch.rand(int(torch.seed() % 7))
        train(detector, tiny_scenes(), changed(epochs=2, scale=(0.8, 1.25), colour=0.3), progress=False)
        return detector.state_dict()

    one, other = weights(), weights()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("wanted", [False, True])
def test_deterministic_algorithms_are_on_while_training_and_as_before_after_it(monkeypatch, wanted):
    seen = []

    def look_and_take(self, group):
        seen.append(torch.are_deterministic_algorithms_enabled())
        TAKE_STEP(self, group)

    monkeypatch.setattr(Run, "take_step", look_and_take)
    train(tiny_detector(), tiny_scenes(), changed(steps=1, deterministic=wanted), progress=False)
    assert (seen, torch.are_deterministic_algorithms_enabled()) == ([wanted], False)


def test_bf16_trains_and_leaves_float32_weights():
    detector = tiny_detector()
    train(detector, tiny_scenes(), changed(precision="bf16"), progress=False)
    assert detector.head.weight.dtype == torch.float32
    assert not equal(detector, tiny_detector())


def test_compile_compiles_the_dense_parts(monkeypatch):
    compiled = []

    def compile_module(self, *_, **__):
        compiled.append(type(self).__name__)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_module)
    monkeypatch.setattr("fpn.training.setup.no_compiler", lambda device: None)
    detector = faster_rcnn(backbone="resnet18", weights=None, classes=["a"], channels=8, head_width=8)
    _compile(detector)
    assert compiled == ["FeatureExtractor", "RPN"]


def test_compile_without_a_compiler_is_refused_before_the_first_step(monkeypatch, tmp_path):
    monkeypatch.setattr("fpn.training.setup.no_compiler", lambda device: "there is no C++ compiler")
    with pytest.raises(ConfigError, match=r"there is no C\+\+ compiler\. Install one"):
        train(tiny_detector(), tiny_scenes(), changed(compile=True), output=tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "last").exists()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="glibc alone has mallopt")
def test_memory_of_a_step_is_kept_for_the_next_unless_somebody_tuned_it(monkeypatch):
    asked = []

    class Library:
        def __init__(self, name):
            assert name is None

        def mallopt(self, option, value):
            asked.append((option, value))

    monkeypatch.setattr("fpn.runtime.memory.ctypes.CDLL", Library)
    for name in list(os.environ):
        if name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")):
            monkeypatch.delenv(name)
    train(tiny_detector(), tiny_scenes(), changed(steps=1), progress=False)
    assert asked == [(-1, 2**31 - 1), (-3, 32 << 20)]
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    train(tiny_detector(), tiny_scenes(), changed(steps=1), progress=False)
    assert len(asked) == 2
