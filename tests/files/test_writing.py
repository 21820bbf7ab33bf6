from __future__ import annotations

import json
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from vitpose.errors import OutputError
from vitpose.files.writing import (
    recover_folders,
    remove_file,
    remove_folder,
    replace_file,
    replace_folder,
    stage_files,
    write_json,
)


def test_a_replaced_file_appears_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    with replace_file(target) as path:
        path.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_new_files_have_the_permissions_of_the_umask(tmp_path: Path, umask: int) -> None:
    script = """
        from pathlib import Path
        from vitpose.files.writing import replace_file, stage_files, write_json
        write_json(Path("new/a.json"), {})
        with replace_file(Path("new/b.txt")) as path:
            path.unlink()  # as some writers do
            path.touch(0o600)
        with stage_files(Path("new/c.xml")) as path:
            path.touch(0o600)
    """
    command = [sys.executable, "-c", f"import os; os.umask({umask})\n{textwrap.dedent(script)}"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert mode_of(tmp_path / "new") == 0o777 & ~umask
    assert [mode_of(path) for path in (tmp_path / "new").iterdir()] == [0o666 & ~umask] * 3


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_a_replaced_file_keeps_its_permissions(tmp_path: Path, mode: int) -> None:
    for name in ("a.txt", "b.xml"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    with replace_file(tmp_path / "a.txt") as path:
        path.write_text("a")
    with stage_files(tmp_path / "b.xml") as path:
        path.write_text("b")
    assert [mode_of(tmp_path / name) for name in ("a.txt", "b.xml")] == [mode, mode]


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_a_name_that_no_file_can_have_raises(tmp_path: Path, name: str) -> None:
    message = "cannot be written: .*(too long|null).*; choose another directory"
    with pytest.raises(OutputError, match=message), replace_file(tmp_path / name):
        pytest.fail("nothing should be written")


def test_a_failure_keeps_the_previous_file(tmp_path: Path) -> None:
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


def test_a_path_that_cannot_be_written_raises(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("not a directory")
    message = r"taken.file.txt cannot be written: .*; choose another directory or free disk space"
    with pytest.raises(OutputError, match=message), replace_file(tmp_path / "taken" / "file.txt"):
        pytest.fail("nothing should be written")


def test_json_keys_are_sorted(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [2]})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"a": [2], "b": 1}
    assert text.index('"a"') < text.index('"b"')


def test_replace_folder(tmp_path: Path) -> None:
    for name, text in (("best", "old"), ("best.part", "new"), ("best.old", "left by a killed process")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(text)
    replace_folder(tmp_path / "best", tmp_path / "best.part")
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert (tmp_path / "best/file").read_text() == "new"


def test_replacing_by_a_missing_directory_raises(tmp_path: Path) -> None:
    with pytest.raises(
        OutputError, match=r"whole cannot be written: .*choose another directory or free disk space"
    ):
        replace_folder(tmp_path / "whole", tmp_path / "missing.part")


def test_the_previous_directory_is_kept_after_a_failure(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best/file").write_text("old")
    with pytest.raises(OutputError, match="best cannot be written"):
        replace_folder(tmp_path / "best", tmp_path / "missing.part")
    assert (tmp_path / "best/file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_recover_folders(tmp_path: Path) -> None:
    for name in ("kept.old", "new", "new.old", "half.part", "removed.old.part", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    recover_folders(tmp_path)
    found = {path.parent.name: path.read_text() for path in tmp_path.glob("*/file")}
    assert found == {"kept": "kept.old", "new": "new", "other": "other"}
    recover_folders(tmp_path / "missing")


REPLACE_FOREVER = """
    import sys
    from itertools import count
    from pathlib import Path
    from vitpose.files.writing import replace_folder
    for number in count(int(sys.argv[1])):
        partial = Path("best.part")
        partial.mkdir()
        for name in "abc":
            (partial / name).write_text(str(number))
        replace_folder(Path("best"), partial)
        print(number, flush=True)
"""


def test_a_complete_directory_is_left_after_a_kill_at_any_time(tmp_path: Path) -> None:
    rng, last = random.Random(0), 0
    for _ in range(15):
        command = [sys.executable, "-c", textwrap.dedent(REPLACE_FOREVER), str(last + 1)]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.05))
            process.kill()
            done = [
                int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")
            ]
        recover_folders(tmp_path)
        numbers = {int(path.read_text()) for path in (tmp_path / "best").iterdir()}
        assert len(numbers) == 1, "a mixture of two directories"
        assert len(list((tmp_path / "best").iterdir())) == 3
        assert [path.name for path in tmp_path.iterdir()] == ["best"]
        (number,) = numbers
        assert number >= max([last, *done]), "an older directory than the last one reported"
        last = number


def test_removing_a_missing_directory(tmp_path: Path) -> None:
    remove_folder(tmp_path / "missing")
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_removed_raises(tmp_path: Path) -> None:
    name = "x" * 253  # too long with a suffix
    (tmp_path / name).mkdir()
    with pytest.raises(OutputError, match=r"x cannot be removed: .*too long.*; correct its permissions or"):
        remove_folder(tmp_path / name)
    assert (tmp_path / name).is_dir()


def test_remove_file(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    remove_file(tmp_path / "a")
    remove_file(tmp_path / "a")
    assert not list(tmp_path.iterdir())
    with pytest.raises(
        OutputError, match=r"cannot be removed: .*; correct its permissions or choose another directory"
    ):
        remove_file(tmp_path)


def test_staged_files_appear_together(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.xml"
    with stage_files(path) as staged:
        staged.write_text("main")
        staged.with_suffix(".bin").write_text("beside")
        assert not path.exists()
    assert {file.name: file.read_text() for file in path.parent.iterdir()} == {
        "a.xml": "main",
        "a.bin": "beside",
    }


def test_no_staged_file_is_left_after_a_failure(tmp_path: Path) -> None:
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


def test_staging_in_a_path_that_is_not_a_directory_raises(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match=r"a.xml cannot be written: .*; choose another directory"),
        stage_files(tmp_path / "file" / "a.xml"),
    ):
        pass
