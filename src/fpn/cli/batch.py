"""`fpn batch`: find objects in any number of images, as Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fpn.batch.forked_workers import worker_context
from fpn.batch.sources import has_more
from fpn.cli import bounds, paths
from fpn.cli.terminal import progress_bar, say, say_error
from fpn.cli.tiles import TileOptions
from fpn.files import refuse_no_folder
from fpn.runtime.cores import usable_cores
from fpn.wording import counted

if TYPE_CHECKING:
    from fpn.batch.running import BatchSummary
    from fpn.structures import Thresholds


def run(
    model: Annotated[Path, paths.MODEL],
    sources: Annotated[tuple[str, ...], Parameter(name="SOURCES"), paths.SOURCES] = (),
    /,
    *,
    output: Path,
    score: Annotated[float | Literal["calibrated"] | None, bounds.SHARE] = None,
    max_detections: Annotated[int | None, bounds.FROM_1] = None,
    engine: Literal["local", "ray"] = "local",
    workers: Annotated[int | None, bounds.FROM_1] = None,
    threads: Annotated[int | None, bounds.FROM_1] = None,
    shard_size: Annotated[int, bounds.FROM_1] = 1000,
    batch_size: Annotated[int, bounds.FROM_1] = 4,
    column: str | None = None,
    precision: Literal["float32", "bf16", "auto"] = "auto",
    device: str | None = None,
    max_pixels: Annotated[int, bounds.FROM_1] = 2**27,
    tiles: Annotated[TileOptions | None, Parameter(name="*", group="Tiles")] = None,
) -> int:
    """Find objects in any number of images and write them as Parquet files, a shard each.

    It can be killed at any moment: the same command then does the shards that are missing, and the rows are the same.
    A row is an image: name, width, height, boxes (x1, y1, x2, y2 in its pixels), scores, labels, category_ids, masks
    (COCO's run lengths) or keypoints. One that can't be read, also of a kind such as .svg or .psd, has its error
    instead, and the exit status is then 1.

    Args:
        model: A .safetensors file that `fpn train` wrote, or an .onnx, .xml or .pt2 file of `fpn export`.
        sources: Image files, folders, globs in quotes, .txt lists of paths, .parquet files with a column of images or
            paths, and .tar files of images (WebDataset).
        output: Folder for the shards: new, empty, or of the same run.
        score: Keep detections from this score on, 0 to 1. calibrated: from each class's own threshold. None:
            calibrated where the model has that, else all that it gives, also such as `fpn predict`, which draws from
            0.5 on, does not draw.
        max_detections: Most detections of an image. None: the model's own setting.
        engine: What runs the workers. local: processes of this machine. ray: Ray Data (extra ray), on the cluster that
            RAY_ADDRESS names or this machine belongs to, else here; all its machines have to see MODEL, SOURCES and the
            output by the same paths.
        workers: Processes, each with the model. None: one for two cores of a CPU, one for a GPU.
        threads: Of each worker. None: its share of the cores. A run goes on with as many as it began with.
        shard_size: Images a shard.
        batch_size: Images that go through the network together.
        column: Of .parquet files: which holds the images' bytes or paths. None: recognised by its name.
        precision: Number format of the network's arithmetic. auto: bf16 where the processor multiplies it in hardware,
            else float32. An exported file keeps the format in which it was proven; only OpenVINO's also takes bf16.
        device: Where to run: cpu, cuda, cuda:1 and so on. None: the GPU if there is one, else the CPU.
        max_pixels: Largest image that is read, height times width.
    """
    local = engine == "local" and device in (None, "cpu")
    if local and _has_many_workers(sources, column, workers, threads, shard_size):
        worker_context()  # it imports while this process does
    from fpn.batch.running import run_batch
    from fpn.batch.worker import BatchSettings
    from fpn.cli.devices import check_device

    refuse_no_folder(output)
    tiling = (tiles or TileOptions()).tiling()
    chosen = device if engine == "ray" else check_device(device)  # a cluster's GPUs are on other machines
    settings = BatchSettings(
        score=score,
        max_detections=max_detections,
        batch_size=batch_size,
        precision=precision,
        device=None if chosen is None else str(chosen),
        max_pixels=max_pixels,
        tiling=tiling,
    )
    with progress_bar("detecting", None) as progress:
        summary = run_batch(
            model,
            sources,
            output,
            settings,
            engine=engine,
            workers=workers,
            threads=threads,
            shard_size=shard_size,
            column=column,
            progress=progress,
        )
    return _tell(summary)


def _tell(summary: BatchSummary) -> int:
    """Say what was found, and what could not be read; the exit status."""
    if summary.going_on:
        say(f"{counted(summary.going_on, 'shard')} from an earlier run")
    found = ", ".join(f"{count} {name}" for name, count in summary.detections.items()) or "nothing found"
    say(f"{counted(summary.images, 'image')}: {found}{_kept(summary.score) if summary.detections else ''}")
    say(f"results: {summary.folder} (read it as one Parquet dataset; settings in _batch.json)")
    if summary.failed:
        for why in summary.unread:
            say_error(f"not read: {why}")
        more = f" ({len(summary.unread)} of them above)" if summary.failed > len(summary.unread) else ""
        say_error(
            f"{summary.failed} of {summary.images} images could not be read{more}: the column `error` of the results "
            "says why, for each"
        )
    return 1 if summary.failed else 0


def _kept(score: float | Thresholds) -> str:
    """Which detections were kept."""
    if not isinstance(score, float):
        return f", from their class's threshold on ({score.goal})"
    if score > 0:
        return f", with a score of {score:g} or more"
    return ", of any score (--score 0.5 keeps those that fpn predict would draw)"


def _has_many_workers(
    sources: Sequence[str], column: str | None, workers: int | None, threads: int | None, shard_size: int
) -> bool:
    """Whether several processes would share the work; a small job does not wait for the one they are forked from."""
    if (workers or usable_cores() // (threads or 2)) < 2 or shard_size < 1:
        return False
    return has_more(sources, shard_size, column=column)
