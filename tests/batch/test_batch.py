from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fpn
from fpn.batch import shards
from fpn.batch.listing import list_items
from fpn.batch.running import MANIFEST, run_batch
from fpn.batch.sources import ImageItem, ItemReader, has_more, iterate_items
from fpn.batch.worker import BatchSettings, BatchWorker
from fpn.cli import batch as cli_batch
from fpn.cli.app import run_command
from fpn.data.synthetic.scenes import SceneDataset
from fpn.detectors.tiling import Tiling
from fpn.errors import ConfigError, DataError, DataNotFoundError, OutputError
from fpn.image_io import ImageBytes
from fpn.structures import Thresholds

parquet = pytest.importorskip("pyarrow.parquet")
pyarrow = pytest.importorskip("pyarrow")

ON_CPU = BatchSettings(device="cpu", batch_size=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    detector = fpn.faster_rcnn(
        backbone="tf_efficientnet_lite0",
        weights=None,
        classes=["disc", "ring"],
        short_side=64,
        channels=16,
        head_width=16,
    )
    with torch.no_grad():  # so that there are detections, of either class
        for name, parameter in detector.named_parameters():
            if "classifier" in name or "cls" in name:
                parameter.mul_(30)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    fpn.save(detector, path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven scenes, one of them in a folder of its own, and one file that is no image."""
    folder = tmp_path_factory.mktemp("images")
    scenes = SceneDataset(7, seed=2, height=64, width=(64, 96))
    (folder / "sub").mkdir()
    for number in range(7):
        scenes.image(number).save(folder / ("sub" if number == 3 else ".") / f"{number}.png")
    (folder / "5x.png").write_bytes(b"no image")
    return folder


NAMES = ["0.png", "1.png", "2.png", "4.png", "5.png", "5x.png", "6.png", "sub/3.png"]


def _inside(folder: Path) -> list[str]:
    return [Path(item.name).relative_to(folder).as_posix() for item in iterate_items([str(folder)])]


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(folder).to_pylist()
    return rows


class TestSources:
    def test_a_folder_gives_all_images_in_it_in_an_order_of_names(self, images: Path) -> None:
        assert _inside(images) == NAMES

    def test_a_listing_keeps_what_was_there_when_it_was_made(self, tmp_path: Path) -> None:
        for name in ("b.png", "d.png", os.fsdecode(b"e\xff.png")):
            (tmp_path / name).touch()
        with tarfile.open(tmp_path / "c.tar", "w") as archive:
            archive.add(tmp_path / "b.png", "x/1.png")
        known = list(iterate_items([str(tmp_path)]))
        with list_items([str(tmp_path)], None) as listing:
            (tmp_path / "a.png").touch()
            assert list(listing.items()) == known
            assert [*listing.pick(3, frozenset({1}))] == [(1, known[3:])]
            assert (listing.images, listing.shards(3)) == (4, 2)

    def test_links_that_lead_round_in_circles_are_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "a" / "b").mkdir(parents=True)
        for name in ("a/1.png", "a/b/2.png"):
            (tmp_path / name).touch()
        (tmp_path / "a" / "b" / "up").symlink_to("..")
        (tmp_path / "other").symlink_to("a")  # leads elsewhere, not round
        (tmp_path / "self.png").symlink_to("self.png")
        (tmp_path / "z.svg").touch()  # of a kind that is not read: its row will say so
        wanted = ["a/1.png", "a/b/2.png", "other/1.png", "other/b/2.png", "self.png", "z.svg"]
        assert _inside(tmp_path) == wanted

    def test_whether_there_are_more_is_known_without_all_of_them(self, images: Path) -> None:
        assert [has_more([str(images)], count) for count in (0, 7, 8, 9)] == [True, True, False, False]

    def test_a_list_names_files_beside_it(self, images: Path, tmp_path: Path) -> None:
        (tmp_path / "b.txt").write_bytes(b"\xff\xfea.png")
        with pytest.raises(DataError, match=r"b\.txt: the list is not UTF-8 text\. Save it again"):
            list(iterate_items([str(tmp_path / "b.txt")]))
        (tmp_path / "a.txt").write_text(f"\ufeff# chosen\n{images}/1.png\n\nb.png\n", encoding="utf-8")
        items = list(iterate_items([str(tmp_path / "a.txt")]))
        assert [item.file for item in items] == [f"{images}/1.png", str(tmp_path / "b.png")]

    def test_a_tar_gives_its_members_bytes_by_their_places(self, images: Path, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            archive.add(images / "1.png", "x/1.png")
            archive.add(images / "2.png", "x/2.png")
            archive.add(images / "2.png", "x/2.json")
        first, second = iterate_items([str(tmp_path / "a.tar")])
        assert [first.name, second.name] == ["a.tar/x/1.png", "a.tar/x/2.png"]
        assert ItemReader()(second) == ImageBytes((images / "2.png").read_bytes(), "a.tar/x/2.png")

    def test_a_compressed_tar_is_refused_with_the_remedy(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar.gz").write_bytes(b"x")
        with pytest.raises(DataError, match=r"plain \.tar"):
            list(iterate_items([str(tmp_path / "a.tar.gz")]))

    @pytest.mark.parametrize("kind", ["bytes", "struct", "path"])
    def test_a_parquet_file_holds_bytes_or_paths_in_several_row_groups(
        self, images: Path, tmp_path: Path, kind: str
    ) -> None:
        data = [(images / f"{k}.png").read_bytes() for k in (0, 1, 2)]
        column: Any = {
            "bytes": data,
            "struct": [{"bytes": each, "path": "x.png"} for each in data],
            "path": [str(images / f"{k}.png") for k in (0, 1, 2)],
        }[kind]
        table = pyarrow.table({"key": ["a", "b", "c"], "image": column})
        parquet.write_table(table, tmp_path / "a.parquet", row_group_size=2)
        items, read = list(iterate_items([str(tmp_path / "a.parquet")])), ItemReader()
        assert [item.name for item in items] == ["a", "b", "c"]
        assert [item.place for item in items] == [(0, 0), (0, 1), (1, 0)]
        assert [read(item).read_bytes() for item in items] == data

    def test_a_column_that_is_not_there_is_told_with_those_that_are(self, tmp_path: Path) -> None:
        parquet.write_table(pyarrow.table({"photo": [b"x"]}), tmp_path / "a.parquet")
        with pytest.raises(ConfigError, match=r"has photo\. Say it by --column"):
            list(iterate_items([str(tmp_path / "a.parquet")]))
        with pytest.raises(ConfigError, match="no column 'pixels'"):
            list(iterate_items([str(tmp_path / "a.parquet")], column="pixels"))
        assert len(list(iterate_items([str(tmp_path / "a.parquet")], column="photo"))) == 1

    @pytest.mark.parametrize("content", [b"", b"PAR1 and no more", bytes(600)])
    def test_broken_parquet_and_tar_files_are_named(self, tmp_path: Path, content: bytes) -> None:
        for name in ("a.parquet", "a.tar"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises((DataError, DataNotFoundError), match=name):
                list(iterate_items([str(tmp_path / name)]))

    def test_a_source_without_images_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(DataNotFoundError, match="holds no image"):
            list(iterate_items([str(tmp_path)]))
        with pytest.raises(DataNotFoundError, match="no such file"):
            list(iterate_items([str(tmp_path / "nothing")]))
        with pytest.raises(ConfigError, match="no images"):
            list(iterate_items([]))


class TestWorker:
    def test_a_name_that_is_no_text_is_written_with_its_bytes(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / os.fsdecode(b"e\xff.png")).touch()
        run_batch(model, [str(tmp_path / "in")], tmp_path / "out", BatchSettings(device="cpu"))
        (row,) = _rows(tmp_path / "out")
        assert row["name"].endswith("e\\xff.png")
        assert "empty" in row["error"]

    def test_columns_hold_what_predict_finds(self, model: Path, images: Path) -> None:
        worker = BatchWorker(ON_CPU.load(str(model)), ON_CPU)
        columns = worker({"name": ["a", "b"], "path": [str(images / "0.png"), str(images / "5x.png")]})
        (found,) = worker.predictor.predict([images / "0.png"])
        assert len(found) > 0
        assert columns["scores"][0] == found.scores.tolist()
        assert columns["boxes"][0] == found.boxes.tolist()
        assert columns["labels"][0] == [["disc", "ring"][label] for label in found.labels]
        assert columns["error"][0] is None
        assert "not an image" in columns["error"][1]
        assert columns["boxes"][1] is None

    def test_bytes_give_the_same_as_their_file(self, model: Path, images: Path) -> None:
        worker = BatchWorker(ON_CPU.load(str(model)), ON_CPU)
        from_file = worker({"name": ["a"], "path": [str(images / "1.png")]})
        assert worker({"name": ["a"], "bytes": [(images / "1.png").read_bytes()]}) == from_file

    def test_a_score_leaves_out_what_is_less_sure(self, model: Path, images: Path) -> None:
        predictor = ON_CPU.load(str(model))
        everything = BatchWorker(predictor, ON_CPU).detect(["a"], [images / "0.png"])["scores"][0]
        middle = sorted(everything)[len(everything) // 2]
        sure = BatchWorker(predictor, ON_CPU.changed(score=middle)).detect(["a"], [images / "0.png"])["scores"][0]
        assert sure == [score for score in everything if score >= middle]
        assert 0 < len(sure) < len(everything)

    def test_tiles_are_looked_at_one_by_one(self, model: Path) -> None:
        settings = ON_CPU.changed(tiling=Tiling(side=64))
        worker = BatchWorker(settings.load(str(model)), settings)
        large = np.asarray(SceneDataset(1, height=64, width=150).image(0))
        assert worker.detect(["a"], [large])["scores"][0] == (
            fpn.predict_tiled(worker.predictor, large, Tiling(side=64), batch_size=2).scores.tolist()
        )


@pytest.fixture(scope="module")
def undisturbed(model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "whole"
    run_batch(model, [str(images)], output, ON_CPU, workers=1, shard_size=3)
    return output


class TestRun:
    def test_rows_are_in_the_order_of_the_images_and_errors_are_rows(self, undisturbed: Path, images: Path) -> None:
        rows = _rows(undisturbed)
        assert [Path(row["name"]).relative_to(images).as_posix() for row in rows] == NAMES
        assert [row["error"] is not None for row in rows] == [name == "5x.png" for name in NAMES]
        assert len(_bytes(undisturbed)) == 3
        manifest = json.loads((undisturbed / MANIFEST).read_text(encoding="utf-8"))
        assert manifest["images"] == 8
        assert manifest["finished"]["failed"] == 1
        assert sum(manifest["finished"]["detections"].values()) == sum(len(row["scores"] or ()) for row in rows)

    def test_a_stopped_run_goes_on_with_what_is_missing_and_ends_the_same(
        self, model: Path, images: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write, made = shards.write_columns, list[str]()

        def stops(columns: Any, path: Path, about: Any) -> None:
            if len(made) == 1:
                raise KeyboardInterrupt
            made.append(path.name)
            write(columns, path, about)

        monkeypatch.setattr(shards, "write_columns", stops)
        with pytest.raises(KeyboardInterrupt):
            run_batch(model, [str(images)], tmp_path / "out", ON_CPU, workers=1, shard_size=3)
        assert list(_bytes(tmp_path / "out")) == ["detections-000000.parquet"]
        monkeypatch.setattr(shards, "write_columns", write)
        told: list[tuple[int, int]] = []
        summary = run_batch(
            model,
            [str(images)],
            tmp_path / "out",
            ON_CPU,
            workers=1,
            shard_size=3,
            progress=lambda done, of: told.append((done, of)),
        )
        assert summary.going_on == 1
        assert told == [(3, 8), (6, 8), (8, 8)]
        assert _bytes(tmp_path / "out") == _bytes(undisturbed)

    def test_a_finished_run_is_not_made_again(self, model: Path, images: Path, undisturbed: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in undisturbed.glob("*.parquet")}
        again = run_batch(model, [str(images)], undisturbed, ON_CPU, workers=1, shard_size=3)
        assert again.going_on == 3
        assert {path: path.stat().st_mtime_ns for path in undisturbed.glob("*.parquet")} == before

    def test_other_images_or_settings_do_not_go_into_the_same_folder(
        self, model: Path, images: Path, undisturbed: Path
    ) -> None:
        with pytest.raises(OutputError, match="shard_size differ"):
            run_batch(model, [str(images)], undisturbed, ON_CPU, workers=1, shard_size=4)
        with pytest.raises(OutputError, match="images, names differ"):
            run_batch(model, [str(images / "sub")], undisturbed, ON_CPU, workers=1, shard_size=3)
        with pytest.raises(OutputError, match=r"settings\.score differ"):
            run_batch(model, [str(images)], undisturbed, ON_CPU.changed(score=0.9), workers=1, shard_size=3)

    def test_a_folder_of_the_users_is_left_alone(self, model: Path, images: Path, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
        with pytest.raises(OutputError, match="no earlier `fpn batch` wrote it"):
            run_batch(model, [str(images)], tmp_path, ON_CPU, workers=1)
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

    def test_the_threads_of_the_caller_are_as_before(self, model: Path, images: Path, tmp_path: Path) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            run_batch(model, [str(images / "0.png")], tmp_path / "out", ON_CPU, workers=1)
            assert torch.get_num_threads() == 1
        finally:
            torch.set_num_threads(before)

    @pytest.mark.skipif("FPN_ALL_BATCH" not in os.environ, reason="takes minutes: FPN_ALL_BATCH=1 runs it")
    def test_two_processes_killed_again_and_again_end_the_same(self, model: Path, images: Path, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "fpn", "batch", str(model), *[str(images)] * 6, "--shard-size", "2"]
        command += ["--device", "cpu", "--workers", "2", "--output"]
        subprocess.run([*command, str(tmp_path / "whole")], check=False)
        lots = random.Random(0)
        for _ in range(10):
            run = subprocess.Popen([*command, str(tmp_path / "killed")], start_new_session=True)
            time.sleep(lots.uniform(1, 14))
            for process in _family(run.pid) if lots.random() < 0.5 else [run.pid]:
                os.kill(process, signal.SIGKILL)
            run.wait()
        subprocess.run([*command, str(tmp_path / "killed")], check=False)
        assert _bytes(tmp_path / "killed") == _bytes(tmp_path / "whole")


def _family(process: int) -> Iterator[int]:
    """A process's children before itself."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="utf-8").split()
    yield from (int(child) for child in children)
    yield process


def test_an_item_that_has_gone_is_a_row_with_an_error(model: Path, images: Path, tmp_path: Path) -> None:
    assert isinstance(ItemReader()(ImageItem("a", str(tmp_path / "gone.png"))), Path)
    listed = tmp_path / "list.txt"
    listed.write_text(f"{images}/0.png\ngone.png\n", encoding="utf-8")
    summary = run_batch(model, [str(listed)], tmp_path / "out", ON_CPU, workers=1)
    assert summary.score == 0
    assert [why.split(": ")[0] for why in summary.unread] == [str(tmp_path / "gone.png")]
    assert ["no such file" in (row["error"] or "") for row in _rows(tmp_path / "out")] == [False, True]


def test_the_end_says_which_scores_were_kept_and_which_images_were_not_read(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.psd").write_bytes(b"8BPS")
    words = ["batch", str(model), str(images / "0.png"), str(tmp_path), "--workers", "1", "--device", "cpu"]
    assert run_command([*words, "--output", str(tmp_path / "out")]) == 1
    told = capsys.readouterr()
    assert ", of any score (--score 0.5 keeps those that fpn predict would draw)" in " ".join(told.out.split())
    said = " ".join(told.err.split())
    assert f"not read: {tmp_path / 'a.psd'}: " in said
    assert "1 of 2 images could not be read: the column `error` of the results says why, for each" in said
    assert cli_batch._kept(0.25) == ", with a score of 0.25 or more"
    assert cli_batch._kept(Thresholds((0.3,), "f1", "set", 9, (True,))) == ", from their class's threshold on (f1)"


def test_an_image_of_bytes_has_its_name_in_messages() -> None:
    with pytest.raises(fpn.FpnError, match=r"a\.jpg: the file is empty"):
        fpn.image_io.read_image(ImageBytes(b"", "a.jpg"))


def test_images_in_results_are_as_the_files_stand(model: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    run_batch(model, [str(tmp_path / "a.jpg")], tmp_path / "out", ON_CPU, workers=1)
    (row,) = _rows(tmp_path / "out")
    assert (row["width"], row["height"]) == (30, 40)


def test_processes_are_made_ready_only_where_several_have_something_to_do(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def many(workers: int | None, cores: int, shard_size: int) -> bool:
        monkeypatch.setattr(cli_batch, "usable_cores", lambda: cores)
        return cli_batch._has_many_workers([str(images)], None, workers, None, shard_size)

    assert many(None, 8, 2)
    assert many(2, 1, 2)
    assert not many(None, 3, 2)  # two cores a process
    assert not many(1, 8, 2)
    assert not many(None, 8, 1000)
    assert not many(None, 8, 0)  # refused later
