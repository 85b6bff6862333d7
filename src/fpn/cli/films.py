"""`fpn predict` of films: each frame's detections as a line of JSON and rows of CSV, and the film drawn."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from PIL import Image

from fpn.cli.inputs import ImageSource, name_results, refuse_overwriting
from fpn.cli.outputs import MADE_BY, list_categories, real_paths, written_before
from fpn.cli.terminal import progress_bar, say, say_error, say_note, say_warning
from fpn.detectors.operating_point import are_sure
from fpn.detectors.prediction import predict_images
from fpn.drawing import draw
from fpn.errors import DataNotFoundError, FpnError, ImageError
from fpn.files import atomic_path, remove_abandoned, write_text
from fpn.films import Film, FilmFrame, FilmWriter, add_sound, require_pyav
from fpn.inference.tracking import BoxTracker
from fpn.spreadsheets import DETECTION_COLUMNS, csv_rows, detection_row
from fpn.version import __version__
from fpn.wording import counted

if TYPE_CHECKING:
    from fpn.detectors.prediction import Prediction, Predictor
    from fpn.structures import Classes, Detections, Thresholds

# What says which files of the folder are ours.
NAME = "films.json"
# In place of a frame whose pixels went to the network.
_NOTHING = Image.new("RGB", (1, 1))
_ENDINGS = (".mp4", ".jsonl", ".csv")
_COLUMNS = ("frame", "time", "track", *(name for name in DETECTION_COLUMNS if name != "image_id"))


@dataclass(frozen=True)
class FilmJob:
    """What to do with all films of a call.

    Attributes:
        detector: what finds objects.
        chosen: from which score on a detection is drawn, counted, and may begin a track.
        output: the folder.
        every: take each n-th frame.
        track: follow objects from frame to frame.
        drawn: write the drawn films.
        batch_size: frames that go through the network together.
        max_pixels: of a frame.
    """

    detector: Predictor
    chosen: float | Thresholds
    output: Path
    every: int
    track: bool
    drawn: bool
    batch_size: int
    max_pixels: int


@dataclass(frozen=True)
class FilmNames:
    """What will be written.

    Attributes:
        drawn: name of each film's drawing; its lists have the same with other endings.
        files: all names.
        earlier: names of what earlier runs wrote and is still there.
    """

    drawn: Sequence[PurePosixPath]
    files: Sequence[str]
    earlier: Sequence[str]


def name_films(films: Sequence[Path], output: Path, *, drawn: bool, track: bool) -> FilmNames:
    """Names for all that will be written.

    Raises:
        OutputError: something of the user's is in the way.
        MissingExtraError: PyAV is not installed, or trackers, where it is asked for.
    """
    if track:
        BoxTracker(1.0)  # the extra that it names brings PyAV, too
    require_pyav(films[0])
    sources = [ImageSource(path, PurePosixPath(path.name)) for path in films]
    names = name_results(sources, ".mp4")
    endings = _ENDINGS if drawn else _ENDINGS[1:]
    files = [NAME, *(str(name.with_suffix(ending)) for name in names for ending in endings)]
    earlier = written_before(output, NAME)
    refuse_overwriting([output / name for name in files], sources, real_paths(output, earlier))
    if any((output / name).exists() for name in files):
        say_note(f"{output}: an earlier `fpn predict` wrote here, and its files of the same names will be replaced")
    return FilmNames(names, files, earlier)


def predict_films(films: Sequence[Path], names: FilmNames, job: FilmJob, about: dict[str, Any]) -> int:
    """Write what is found in films; the exit status.

    Raises:
        OutputError: the folder can't be written to.
    """
    ours = [*dict.fromkeys((*names.files, *names.earlier))]
    categories = list_categories(job.detector.classes, job.detector.skeleton)
    told: dict[str, Any] = {
        "info": {"made_by": MADE_BY, "version": __version__, "files": ours, **about},
        "categories": categories,
        "films": [],
    }
    write_text(job.output / NAME, json.dumps(told, indent=1) + "\n")
    failed = 0
    for path, name in zip(films, names.drawn, strict=True):
        remove_abandoned(job.output / name, _ENDINGS)
        try:
            told["films"].append(_one_film(path, job.output / name, job))
        except (ImageError, DataNotFoundError) as error:
            failed += 1
            say_error(f"skipped: {error}")
        write_text(job.output / NAME, json.dumps(told, indent=1) + "\n")
    written = [name for name in names.files if (job.output / name).exists()]
    say(f"results: {job.output} ({', '.join(written) if len(films) == 1 else f'{NAME} names all'})")
    return 1 if failed else 0


def _one_film(path: Path, target: Path, job: FilmJob) -> dict[str, Any]:
    film = Film(path, every=job.every, max_pixels=job.max_pixels)
    classes, skeleton, notes = job.detector.classes, job.detector.skeleton, _Notes()
    with ExitStack() as opened:
        line = opened.enter_context(_lines(target.with_suffix(".jsonl")))
        row = opened.enter_context(csv_rows(target.with_suffix(".csv"), _COLUMNS))
        show = opened.enter_context(_drawing(film, target)) if job.drawn else None
        tracker = BoxTracker(float(film.rate / job.every)) if job.track else None
        for frame, image, found in opened.enter_context(_found(film, job)):
            sure = are_sure(found, job.chosen)
            ids = [None] * len(found) if tracker is None else tracker.follow(found, sure, frame.seconds)
            names = [classes[label] for label in found.labels.tolist()]
            records = _records(frame, found, ids, classes)
            told = [{"label": name, **record} for name, record in zip(names, records, strict=True)]
            line({"frame": frame.number, "time": frame.seconds, "detections": told})
            for record, name in zip(records, names, strict=True):
                row(_row(path, frame, record, name))
            notes.take(frame, sure.tolist(), names, ids)
            if show is not None and image is not None:
                shown = None if tracker is None else [each for each, yes in zip(ids, sure.tolist(), strict=True) if yes]
                show(draw(image, found[sure], classes, skeleton=skeleton, ids=shown), frame.seconds)
    if film.damage:
        say_warning(f"{path}: {film.damage}; what was read is kept")
    if len(film.sizes) > 1:
        say_warning(
            f"{path}: {_tell_sizes(film)}. Boxes are in each frame's own pixels, drawn frames as large as the first"
        )
    sizes = [{"frame": number, "height": size.height, "width": size.width} for number, size in film.sizes]
    about = {"file_name": str(path), "rate": float(film.rate), "every": job.every, "damage": film.damage}
    return about | {"sizes": sizes} | notes.tell(path)


def _tell_sizes(film: Film) -> str:
    (_, first), *later = film.sizes
    changes = ", ".join(f"{size.width} x {size.height} from frame {number} on" for number, size in later[:3])
    more = f" and {counted(len(later) - 3, 'more change')}" if len(later) > 3 else ""
    return f"its frames change size, {first.width} x {first.height} at first, {changes}{more}"


@contextmanager
def _found(film: Film, job: FilmJob) -> Iterator[Iterator[tuple[FilmFrame, Image.Image | None, Detections]]]:
    """Frames with what is found in them; only some batches of them are in memory."""
    waiting: deque[FilmFrame] = deque()

    def images() -> Iterator[Image.Image]:
        for frame in film:
            waiting.append(replace(frame, image=_NOTHING))
            yield frame.image

    with progress_bar("frames", film.expected, per_second=True) as progress:
        coming = predict_images(
            job.detector,
            images(),
            batch_size=job.batch_size,
            keep_images=job.drawn,
            progress=progress,
        )
        yield _with_frames(waiting, coming)


def _with_frames(
    waiting: deque[FilmFrame], coming: Iterator[Prediction]
) -> Iterator[tuple[FilmFrame, Image.Image | None, Detections]]:
    for prediction in coming:
        if isinstance(prediction.found, FpnError):  # too many pixels, and so are the other frames
            raise prediction.found
        yield waiting.popleft(), prediction.image, prediction.found


def _records(frame: FilmFrame, found: Detections, ids: Sequence[int | None], classes: Classes) -> list[dict[str, Any]]:
    """As COCO has results; `image_id` is the frame's number, and a track's id stands beside."""
    records = found.to_coco(image_id=frame.number, classes=classes)
    return [record if each is None else {**record, "track": each} for record, each in zip(records, ids, strict=True)]


def _row(path: Path, frame: FilmFrame, record: dict[str, Any], name: str) -> dict[str, Any]:
    row = detection_row(record, str(path), name)
    del row["image_id"]
    return {"frame": frame.number, "time": round(frame.seconds, 6), "track": record.get("track"), **row}


@dataclass
class _Notes:
    """What a film is said to have been."""

    frames: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    tracks: set[int] = field(default_factory=set)

    def take(self, frame: FilmFrame, sure: Sequence[bool], names: Sequence[str], ids: Sequence[int | None]) -> None:
        """One frame's detections."""
        self.frames, self.seconds = self.frames + 1, frame.seconds
        self.counts.update(name for name, yes in zip(names, sure, strict=True) if yes)
        self.tracks.update(each for each in ids if each is not None)

    def tell(self, path: Path) -> dict[str, Any]:
        """Say it, and give it for the list of films."""
        found = ", ".join(f"{count} {name}" for name, count in self.counts.most_common()) or "nothing"
        tracks = f"; {counted(len(self.tracks), 'object')} followed" if self.tracks else ""
        frames = f"{counted(self.frames, 'frame')}, the last at {self.seconds:.2f} s"
        say(f"{path}: {frames}: {found}, counted frame by frame{tracks}")
        return {"frames": self.frames, "seconds": self.seconds, "tracks": len(self.tracks)}


@contextmanager
def _lines(target: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Writes JSON Lines; the file has its name when all are there."""
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8") as stream:
        # Flushed, so that who finds the file under its temporary name sees that somebody still writes it.
        yield lambda record: print(json.dumps(record), file=stream, flush=True)


@contextmanager
def _drawing(film: Film, target: Path) -> Iterator[Callable[[Image.Image, float], None]]:
    """Writes the drawn film; the file has its name, and the source's sound, when all frames are there."""
    with atomic_path(target) as temporary:
        silent = temporary.with_stem(f"{temporary.stem}-silent")
        try:
            with FilmWriter(silent, rate=film.rate / film.every) as writer:
                yield writer.write
            if not (film.has_sound and add_sound(silent, film.path, temporary, start=film.start)):
                if film.has_sound:
                    say_warning(f"{film.path}: its kind of sound has no place in an .mp4, so the drawn film has none")
                silent.replace(temporary)
        finally:
            silent.unlink(missing_ok=True)
