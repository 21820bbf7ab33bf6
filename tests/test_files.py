from __future__ import annotations

import json
from pathlib import Path

import pytest

from vitpose.errors import OutputError
from vitpose.files import remove_file, remove_folder, replace_file, replace_folder, stage_files, write_json


def test_replaced_file_is_whole_and_readable_by_others(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    with replace_file(target) as path:
        path.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert target.stat().st_mode & 0o777 == 0o644
    assert list(target.parent.iterdir()) == [target]


def test_failure_while_writing_keeps_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def be_interrupted() -> None:
        with replace_file(target) as path:
            path.write_text("ha")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, no folder")
    message = r"taken.file.txt cannot be written: .*; choose another folder or make room"
    with pytest.raises(OutputError, match=message), replace_file(tmp_path / "taken" / "file.txt"):
        pytest.fail("nothing should be written")


def test_json_is_written_in_one_order(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [2]})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"a": [2], "b": 1}
    assert text.index('"a"') < text.index('"b"')


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    for name, text in (("best", "old"), ("best.part", "new"), ("best.old", "left by a killed process")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(text)
    replace_folder(tmp_path / "best", tmp_path / "best.part")
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert (tmp_path / "best/file").read_text() == "new"


def test_a_folder_that_cannot_take_its_place_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"whole cannot be written: .*choose another folder or make room"):
        replace_folder(tmp_path / "whole", tmp_path / "missing.part")


def test_no_folder_to_remove(tmp_path: Path) -> None:
    remove_folder(tmp_path / "missing")
    assert not list(tmp_path.iterdir())


def test_removing(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    remove_file(tmp_path / "a")
    remove_file(tmp_path / "a")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match=r"cannot be removed: .*; choose another folder"):
        remove_file(tmp_path)


def test_several_files_appear_together(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.xml"
    with stage_files(path) as staged:
        staged.write_text("main")
        staged.with_suffix(".bin").write_text("beside")
        assert not path.exists()
    assert {file.name: file.read_text() for file in path.parent.iterdir()} == {
        "a.xml": "main",
        "a.bin": "beside",
    }


def test_nothing_of_several_files_is_left_after_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text("before")

    def fail() -> None:
        with stage_files(path) as staged:
            staged.write_text("half")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert [file.name for file in tmp_path.iterdir()] == ["a.xml"]
    assert path.read_text() == "before"


def test_several_files_where_no_folder_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match=r"a.xml cannot be written: .*; choose another folder"),
        stage_files(tmp_path / "file" / "a.xml"),
    ):
        pass
