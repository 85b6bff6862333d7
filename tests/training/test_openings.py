from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from torchvision.transforms.v2 import functional as transforms

from fpn.data.loading.augmentation.chances import random_for
from fpn.detectors.detector import IMPORTED
from fpn.detectors.model_file import read_header
from fpn.errors import ConfigError, TrainingError
from fpn.structures import Targets
from fpn.studies.explain.origins import origin_table
from fpn.training.config import TrainConfig
from fpn.training.openings import Openings, _refuse_unusable, name_of
from fpn.training.run import Run
from fpn.training.run_record import read_record
from fpn.training.trainer import train

from .tiny import TinyDetector, tiny_detector, tiny_scenes

CONFIG = TrainConfig(
    epochs=2, batch_size=2, workers=0, device="cpu", precision="float32", learning_rate=0.01, log_every=1, seed=1
)


def changed(**settings: object) -> TrainConfig:
    return CONFIG.model_copy(update=settings)


def darken(sample, generator):
    """Random brightness; every second time without the first object."""
    drawn = torch.rand(2, generator=generator).tolist()
    targets = sample.targets[1:] if drawn[1] < 0.5 else sample.targets
    return replace(sample, image=transforms.adjust_brightness(sample.image, 0.5 + drawn[0]), targets=targets)


def trained(config=CONFIG, **options):
    detector = tiny_detector()
    train(detector, tiny_scenes(), config, progress=False, **options)
    return detector.state_dict()


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_augment_gets_each_image_once_an_epoch_with_its_own_generator():
    called = []

    def note(sample, generator):
        called.append((sample.path, torch.rand((), generator=generator).item()))
        return sample

    trained(augment=note)
    numbers = {f"scene {number} of seed 3": number for number in range(6)}
    expected = [
        (f"scene {number} of seed 3", torch.rand((), generator=random_for(1, epoch, number)).item())
        for epoch in (0, 1)
        for number in range(6)
    ]
    first, second = called[:6], called[6:]
    assert sorted(first, key=lambda call: numbers[call[0]]) + sorted(second, key=lambda c: numbers[c[0]]) == expected


def test_augment_takes_the_place_of_the_built_in_changes():
    def leave(sample, generator):
        return sample

    assert equal(trained(augment=leave), trained(changed(flip=0.0)))
    assert not equal(trained(augment=leave), trained())


def test_the_number_of_workers_changes_nothing_with_an_augmentation_from_outside():
    assert equal(trained(augment=darken), trained(changed(workers=2), augment=darken))


def test_an_augmentation_may_change_the_objects_it_gets_without_changing_the_dataset():
    def zero(sample, generator):
        sample.targets.boxes.copy_(torch.tensor([0.0, 0.0, 4.0, 4.0]))
        return sample

    class Kept(type(tiny_scenes())):
        """Gives out its own tensors, as a table of labels does."""

        def __init__(self):
            super().__init__(6, seed=3, height=32, width=(32, 48), objects=(1, 3), extent=(8.0, 24.0))
            self.kept = {number: super(Kept, self).targets(number) for number in range(6)}

        def targets(self, index, *, masks=False):
            return self.kept[index]

    data = Kept()
    before = {number: targets.boxes.clone() for number, targets in data.kept.items()}
    train(tiny_detector(), data, changed(steps=3), augment=zero, progress=False)
    assert all(torch.equal(data.kept[number].boxes, boxes) for number, boxes in before.items())


def boxes_of(*rows):
    return Targets(torch.tensor(rows), torch.zeros(len(rows), dtype=torch.int64))


@pytest.mark.parametrize(
    ("augment", "said"),
    [
        (lambda sample, generator: sample.image, "returned Image, expected a Sample"),
        (lambda sample, generator: None, "returned NoneType, expected a Sample"),
        (
            lambda sample, generator: replace(sample, targets=boxes_of([1.0, 1, 2, 2], [5.0, 5, 5, 9])),
            r"returned the box \[5\.0, 5\.0, 5\.0, 9\.0\], expected x1 < x2",
        ),
        (lambda sample, generator: replace(sample, targets=boxes_of([0.0, 0, 1, float("inf")])), "returned the box"),
    ],
)
def test_what_an_augmentation_must_not_return_is_refused_with_the_image(augment, said):
    with pytest.raises(TrainingError, match=rf"scene \d of seed 3: augment .*{said}"):
        trained(augment=augment)


def test_an_augmentation_that_workers_can_not_get_is_refused_before_work_starts(tmp_path):
    detector = tiny_detector()
    with pytest.raises(ConfigError, match=r"augment .*<lambda>: can't be sent .* or read without them: workers=0"):
        train(
            detector,
            tiny_scenes(),
            changed(workers=1),
            augment=lambda sample, generator: sample,
            output=tmp_path / "run",
            progress=False,
        )
    assert (detector.calls, (tmp_path / "run").exists()) == (0, False)


def test_settings_that_would_do_nothing_are_refused():
    with pytest.raises(ConfigError, match=r"colour=0\.5: would do nothing beside augment=.*darken"):
        trained(changed(colour=0.5), augment=darken)
    with pytest.raises(ConfigError, match=r"optimizer='sgd', momentum=0\.5: would do nothing beside optimizer="):
        trained(changed(optimizer="sgd", momentum=0.5), optimizer=torch.optim.RAdam)


def test_what_can_not_be_called_is_refused():
    with pytest.raises(ConfigError, match="optimizer 'adam': expected something to call, got a str"):
        _refuse_unusable("optimizer", "adam", (), CONFIG)


def test_names_say_what_is_called_in_the_end():
    openings = Openings(augment=functools.partial(darken), optimizer=torch.optim.RAdam)
    assert openings.describe() == {"augment": f"{__name__}.darken", "optimizer": "torch.optim.radam.RAdam"}
    assert name_of(torch.nn.ReLU()) == "torch.nn.modules.activation.ReLU"


def test_a_run_is_not_resumed_without_the_augmentation_it_began_with(tmp_path):
    trained(changed(steps=1), augment=darken, output=tmp_path / "run")
    assert read_record(tmp_path / "run")["outside"] == {"augment": f"{__name__}.darken", "optimizer": None}
    with pytest.raises(ConfigError, match=r"outside\.augment was '.*darken', is None"):
        train(tiny_detector(), tiny_scenes(), resume=tmp_path / "run", progress=False)


def test_a_factory_gets_the_groups_and_its_optimizer_takes_the_steps():
    seen, made = [], []

    def factory(groups):
        seen.extend((sorted(group["names"]), group.get("weight_decay"), group["multiplier"]) for group in groups)
        made.append(torch.optim.Adagrad(groups, lr=0.5, weight_decay=0.25))
        return made[0]

    trained(changed(learning_rate=None, steps=2, warmup_steps=1, backbone_multiplier=0.5), optimizer=factory)
    assert seen == [
        (["features.backbone.0.weight"], None, 0.5),
        (["features.backbone.0.bias", "features.backbone.1.bias", "features.backbone.1.weight"], 0.0, 0.5),
        (["head.weight"], None, 1.0),
        (["head.bias"], 0.0, 1.0),
    ]
    groups = made[0].param_groups
    assert [group["weight_decay"] for group in groups] == [0.25, 0.0, 0.25, 0.0]
    # The peak is the optimizer's own rate; step 2 of 2 is the first after one of warm-up, at the top of the cosine.
    assert [group["lr"] for group in groups] == [0.25, 0.25, 0.5, 0.5]
    assert made[0].state[groups[2]["params"][0]]["step"].item() == 2


def test_rate_and_decay_of_the_configuration_win_over_the_optimizers_own():
    made = []

    def factory(groups):
        made.append(torch.optim.Adagrad(groups, lr=0.5, weight_decay=0.25))
        return made[0]

    trained(changed(steps=1, weight_decay=0.125, schedule="constant", warmup_steps=0), optimizer=factory)
    assert {group["lr"] for group in made[0].param_groups} == {0.01}
    assert sorted(group["weight_decay"] for group in made[0].param_groups) == [0.0, 0.0, 0.125, 0.125]


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (lambda groups: None, "the factory made a NoneType"),
        (lambda groups: torch.optim.SGD(groups[0]["params"], lr=0.1), "pass the groups on as they are"),
        (lambda groups: torch.optim.SGD(groups[:-1], lr=0.1), "left out 1 weights, such as head.bias"),
    ],
)
def test_a_factory_that_does_not_pass_all_groups_on_is_refused(factory, said):
    with pytest.raises(ConfigError, match=said):
        trained(optimizer=factory)


TAKE_STEP = Run.take_step


@pytest.mark.parametrize("factory", [torch.optim.RAdam, torch.optim.Adafactor, torch.optim.Adagrad, torch.optim.NAdam])
def test_with_augmentation_and_optimizer_from_outside_a_killed_run_ends_bit_by_bit_like_an_undisturbed_one(
    tmp_path, monkeypatch, factory
):
    given = {"augment": darken, "optimizer": factory}
    straight = trained(**given)

    def take_and_die(self, group):
        TAKE_STEP(self, group)
        if self.position.step == 5:
            raise MemoryError("killed")

    monkeypatch.setattr(Run, "take_step", take_and_die)
    with pytest.raises(MemoryError):
        trained(changed(checkpoint_minutes=1e-9), output=tmp_path / "run", **given)
    monkeypatch.setattr(Run, "take_step", TAKE_STEP)
    assert (tmp_path / "run/last/step-00000004").is_dir()
    resumed = tiny_detector()
    train(resumed, tiny_scenes(), resume=tmp_path / "run", progress=False, **given)
    assert equal(straight, resumed.state_dict())


def test_another_optimizer_can_not_go_on_even_if_changes_are_allowed(tmp_path):
    trained(changed(steps=1), optimizer=torch.optim.RAdam, output=tmp_path / "run")
    with pytest.raises(
        ConfigError,
        match=r"has the state of torch\.optim\.radam\.RAdam, this run's optimizer is torch\.optim\.nadam\.NAdam",
    ):
        train(
            tiny_detector(),
            tiny_scenes(),
            resume=tmp_path / "run",
            optimizer=torch.optim.NAdam,
            allow_changes=True,
            progress=False,
        )


class Listing(torch.optim.SGD):
    """Keeps a list for each weight."""

    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                self.state[weight]["history"] = [1]
        return super().step(closure)


def test_a_state_that_no_checkpoint_can_hold_is_refused_after_the_first_step(tmp_path):
    detector = tiny_detector()
    with pytest.raises(ConfigError, match=r"Listing: keeps a list named 'history' for each weight"):
        train(detector, tiny_scenes(), CONFIG, optimizer=Listing, output=tmp_path / "run", progress=False)
    assert detector.calls == 1
    trained(optimizer=Listing)  # without a folder nothing has to be kept


def test_a_run_that_begins_with_another_detector_is_that_detectors_run(tmp_path):
    torch.manual_seed(5)
    other = TinyDetector(tiny_scenes().classes)
    begun = trained(init=other, output=tmp_path / "run")
    train(other, tiny_scenes(), CONFIG, progress=False)
    assert equal(begun, other.state_dict())
    assert not equal(begun, trained())
    noted = read_record(tmp_path / "run")["notes"]["init"]
    assert (noted["model"], noted["fresh"], noted["left"]) == ("a TinyDetector", [], [])


def stop_after_three_steps(monkeypatch):
    take_step = Run.take_step

    def stop(self, group):
        if self.position.step == 3:
            raise MemoryError
        take_step(self, group)

    monkeypatch.setattr(Run, "take_step", stop)


def test_a_run_that_goes_on_has_its_own_weights_whatever_it_began_with(tmp_path, monkeypatch):
    torch.manual_seed(5)
    other = TinyDetector(tiny_scenes().classes)
    undisturbed = trained(init=other)
    stop_after_three_steps(monkeypatch)
    with pytest.raises(MemoryError):
        trained(init=other, output=tmp_path / "run")
    monkeypatch.undo()
    assert equal(trained(resume=tmp_path / "run"), undisturbed)


def test_where_imported_weights_came_from_survives_training_and_resuming(tmp_path, monkeypatch):
    torch.manual_seed(5)
    other = TinyDetector(tiny_scenes().classes)
    other.training_record = {IMPORTED: {"from": "a.pth", "toolkit": "torchvision", "proofs": []}, "step": 99}
    stop_after_three_steps(monkeypatch)
    run = tmp_path / "run"
    with pytest.raises(MemoryError):
        trained(init=other, output=run)
    assert read_record(run)[IMPORTED] == other.training_record[IMPORTED]
    monkeypatch.undo()
    # The detector is a new one, which knows of no origin, and the record is written anew.
    trained(changed(learning_rate=0.02), resume=run, allow_changes=True)
    assert len(read_record(run)["changes"]) == 1
    assert read_record(run)[IMPORTED] == other.training_record[IMPORTED]
    record = read_header(next(run.glob("*.safetensors")))["training"]
    assert (record[IMPORTED]["from"], record["step"]) == ("a.pth", 6)
    told = dict(origin_table(next(run.glob("*.safetensors"))).rows)
    assert told["toolkit"] == "torchvision"
    assert told["since then"] == "trained here, 6 steps on scenes-3"


def test_classes_that_differ_are_refused_with_what_makes_them_agree():
    with pytest.raises(ConfigError, match=r"begin with this one: fpn\.begin_with\(detector, classes="):
        train(TinyDetector(["a"]), tiny_scenes(), CONFIG, progress=False)
