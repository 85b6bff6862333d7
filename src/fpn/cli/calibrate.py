"""`fpn calibrate`: from which score on a detection counts, class by class, written into the model file."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fpn.cli import bounds, paths
from fpn.cli.options import LimitOptions
from fpn.cli.terminal import say, say_error, say_warning
from fpn.errors import ConfigError
from fpn.files import refuse_unwritable, taken

if TYPE_CHECKING:
    from fpn.evaluation import Calibration, Goal
    from fpn.evaluation.calibration import Chosen

# A class with fewer objects has thresholds that other images may well not ask for.
_FEW = 20


def run(
    model: Annotated[Path, paths.MODEL],
    data: Annotated[Path, paths.DATA],
    /,
    *,
    f1: bool = False,
    precision: float | None = None,
    recall: float | None = None,
    guarantee: float | None = None,
    false_alarms: Annotated[float | None, bounds.ABOVE_0] = None,
    sure: float = 0.95,
    together: bool = False,
    split: str | None = None,
    images: Annotated[Path | None, paths.folder("--images")] = None,
    output: Path | None = None,
    report: Path | None = None,
    drop_invalid: bool = False,
    skip_unreadable: bool = False,
    batch_size: Annotated[int, bounds.FROM_1] = 8,
    workers: Annotated[int | None, bounds.FROM_0] = None,
    arithmetic: Literal["float32", "bf16", "auto"] = "auto",
    device: str | None = None,
    limits: Annotated[LimitOptions | None, Parameter(name="*", group="Limits")] = None,
) -> int:
    """Choose for each class the score from which on detections count, and write it into the model file.

    `fpn predict` and `predict` in Python then show what reaches its class's threshold. The images must be ones that the
    model was not trained on. An object counts as found if a detection of its class overlaps it with an IoU of 0.5 or
    more.

    --f1, --precision and --recall describe the images at hand. --guarantee and --false-alarms are bounds for images to
    come, of the same kind as these: they hold in 95 of 100 such calibrations (--sure), whatever the model is, and need
    more images the more they promise.

    If it is stopped, the same command goes on from what was found until then.

    A class that can't reach the goal gets a star, a warning that says what it has instead, and the nearest threshold;
    of --precision the one of the best F1 with no more false detections than it has objects. If none can, nothing is
    written, and the exit status is 1.

    Args:
        model: A .safetensors file that `fpn train` wrote.
        data: A folder or file in COCO, VOC, YOLO or LabelMe format.
        f1: The best F1. This is also what is done if no goal is named.
        precision: At least this share of the detections is right, 0 to 1, with as many objects found as that leaves.
        recall: At least this share of the objects is found, 0 to 1, with as few false detections as that leaves.
        guarantee: Of an image's objects of a class at least this share is found on average, 0 to 1, by a bound.
        false_alarms: At most so many false detections an image on average, by a bound: one threshold for all classes.
        sure: Share of calibrations in which a bound holds, 0 to 1. 0: on average over calibrations (conformal risk
            control), which needs fewer images.
        together: One threshold for all classes.
        split: Which split of it. None: the images that the model's training held out (--validation-share), if it did;
            else one that it was not trained on; else the only split, else all, else trainval, else val, else test.
        images: Folder of the images, if they lie elsewhere than their annotations.
        output: Write the model with its thresholds to this new file. None: into MODEL; its weights stay as they are.
        report: Also write the figures to this JSON file, and as a table to a .csv beside it. A file that is there is
            replaced only if an earlier `fpn calibrate` wrote it.
        drop_invalid: Leave out boxes that are empty, not finite or outside of their image, and count them.
        skip_unreadable: Leave out images that can't be read, and name them. Else the first one stops the command.
        batch_size: Images that go through the network together.
        workers: Processes that read images. None: half as many as there are cores. 0: none beside this one.
        arithmetic: Precision of the network's arithmetic. auto: bf16 where the chip multiplies it in hardware.
        device: Where to run: cpu, cuda, cuda:1 and so on. None: the GPU if there is one, else the CPU.
    """
    from fpn.cli.devices import check_device
    from fpn.cli.measuring import Measuring, common_truth, open_for
    from fpn.detectors import load
    from fpn.detectors.model_file import save_thresholds
    from fpn.evaluation import calibrate, match_detections
    from fpn.spreadsheets import refuse_others

    goal = _goal(f1, precision, recall, guarantee, false_alarms, sure)
    target = _target(model, output)
    refuse_others(report, "fpn calibrate")
    accepted = (limits or LimitOptions()).limits()
    reading = {"images": images, "drop_invalid": drop_invalid, "skip_unreadable": skip_unreadable, "limits": accepted}
    dataset, _ = open_for((model,), data, split, reading, doing="calibrating")
    truth = common_truth((model,), dataset)
    on = check_device(device)
    measuring = Measuring(dataset, batch_size, workers, arithmetic, on, skip_unreadable=skip_unreadable)
    detector = load(model, device=on)
    truth, (found,) = measuring.readable(truth, [measuring.detect(detector, model)])
    matches = match_detections(truth, found)
    calibration = calibrate(matches, goal, dataset=dataset.name, together=together)
    say(calibration.table())
    if report is not None:
        say(f"figures: {', '.join(map(str, calibration.save(report)))}")
    if not _explain(calibration):
        say_error(f"{goal} is reached by no class, so {target} was not written")
        return 1
    _name_unlabelled(calibration, tuple(detector.classes))
    _name_few(calibration)
    say(f"model: {save_thresholds(model, calibration.thresholds(detector.classes), target)}")
    return 0


def _goal(
    f1: bool,
    precision: float | None,
    recall: float | None,
    guarantee: float | None,
    false_alarms: float | None,
    sure: float,
) -> Goal:
    """The one that was asked for."""
    from fpn.evaluation import Goal

    levels = {"precision": precision, "recall": recall, "guarantee": guarantee, "false-alarms": false_alarms}
    asked = [(kind, level) for kind, level in levels.items() if level is not None]
    if len(asked) + f1 > 1:
        names = [f"--{kind}" for kind, _ in asked] + ["--f1"] * f1
        raise ConfigError(f"{' '.join(names)}: choose one of them")
    for kind, level in asked:
        return Goal(kind, level, sure)  # type: ignore[arg-type]  # the keys above are its kinds
    return Goal("f1", sure=sure)


def _target(model: Path, output: Path | None) -> Path:
    """Where the model is to be written; nothing that is already there is replaced but MODEL itself."""
    if output is None or os.path.realpath(output) == os.path.realpath(model):
        refuse_unwritable(model)
        return model
    if output.exists():
        raise taken(output, "file")
    if output.suffix != ".safetensors":
        raise ConfigError(f"--output {output}: a model's name ends with .safetensors")
    refuse_unwritable(output)
    return output


def _explain(calibration: Calibration) -> bool:
    """Warn of what can't be reached, and say what the thresholds promise; whether any class reaches the goal."""
    goal, reached = calibration.goal, [each for each in calibration.classes if each.reached]
    missed: dict[str, list[Chosen]] = {}
    for each in calibration.classes:
        if not each.reached:
            missed.setdefault(each.why, []).append(each)
    for why, classes in missed.items():
        names = ", ".join(str(each.name) for each in classes)
        had = f". {_what_it_gives(classes[0])}" if len(classes) == 1 and reached else ""
        say_warning(f"{names}: {goal} can't be reached: {why}{had}")
    if not reached:
        return False
    whose = "all classes" if len(reached) == len(calibration.classes) else "the classes without *"
    how = f"in {goal.sure:.0%} of such calibrations" if goal.sure else "on average over such calibrations"
    if goal.kind == "guarantee":
        share = 1 - (goal.level or 0)
        say(f"bound for {whose}: on average at most {share:.3g} of an image's objects are missed, {how}")
    if goal.kind == "false-alarms":
        most = f"of one image {goal.most_alarms:g} count at most"
        say(f"bound: on average at most {goal.level:g} false detections an image ({most}), {how}")
    return True


def _what_it_gives(each: Chosen) -> str:
    """What a user of the model gets of a class that misses the goal."""
    if not each.objects:
        return f"It gets the threshold {each.threshold:.3f}"
    if math.isnan(each.precision):
        return f"It gets the threshold {each.threshold:.3f}, from which on none of these images shows any"
    return (
        f"It gets the threshold {each.threshold:.3f}: {each.precision:.1%} of what is shown is right, "
        f"{each.recall:.1%} of its objects are found, with {each.false_alarms:.2f} false alarms an image"
    )


def _name_unlabelled(calibration: Calibration, names: tuple[str, ...]) -> None:
    unlabelled = [name for name in names if name not in {each.name for each in calibration.classes}]
    if unlabelled:
        say_warning(
            f"{', '.join(unlabelled)}: not among the classes of {calibration.dataset}; the threshold is that in the "
            "middle of the others'"
        )


def _name_few(calibration: Calibration) -> None:
    """Thresholds that describe these images alone; a bound knows how many there were."""
    if calibration.goal.kind in ("guarantee", "false-alarms"):
        return
    few = [f"{each.name} ({each.objects})" for each in calibration.classes if each.reached and each.objects < _FEW]
    if few:
        say_warning(
            f"chosen by few objects: {', '.join(few)}. Other images of this kind may ask for other thresholds; more "
            "labelled ones make them surer, and fpn evaluate on others tells what they are worth."
        )
