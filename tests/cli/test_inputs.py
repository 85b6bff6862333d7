from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

from fpn.cli.inputs import ImageSource, find_images, name_results, refuse_overwriting
from fpn.errors import ConfigError, DataNotFoundError, OutputError

NONE: frozenset[str] = frozenset()


def files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(root: Path, *words: str) -> list[str]:
    return [str(each.path.relative_to(root)) for each in find_images(words, own=NONE)]


def test_a_folder_gives_its_images_sorted_with_those_inside_its_folders(tmp_path: Path) -> None:
    files(tmp_path, "b.JPG", "a.png", "deep/c.webp", "notes.txt", ".hidden.jpg")
    assert found(tmp_path, str(tmp_path)) == ["a.png", "b.JPG", "deep/c.webp"]


def test_files_come_in_the_order_named_and_once(tmp_path: Path) -> None:
    files(tmp_path, "a.png", "b.png")
    b, a = str(tmp_path / "b.png"), str(tmp_path / "a.png")
    assert found(tmp_path, b, a, b, str(tmp_path)) == ["b.png", "a.png"]


def test_a_glob_is_expanded_where_the_shell_did_not(tmp_path: Path) -> None:
    files(tmp_path, "x1.png", "x2.png", "y.png", "deep/x3.png")
    assert found(tmp_path, str(tmp_path / "x*.png")) == ["x1.png", "x2.png"]
    assert found(tmp_path, str(tmp_path / "**" / "x*.png")) == ["deep/x3.png", "x1.png", "x2.png"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    files(tmp_path, "cell[1].png", "cell1.png")
    assert found(tmp_path, str(tmp_path / "cell[1].png")) == ["cell[1].png"]


def test_a_missing_file_is_left_for_the_reader_to_report(tmp_path: Path) -> None:
    assert found(tmp_path, str(tmp_path / "absent.png")) == ["absent.png"]


def test_links_that_lead_nowhere_are_left_for_the_reader_to_report(tmp_path: Path) -> None:
    files(tmp_path, "a.png")
    (tmp_path / "gone.jpg").symlink_to("nope")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    (tmp_path / "notes").symlink_to("nope")
    assert found(tmp_path, str(tmp_path)) == ["a.png", "gone.jpg", "self.jpg"]
    assert found(tmp_path, str(tmp_path / "*.jpg")) == ["gone.jpg", "self.jpg"]


def test_a_folder_or_glob_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match="no image in this folder"):
        find_images([str(files(tmp_path, "notes.txt"))], own=NONE)
    with pytest.raises(DataNotFoundError, match="no image matches"):
        find_images([str(tmp_path / "*.png")], own=NONE)
    with pytest.raises(ConfigError, match="name files, folders or globs"):
        find_images([], own=NONE)


def test_what_was_drawn_before_is_not_taken_for_a_image(tmp_path: Path) -> None:
    files(tmp_path, "a.png", "a.jpg")
    own = frozenset({os.path.realpath(tmp_path / "a.jpg")})
    assert [each.path.name for each in find_images([str(tmp_path)], own=own)] == ["a.png"]


def names(*inside: str) -> list[str]:
    return [str(name) for name in name_results([ImageSource(Path(i), PurePosixPath(i)) for i in inside], ".jpg")]


def test_results_keep_their_place_inside_the_folder() -> None:
    assert names("a.png", "deep/a.png") == ["a.jpg", "deep/a.jpg"]


def test_equal_names_do_not_collide_whatever_their_case() -> None:
    assert names("a.png", "a.jpeg", "A.tif", "a-2.png") == ["a.jpg", "a-2.jpg", "A-3.jpg", "a-2-2.jpg"]


def test_a_result_never_replaces_its_own_image(tmp_path: Path) -> None:
    files(tmp_path, "a.jpg")
    source = ImageSource(tmp_path / "a.jpg", PurePosixPath("a.jpg"))
    with pytest.raises(OutputError, match="replace the image itself"):
        refuse_overwriting([tmp_path / "." / "a.jpg"], [source], NONE)


def test_a_result_replaces_only_what_an_earlier_one_wrote(tmp_path: Path) -> None:
    files(tmp_path, "a.jpg")
    with pytest.raises(OutputError, match="no earlier `fpn predict` wrote it"):
        refuse_overwriting([tmp_path / "a.jpg"], [], NONE)
    refuse_overwriting([tmp_path / "a.jpg", tmp_path / "b.jpg"], [], frozenset({os.path.realpath(tmp_path / "a.jpg")}))
