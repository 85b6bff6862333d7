"""`fpn predict`: find objects in images, draw them, list them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from fpn.cli import bounds, paths
from fpn.cli.inputs import ImageSource, find_films, find_images, name_results, refuse_labelled, refuse_overwriting
from fpn.cli.terminal import progress_bar, say, say_error, say_note, say_warning
from fpn.cli.tiles import TileOptions
from fpn.errors import ConfigError, DataNotFoundError, FpnError
from fpn.files import refuse_no_folder
from fpn.suggestions import nearest_path
from fpn.wording import counted

if TYPE_CHECKING:
    from fpn.cli.outputs import Predictions
    from fpn.detectors.full_images import FullImages
    from fpn.detectors.prediction import Prediction, Predictor
    from fpn.detectors.tiling import Tiling
    from fpn.export.exported import ExportedDetector
    from fpn.inference.optimize import OptimizedDetector
    from fpn.structures import Classes, Thresholds

_Job = tuple[ImageSource, PurePosixPath | None]


def run(
    model: Annotated[Path, paths.MODEL],
    images: Annotated[tuple[str, ...], Parameter(name="IMAGES"), paths.IMAGES] = (),
    /,
    *,
    output: Path = Path("predictions"),
    score: Annotated[float | Literal["calibrated"] | None, bounds.SHARE] = None,
    max_detections: Annotated[int | None, bounds.FROM_1] = None,
    batch_size: Annotated[int, bounds.FROM_1] = 4,
    precision: Literal["float32", "bf16", "auto"] = "auto",
    device: str | None = None,
    drawn: Annotated[bool, Parameter(name="--images")] = True,
    ids: Annotated[Path | None, paths.file("--ids")] = None,
    max_pixels: Annotated[int, bounds.FROM_1] = 2**27,
    every: Annotated[int, Parameter(group="Films"), bounds.FROM_1] = 1,
    track: Annotated[bool, Parameter(group="Films", negative=())] = False,
    tiles: Annotated[TileOptions | None, Parameter(name="*", group="Tiles")] = None,
) -> int:
    """Find objects in images or films, draw them, and list them in one COCO-style JSON and in a CSV table.

    `detections.json` and `detections.csv` hold every detection that the model reports, with the file's name, the
    category ids of the training data, and boxes in pixels of the image as it stands upright. An image that can't be
    read is reported and skipped; the exit status is then 1.

    A film (.mp4, .mov, .mkv, ...; needs the extra video) becomes FILM.mp4 with what was found drawn in, FILM.jsonl with
    a line for each frame, and FILM.csv with a row for each detection:

    fpn predict model.safetensors street.mov --track --output street

    Args:
        model: A .safetensors file that `fpn train` wrote, or an .onnx, .xml or .pt2 file of `fpn export`.
        images: Files, folders (with all inside of them, but for drawings of an earlier `fpn predict`) and globs in
            quotes; or films, by their names.
        output: Folder for the results, apart from labelled images. In it nothing is replaced but what an earlier `fpn
            predict` wrote there.
        score: Draw and count detections with at least this score, 0 to 1. calibrated: with at least the threshold of
            their class that `fpn calibrate` chose. None: calibrated if the model is, else 0.5. The lists hold all, as
            the results of `fpn batch` do, which takes no detection away unless its --score says so.
        max_detections: Most detections of an image. None: the model's own setting, 100 unless it was trained with
            another.
        batch_size: Images that go through the network together.
        precision: Number format of the network's arithmetic. auto: bf16 where the processor multiplies it in hardware,
            else float32. An exported file keeps the format in which it was proven; only OpenVINO's also takes bf16.
        device: Where to run: cpu, cuda, cuda:1 and so on. None: the GPU if there is one, else the CPU.
        drawn: Write the drawn images.
        ids: COCO json that lists these images: their ids are taken from it, and coco_results.json is written for
            pycocotools (COCO.loadRes).
        max_pixels: Largest image that is read, height times width.
        every: Take every n-th frame of films.
        track: Follow objects through a film (extra track): each has an id, and its colour.
    """
    from fpn.cli.fast_models import load_fast
    from fpn.cli.outputs import real_paths, written_before
    from fpn.detectors.full_images import FullImages
    from fpn.runtime.waiting import considerate
    from fpn.structures import Detections

    tiling = (tiles or TileOptions()).tiling()
    load_model = partial(load_fast, model, device=device, max_detections=max_detections, precision=precision)
    films = find_films(images, every=every, track=track)
    earlier = written_before(output)
    refuse_no_folder(output)
    if not earlier:
        refuse_labelled(output)
    if films:
        if tiling is not None or ids is not None:
            raise ConfigError("--tiles, --ids: are about images, and films are named. Leave them out.")
        settings = {"every": every, "track": track, "drawn": drawn, "batch_size": batch_size, "max_pixels": max_pixels}
        return _of_films(films, output, load_model, score, {"model": str(model)}, settings)
    own = real_paths(output, earlier)
    sources = find_images(images, own=own)
    names = _name_drawings(output, sources, own, drawn=drawn, listed=ids is not None)
    detector = load_model()
    chosen = _choose(score, detector.thresholds)
    say(f"network: {detector.info}")
    _warn_of_brightness(detector, sources)
    _tell_earlier(output, earlier, names)
    about = {"model": str(model), **_about(chosen, detector.classes)}
    known = [*map(str, filter(None, names)), *earlier]
    predictions = _begin(output, detector, about, ids, sources, known, drawn=drawn)
    full = FullImages(detector.max_detections, always=detector.class_free, what="images" if tiling is None else "tiles")
    looking: dict[str, Any] = {"batch_size": batch_size, "keep_images": drawn, "max_pixels": max_pixels}
    try:
        with considerate(say_warning), _detecting(detector, sources, tiling, full, looking) as coming:
            for job, each in zip(zip(sources, names, strict=True), coming, strict=True):
                _keep(job, each, predictions, chosen)
                if isinstance(each.found, Detections) and tiling is None:
                    full.look(each.found, str(job[0].path))
    finally:
        predictions.save()  # after Ctrl-C, what was found until then
    _warn_of_limit(full, chosen, detector)
    return _report(predictions, chosen)


def _of_films(
    films: Sequence[Path],
    output: Path,
    load_model: Callable[[], OptimizedDetector | ExportedDetector],
    score: float | Literal["calibrated"] | None,
    about: dict[str, Any],
    settings: dict[str, Any],
) -> int:
    from fpn.cli.films import FilmJob, name_films, predict_films
    from fpn.runtime.waiting import considerate

    names = name_films(films, output, drawn=settings["drawn"], track=settings["track"])
    detector = load_model()
    chosen = _choose(score, detector.thresholds)
    say(f"network: {detector.info}")
    if settings["drawn"]:
        _warn_of_letters(detector.classes)
    job = FilmJob(detector, chosen, output, **settings)
    with considerate(say_warning):
        return predict_films(films, names, job, {**about, **_about(chosen, detector.classes)})


@contextmanager
def _detecting(
    detector: Predictor,
    sources: Sequence[ImageSource],
    tiling: Tiling | None,
    full: FullImages,
    looking: dict[str, Any],
) -> Iterator[Iterator[Prediction]]:
    """What is found in the images, one after the other, beside a progress bar."""
    from fpn.detectors.prediction import predict_images
    from fpn.detectors.tiling import predict_tiled_images

    paths = [source.path for source in sources]
    with progress_bar("detecting", len(paths)) as progress:
        if tiling is None:
            yield predict_images(detector, paths, progress=progress, **looking)
        else:
            yield predict_tiled_images(detector, paths, tiling, progress=progress, full=full, **looking)


def _name_drawings(
    output: Path, sources: Sequence[ImageSource], own: frozenset[str], *, drawn: bool, listed: bool
) -> Sequence[PurePosixPath | None]:
    """A name for each image's drawing; stops if one, or a list, would replace a file that is not ours."""
    from fpn.cli.outputs import NAME, RESULTS, TABLE

    names = name_results(sources, ".jpg") if drawn else [None] * len(sources)
    lists = (NAME, TABLE, RESULTS) if listed else (NAME, TABLE)
    refuse_overwriting([output / name for name in (*lists, *names) if name is not None], sources, own)
    return names


def _tell_earlier(output: Path, earlier: Sequence[str], names: Sequence[PurePosixPath | None]) -> None:
    """Say what becomes of an earlier run's results in the same folder."""
    from fpn.cli.outputs import NAME, RESULTS, TABLE

    if earlier:
        stay = len(set(earlier) - {NAME, TABLE, RESULTS} - {str(name) for name in names})
        drawings = f"; {counted(stay, 'drawing')} of images that are not named now will stay" if stay else ""
        say_note(f"{output}: an earlier `fpn predict` wrote here, and its lists will be replaced{drawings}")


def _choose(score: float | Literal["calibrated"] | None, thresholds: Thresholds | None) -> float | Thresholds:
    from fpn.detectors.operating_point import USUAL_SCORE, choose_score

    return choose_score(USUAL_SCORE if score is None and thresholds is None else score, thresholds)


def _warn_of_limit(full: FullImages, chosen: float | Thresholds, detector: Predictor) -> None:
    """Say that detections may be missing, where such would be drawn and counted."""
    from fpn.export.exported import allow_more

    lowest = chosen if isinstance(chosen, float) else min(chosen.by_class(detector.classes).values())
    if full.count and full.floor >= lowest:
        say_warning(f"{full}. {allow_more(detector, 3 * (full.limit or 1))}")


def _about(chosen: float | Thresholds, classes: Classes) -> dict[str, Any]:
    """What the JSON says of the scores from which on detections were drawn."""
    if isinstance(chosen, float):
        return {"score": chosen}
    return {"score": "calibrated", "goal": chosen.goal, "thresholds": chosen.by_class(classes)}


def _begin(
    output: Path,
    detector: Predictor,
    about: dict[str, Any],
    ids: Path | None,
    sources: Sequence[ImageSource],
    known: Sequence[str],
    *,
    drawn: bool,
) -> Predictions:
    """Empty lists, on disk: a folder that can't be written to is noticed before the work, not after.

    They name the files in the folder that are ours, `known`, those to be drawn among them: a kill leaves no others.
    """
    from fpn.cli.outputs import Predictions

    if ids is None:
        predictions = Predictions(output, detector.classes, about, known=known)
    else:
        from fpn.cli.image_ids import read_ids

        given = read_ids(ids, [source.path for source in sources], detector.classes)
        for name in given.unknown:
            say_warning(f"class {name!r} is not in {ids}")
        numbers = {source.path: number for source, number in zip(sources, given.images, strict=True)}
        predictions = Predictions(output, given.classes, {**about, "ids": str(ids)}, numbers, known)
    predictions.skeleton = detector.skeleton
    predictions.save(beginning=True)
    if drawn:
        _warn_of_letters(predictions.classes)
    return predictions


def _warn_of_brightness(detector: Predictor, sources: Sequence[ImageSource]) -> None:
    from fpn.data.checks.brightness import unfitting

    pixel_range = detector.preprocessor.config.pixel_range
    if (warning := unfitting("images", [str(source.path) for source in sources], pixel_range)) is not None:
        say_warning(warning)


def _warn_of_letters(classes: Classes) -> None:
    """Say once which letters of labels can't be drawn."""
    from fpn.fonts import FontWarning, missing_letters

    message = missing_letters(classes.names)
    if message is not None:
        say_warning(message)
        warnings.simplefilter("ignore", FontWarning)


def _keep(job: _Job, prediction: Prediction, predictions: Predictions, chosen: float | Thresholds) -> None:
    """Draw and list one image's detections, or say why there are none."""
    from fpn.cli.outputs import save_image
    from fpn.detectors.operating_point import sure_ones
    from fpn.detectors.tiling import resized
    from fpn.drawing import draw
    from fpn.shapes import Size

    (source, name), found = job, prediction.found
    if isinstance(found, FpnError):
        predictions.skip(source.path, str(found))
        meant = f".{nearest_path(source.path)}" if isinstance(found, DataNotFoundError) else ""
        say_error(f"skipped: {found}{meant}")
        return
    assert prediction.size is not None, "an image that was read has a size"
    if name is not None:
        assert prediction.image is not None, "images are kept where they are drawn"
        # An image too large to be held is shown smaller.
        seen = Size(prediction.image.height, prediction.image.width)
        shown = resized(sure_ones(found, chosen), prediction.size, seen)
        drawn = draw(prediction.image, shown, predictions.classes, skeleton=predictions.skeleton)
        save_image(drawn, predictions.folder / name)
    predictions.add(source.path, prediction.size, found, name)


def _report(predictions: Predictions, chosen: float | Thresholds) -> int:
    done, skipped = len(predictions.images), len(predictions.skipped)
    if not done and skipped:
        say_error(f"none of {counted(skipped, 'image')} could be read; see above")
        return 1
    if isinstance(chosen, float):
        scores = dict.fromkeys(predictions.classes, chosen)
        say(f"{counted(done, 'image')}: {predictions.count(scores)} with a score of {chosen:g} or more")
    else:
        scores = chosen.by_class(predictions.classes)
        say(f"{counted(done, 'image')}: {predictions.count(scores)} from their class's threshold on ({chosen.goal})")
    say(f"results: {predictions.folder} ({', '.join(predictions.files)})")
    if skipped:
        say_error(f"{skipped} of {done + skipped} images could not be read; see above")
    return 1 if skipped else 0
