from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vitpose.errors import CheckpointError, ImageError, InputError, VitPoseError
from vitpose.files.paths import existing_path, user_path

UNUSABLE = [
    ("~nobody-of-that-name/x", "home directory"),
    ("x" * 5000, "too long"),
    (Path("/" + "x" * 5000), "too long"),
    ("a\0b", "null"),
    (None, "NoneType"),
    (5, "int"),
    (b"a.jpg", "bytes"),
]


def test_home_directories_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/a.jpg") == user_path(Path("~/a.jpg")) == tmp_path / "a.jpg"
    assert user_path("a/~b.jpg") == Path("a/~b.jpg")
    assert existing_path("~/a.jpg") is None
    (tmp_path / "a.jpg").touch()
    assert existing_path("~/a.jpg") == tmp_path / "a.jpg"


@pytest.mark.parametrize(("name", "reason"), UNUSABLE)
@pytest.mark.parametrize("error", [InputError, CheckpointError, ImageError])
def test_names_that_no_file_can_have_raise(name: Any, reason: str, error: type[VitPoseError]) -> None:
    message = f"cannot be a path: .*{reason}.*; pass a string or a pathlib.Path that a file can have"
    with pytest.raises(error, match=message) as caught:
        user_path(name, error)
    assert type(caught.value) is error
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", [name for name, _ in UNUSABLE if isinstance(name, str | Path)])
def test_names_that_no_file_can_have_do_not_exist(name: str | Path) -> None:
    assert existing_path(name) is None


def test_an_empty_path_raises() -> None:
    with pytest.raises(
        InputError, match=r"^the path is an empty string; give a file or a directory \('\.' is"
    ):
        user_path("")
    assert existing_path("") is None


def test_missing_and_inaccessible_files_are_paths(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("missing", "file/inside", "loop", "loop/inside"):
        assert user_path(tmp_path / name) == tmp_path / name
        assert existing_path(tmp_path / name) is None
