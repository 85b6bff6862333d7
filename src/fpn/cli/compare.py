"""`fpn compare`: whether one model is better than another, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from fpn.cli import bounds, paths
from fpn.cli.options import LimitOptions
from fpn.cli.terminal import progress_bar, say, say_error
from fpn.errors import DataError

if TYPE_CHECKING:
    from fpn.evaluation import Comparison
    from fpn.training.run_record import LearnedImages

# Exit status when all went well and B is below what was asked for.
BELOW = 3


def run(
    a: Annotated[Path, paths.MODEL_OR_RESULTS],
    b: Annotated[Path, paths.MODEL_OR_RESULTS],
    data: Annotated[Path, paths.DATA],
    /,
    *,
    split: str | None = None,
    images: Annotated[Path | None, paths.folder("--images")] = None,
    output: Path | None = None,
    fail_below: float | None = None,
    metric: Literal["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"] = "ap",
    fail_by: Literal["difference", "low", "high"] = "difference",
    task: Literal["boxes", "masks"] = "boxes",
    resamples: Annotated[int, bounds.FROM_1] = 1000,
    confidence: float = 0.95,
    seed: Annotated[int, bounds.FROM_0] = 0,
    worst: Annotated[int, bounds.FROM_0] = 10,
    drop_invalid: bool = False,
    skip_unreadable: bool = False,
    batch_size: Annotated[int, bounds.FROM_1] = 8,
    workers: Annotated[int | None, bounds.FROM_0] = None,
    precision: Literal["float32", "bf16", "auto"] = "auto",
    device: str | None = None,
    limits: Annotated[LimitOptions | None, Parameter(name="*", group="Limits")] = None,
) -> int:
    """Say whether model B is better than model A on labelled images, and how sure that is.

    The images are resampled with replacement, the same ones for both models (bootstrap). How much the difference of
    average precision varies from one sample to the next tells how far it may be off on other images of this kind. The
    last line is the verdict: whether B is better, by how much, and whether that may be chance.

    If it is stopped, the same command goes on from what was found until then.

    The exit status is 0, or 3 if --fail-below is given and B is not that good.

    Args:
        a: A .safetensors file that `fpn train` wrote, or a COCO results file (.json) that `fpn evaluate --detections`
            wrote for these images.
        b: The same of the other model.
        data: A folder or file in COCO, VOC, YOLO or LabelMe format.
        split: Which split of it. None: the images that the model's training held out (--validation-share), if it did;
            else one that it was not trained on; else the only split, else all, else trainval, else val, else test.
        images: Folder of the images, if they lie elsewhere than their annotations.
        output: Also write the figures to this JSON file, and beside it as .csv and, image by image, as -images.csv. A
            file that is there is replaced only if an earlier `fpn compare` wrote it.
        fail_below: End with exit status 3 if B less A is below this, such as -0.01 or 0.
        metric: What --fail-below looks at.
        fail_by: Whether --fail-below looks at the difference itself, or at an end of its interval. low: B must surely
            be that good. high: B must not surely be worse.
        task: What overlaps: boxes or masks.
        resamples: How many times the images are drawn.
        confidence: Share of such intervals that hold the true difference, 0 to 1.
        seed: Of the draw.
        worst: How many images to list; the files hold all.
        drop_invalid: Leave out boxes that are empty, not finite or outside of their image, and count them.
        skip_unreadable: Leave out images that can't be read, and name them. Else the first one stops the command.
        batch_size: Images that go through the network together.
        workers: Processes that read images. None: half as many as there are cores. 0: none beside this one.
        precision: Number format of the network's arithmetic. auto: bf16 where the processor multiplies it in hardware,
            else float32.
        device: Where to run: cpu, cuda, cuda:1 and so on. None: the GPU if there is one, else the CPU.
    """
    from fpn.cli.devices import check_device
    from fpn.cli.held_out import refuse_too_few
    from fpn.cli.measuring import Measuring, common_truth, open_for
    from fpn.evaluation import match_detections
    from fpn.evaluation.bootstrap import check_confidence
    from fpn.evaluation.comparison import compare_matches, count_steps
    from fpn.spreadsheets import refuse_others

    check_confidence(confidence)
    refuse_others(output, "fpn compare", "-images.csv")
    accepted = (limits or LimitOptions()).limits()
    reading = {"images": images, "drop_invalid": drop_invalid, "skip_unreadable": skip_unreadable, "limits": accepted}
    dataset, learned = open_for((a, b), data, split, reading, doing="comparing")
    refuse_too_few(dataset)
    truth = common_truth((a, b), dataset)
    _refuse_nothing(truth, dataset.name)
    measuring = Measuring(dataset, batch_size, workers, precision, check_device(device), task, skip_unreadable)
    iou_type: Literal["bbox", "segm"] = "segm" if task == "masks" else "bbox"
    truth, found = measuring.results_of((a, b), truth)
    matches = [match_detections(truth, records, iou_type=iou_type) for records in found]
    say(f"A: {a}\nB: {b}")
    with progress_bar("resampling", count_steps(len(truth["images"]), resamples)) as progress:
        comparison = compare_matches(
            *matches,
            names=(str(a), str(b)),
            dataset=dataset.name,
            resamples=resamples,
            confidence=confidence,
            seed=seed,
            progress=progress,
        )
    _show(comparison, worst, learned)
    if output is not None:
        say(f"figures: {', '.join(map(str, comparison.save(output)))}")
    return 0 if fail_below is None else _judge(comparison, fail_below, metric, fail_by)


def _refuse_nothing(truth: Mapping[str, Any], name: str) -> None:
    """Stop before anything is detected if no object counts."""
    if all(each["iscrowd"] for each in truth["annotations"]):
        images = len(truth["images"])
        raise DataError(f"{name}: no labelled object in {images} images, so nothing can be compared")


def _show(comparison: Comparison, worst: int, learned: Sequence[LearnedImages | None]) -> None:
    say(comparison.table())
    if worst and not comparison.identical:
        say(comparison.image_table(worst))
    say(" ".join([comparison.verdict(), *_distrust(learned)]))


def _distrust(learned: Sequence[LearnedImages | None]) -> Iterator[str]:
    """What has to be said beside a verdict on images that A, B or both have learned from."""
    told = [(name, each) for name, each in zip("AB", learned, strict=True) if each is not None]
    if told:
        whose = " and ".join(f"{name} has learned from {each.images}" for name, each in told)
        if len(told) > 1 and told[0][1].images == told[1][1].images:
            whose = f"A and B have learned from {told[0][1].images}"
        yield f"But {whose} of these {told[0][1].of} images: the verdict is not to be trusted."


def _judge(comparison: Comparison, limit: float, metric: str, by: str) -> int:
    """Whether B is as good as was asked for; status 3 if not."""
    found = comparison.find(metric)
    value: float = getattr(found, by)
    what = {"difference": "is", "low": "is at the least", "high": "is at the most"}[by]
    verdict = f"{metric} of B less A {what} {value:+z.4f}"
    # An interval that could not be had (NaN) proves nothing.
    if not value >= limit:
        say_error(f"{verdict}, below {limit:g}")
        return BELOW
    say(f"{verdict}, not below {limit:g}")
    return 0
