"""`fpn predict`: find objects in images, draw them, list them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fpn.cli.inputs import ImageSource, find_images, name_results, refuse_overwriting
from fpn.cli.terminal import progress_bar, say, say_error
from fpn.errors import ConfigError, FpnError

if TYPE_CHECKING:
    from PIL import Image

    from fpn.cli.outputs import Predictions
    from fpn.detectors import Detector

_Job = tuple[ImageSource, PurePosixPath | None]


def run(
    model: Path,
    images: Annotated[tuple[str, ...], Parameter(name="IMAGES")] = (),
    /,
    *,
    output: Path = Path("predictions"),
    score: float = 0.5,
    batch_size: int = 4,
    precision: Literal["float32", "bf16", "auto"] = "auto",
    device: str | None = None,
    drawn: Annotated[bool, Parameter(name="--images")] = True,
    max_pixels: int = 2**27,
) -> int:
    """Find objects in images, draw them, and list them in one COCO-style JSON.

    The JSON (`detections.json`) holds every detection that the model reports, with the category ids of its training
    data and boxes in pixels of the image as it stands upright. An image that can't be read is reported and skipped;
    the exit status is then 1.

    Args:
        model: A .safetensors file that `fpn train` wrote.
        images: Files, folders (with all inside of them) and globs in quotes.
        output: Folder for the results. Nothing in it is replaced but what an earlier `fpn predict` wrote.
        score: Draw detections from this score on, 0 to 1. The JSON always holds all.
        batch_size: Images that go through the network together.
        precision: Of the network's arithmetic. auto: bf16 where the chip multiplies it in hardware.
        device: Such as cpu, cuda or cuda:1. None: the GPU where there is one.
        drawn: Write the drawn images.
        max_pixels: Largest image that is read, height times width.
    """
    from fpn.cli.devices import check_device
    from fpn.cli.outputs import NAME, Predictions, written_before
    from fpn.detectors import load

    if not 0 <= score <= 1 or batch_size < 1 or max_pixels < 1:
        raise ConfigError(
            f"--score {score} --batch-size {batch_size} --max-pixels {max_pixels}: expected 0 to 1, and at least 1"
        )
    own = written_before(output)
    sources = find_images(images, own=own)
    names = name_results(sources, ".jpg") if drawn else [None] * len(sources)
    refuse_overwriting([output / name for name in (NAME, *names) if name is not None], sources, own)
    detector = load(model, device=check_device(device)).optimize(precision)
    say(f"network: {detector.info}")
    predictions = Predictions(output, detector.classes, {"model": str(model)})
    predictions.save()  # a folder that can't be written to is noticed before the work, not after
    try:
        jobs = list(zip(sources, names, strict=True))
        read = partial(_read, max_pixels=max_pixels)
        _detect_all(detector, jobs, predictions, read, batch_size=batch_size, score=score)
    finally:
        predictions.save()  # after Ctrl-C, what was found until then
    return _report(predictions, score)


def _detect_all(
    detector: Detector,
    jobs: Sequence[_Job],
    predictions: Predictions,
    read: Callable[[_Job], Image.Image | FpnError],
    *,
    batch_size: int,
    score: float,
) -> None:
    from fpn.cli.outputs import save_image
    from fpn.detectors.detector import BATCHES_AHEAD
    from fpn.drawing import draw

    done = 0
    with progress_bar("detecting", len(jobs)) as progress:
        # Enough for `predict` to put images of a size together; one by one, Ctrl-C costs one.
        ahead = batch_size * BATCHES_AHEAD if batch_size > 1 else 1
        for chunk in _read_ahead(jobs, ahead, read):
            readable = [(job, image) for job, image in chunk if not isinstance(image, FpnError)]
            found = detector.predict([image for _, image in readable], batch_size=batch_size)
            for ((source, name), image), each in zip(readable, found, strict=True):
                if name is not None:
                    save_image(draw(image, each, detector.classes, min_score=score), predictions.folder / name)
                predictions.add(source.path, image, each, name)
            for (source, _), problem in chunk:
                if isinstance(problem, FpnError):
                    predictions.skip(source.path, str(problem))
                    say_error(f"skipped: {problem}")
            done += len(chunk)
            progress(done)


def _read_ahead(
    jobs: Sequence[_Job], size: int, read: Callable[[_Job], Image.Image | FpnError]
) -> Iterator[list[tuple[_Job, Image.Image | FpnError]]]:
    """Jobs with their images, or with what is wrong with them, `size` at a time; the next ones are read meanwhile."""
    parts = [jobs[start : start + size] for start in range(0, len(jobs), size)]
    with ThreadPoolExecutor(2) as readers:
        coming = [readers.submit(read, job) for job in parts[0]]
        for part, following in zip(parts, [*parts[1:], ()], strict=True):
            images = [each.result() for each in coming]
            coming = [readers.submit(read, job) for job in following]
            yield list(zip(part, images, strict=True))


def _read(job: _Job, *, max_pixels: int) -> Image.Image | FpnError:
    from fpn.image_io import read_image

    try:
        return read_image(job[0].path, max_pixels=max_pixels)
    except FpnError as error:
        return error


def _report(predictions: Predictions, score: float) -> int:
    done, skipped = len(predictions.images), len(predictions.skipped)
    say(f"{done} images: {predictions.count(score)} with a score of {score:g} or more")
    say(f"results: {predictions.folder}")
    if skipped:
        say_error(f"{skipped} of {done + skipped} images could not be read; see above")
    return 1 if skipped else 0
