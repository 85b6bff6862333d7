from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from fpn import Callback
from fpn.errors import ConfigError, TrainingError
from fpn.training.callbacks import refuse_other_than_callbacks
from fpn.training.config import TrainConfig
from fpn.training.trainer import train

from .tiny import tiny_detector, tiny_scenes

# Six scenes in batches of two: three steps an epoch, six in all.
CONFIG = TrainConfig(
    epochs=2, batch_size=2, workers=0, device="cpu", precision="float32", learning_rate=0.01, log_every=1, seed=1
)


class Listener(Callback):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.heard = []
        self.views = []

    def begin(self, view):
        self._hear("begin", view)

    def step(self, view):
        self._hear("step", view)

    def epoch(self, view):
        self._hear("epoch", view)

    def end(self, view):
        self._hear("end", view)

    def _hear(self, event, view):
        self.heard.append((event, view.step, view.epoch))
        self.views.append(view)


class Meddler(Callback):
    """Does something with the detector after step 4, or at another event."""

    def __init__(self, meddle, event="step"):
        self.meddle = meddle
        setattr(self, event, self._act)

    def _act(self, view):
        if view.step == 4 or view.step == 0:
            self.meddle(view.detector)


def trained(callbacks=(), **options):
    detector = tiny_detector()
    train(detector, tiny_scenes(), CONFIG, callbacks=callbacks, progress=False, **options)
    return detector


def test_begin_step_epoch_and_end_come_in_their_order_with_steps_and_epochs():
    listener = Listener()
    trained([listener])
    assert listener.heard == [
        ("begin", 0, 0),
        *[("step", step, 1) for step in (1, 2, 3)],
        ("epoch", 3, 1),
        *[("step", step, 2) for step in (4, 5, 6)],
        ("epoch", 6, 2),
        ("end", 6, 2),
    ]
    assert {(view.steps, view.epochs, view.folder) for view in listener.views} == {(6, 2, None)}


def test_callbacks_are_called_one_after_the_other_as_they_are_given():
    order = []

    class Named(Callback):
        def __init__(self, name):
            self.name = name

        def epoch(self, view):
            order.append((self.name, view.epoch))

    trained([Named("a"), Named("b")])
    assert order == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


def test_losses_are_those_of_the_step_and_metrics_those_of_the_latest_validation(tmp_path, aps):
    aps += [0.2, 0.5]
    listener = Listener()
    trained([listener], validation=tiny_scenes(2), output=tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    told = [line for line in lines if line["kind"] == "step"]
    seen = [view for (event, *_), view in zip(listener.heard, listener.views, strict=True) if event == "step"]
    assert [view.losses for view in seen] == [{n: line[n] for n in ("loss", "count", "box")} for line in told]
    assert listener.views[0].losses == {}
    # Before the first validation nothing, then its AP also in the steps of epoch 2.
    assert [view.metrics.get("ap") for view in listener.views] == [None] * 4 + [0.2] * 4 + [0.5] * 2
    assert listener.views[0].folder == tmp_path / "run"


def test_a_view_can_not_be_changed():
    listener = Listener()
    trained([listener])
    with pytest.raises(dataclasses.FrozenInstanceError):
        listener.views[0].step = 7
    with pytest.raises(TypeError):
        listener.views[0].metrics["ap"] = 1.0


def test_after_an_epoch_a_callback_sees_the_averaged_weights_and_at_the_end_the_best(tmp_path):
    seen = []

    class Weights(Callback):
        def step(self, view):
            seen.append(("step", view.detector.head.weight.detach().clone()))

        def epoch(self, view):
            seen.append(("epoch", view.detector.head.weight.detach().clone()))

        def end(self, view):
            seen.append(("end", view.detector.head.weight.detach().clone()))

    detector = trained([Weights()])
    (_, live), (_, averaged), (_, last) = seen[-3:]
    assert [name for name, _ in seen[-3:]] == ["step", "epoch", "end"]
    assert not torch.equal(live, averaged)
    assert torch.equal(averaged, last)
    assert torch.equal(last, detector.head.weight)


def test_a_callback_that_predicts_and_draws_random_numbers_changes_nothing():
    class Busy(Callback):
        def step(self, view):
            torch.rand(3)
            view.detector.predict([tiny_scenes()[0].image])

        epoch = step

    plain, watched = trained(), trained([Busy()])
    ours, theirs = plain.state_dict(), watched.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@torch.no_grad()
def double_the_head(detector):
    detector.head.weight.mul_(2)


def run_forward(detector):
    detector.features["backbone"](torch.zeros(2, 3, 32, 32))


def leave_gradients(detector):
    detector.head(torch.ones(1, 4)).sum().backward()


@pytest.mark.parametrize(
    ("meddle", "changed"),
    [
        (double_the_head, "head.weight"),
        (run_forward, "features.backbone.1.num_batches_tracked"),
        (leave_gradients, "head.weight"),
        (lambda detector: detector.eval(), r"mode \(as a whole\)"),
    ],
)
def test_a_callback_that_changes_the_detector_ends_the_run_and_is_named(meddle, changed):
    with pytest.raises(TrainingError, match=rf"Meddler: has changed the detector's {changed}"):
        trained([Meddler(meddle)])


def fail(_):
    raise KeyError("mine")


def test_an_error_in_a_callback_comes_through_with_its_name_and_what_was_saved(tmp_path):
    with pytest.raises(KeyError, match="mine") as caught:
        trained([Meddler(fail)], output=tmp_path / "run")
    assert caught.value.__notes__ == [
        f"in `step` of the callback {__name__}.Meddler after step 4; all is saved up to step 3; go on with: "
        f"fpn train --resume {tmp_path / 'run'}"
    ]
    # Step 4 is done and told once more, and the run ends like one without the error.
    listener, again = Listener(), tiny_detector()
    train(again, tiny_scenes(), resume=tmp_path / "run", callbacks=[listener], progress=False)
    assert listener.heard[:2] == [("begin", 3, 1), ("step", 4, 2)]
    assert torch.equal(again.head.weight, trained().head.weight)


def test_without_a_folder_the_note_says_that_nothing_is_saved():
    with pytest.raises(KeyError) as caught:
        trained([Meddler(fail, "begin")])
    assert caught.value.__notes__ == [
        f"in `begin` of the callback {__name__}.Meddler after step 0; nothing is saved",
    ]


def test_what_is_no_callback_is_refused_before_work_starts():
    with pytest.raises(ConfigError, match=r"callbacks\[1\]: Listener is no instance .* Write Listener\(\)"):
        refuse_other_than_callbacks([Listener(), Listener])
    with pytest.raises(ConfigError, match=r"callbacks\[0\]: 3 is no instance"):
        refuse_other_than_callbacks([3])
    with pytest.raises(ConfigError, match=r"expected a list, got .*Listener alone"):
        refuse_other_than_callbacks(Listener())
