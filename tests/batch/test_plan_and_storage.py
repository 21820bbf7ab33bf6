from __future__ import annotations

import io
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from vitpose.batch.plan import done_shards, plan_shards, read_plan, start_or_resume
from vitpose.batch.storage import Directory, find_sources, is_remote, read_remote
from vitpose.errors import ImageError, InputError, MissingDependencyError, OutputError

from .conftest import make_images


@pytest.fixture(params=["local", "memory"])
def directory(request: pytest.FixtureRequest, tmp_path: Path, memory: Any) -> Directory:
    return Directory(str(tmp_path / "out") if request.param == "local" else "memory://bucket/out")


def test_files_come_back_as_they_were_written(directory: Directory) -> None:
    assert directory.names() == []
    directory.write("a.bin", b"1")
    directory.write("b.bin", b"2")
    directory.write("a.bin", b"3")
    assert sorted(directory.names()) == ["a.bin", "b.bin"]
    assert directory.read("a.bin") == b"3"
    directory.remove("a.bin")
    directory.remove("a.bin")
    assert directory.names() == ["b.bin"]
    with pytest.raises(InputError, match=r"out/c.bin cannot be read"):
        directory.read("c.bin")


def test_a_plan_only_grows(directory: Directory) -> None:
    first = plan_shards(directory, ["a", "b", "c"], 2)
    assert [(shard.number, shard.images) for shard in first] == [(0, ("a", "b")), (1, ("c",))]
    assert plan_shards(directory, ["c", "b", "a"], 7) == first
    more = plan_shards(directory, ["d", "a", "e"], 1)
    assert more == read_plan(directory)
    assert [(shard.number, shard.images) for shard in more[2:]] == [(2, ("d",)), (3, ("e",))]
    assert done_shards(directory) == set()
    directory.write(more[2].name, b"")
    assert done_shards(directory) == {2}


def test_names_that_are_not_valid_unicode(directory: Directory) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    plan_shards(directory, [name], 2)
    assert read_plan(directory)[0].images == (name,)


def test_a_run_is_resumed_with_the_same_settings_only(directory: Directory) -> None:
    start_or_resume(directory, {"model": "a", "labels": ["person"]})
    start_or_resume(directory, {"model": "a", "labels": ["person"]})
    with pytest.raises(
        InputError, match=r"out was started with model 'a', not 'b'; use the same arguments to resume"
    ):
        start_or_resume(directory, {"model": "b", "labels": ["person"]})


def test_a_directory_with_other_files_is_refused(directory: Directory) -> None:
    directory.write("thesis.txt", b"")
    with pytest.raises(
        InputError,
        match=r"is not empty and holds no earlier run \(it contains thesis.txt\); choose another --out",
    ):
        start_or_resume(directory, {})


def test_partial_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    directory = Directory(str(tmp_path))
    start_or_resume(directory, {})
    (tmp_path / ".part-000000.parquet.x7.part").write_bytes(b"half")
    start_or_resume(directory, {})
    assert directory.names() == ["_job.json"]


def test_local_and_remote_images_are_found(tmp_path: Path, memory: Any) -> None:
    make_images(tmp_path / "in", 5, 1)
    local = find_sources([str(tmp_path / "in"), str(tmp_path / "in" / "000.png")])
    assert [Path(name).name for name in local] == ["000.png", "001.png", "002.png", "003.png", "bad 0.jpg"]
    assert find_sources([f"file://{tmp_path}/in"]) == local
    memory.put(str(tmp_path / "in"), "/photos", recursive=True)
    memory.pipe_file("/photos/notes.txt", b"")
    remote = find_sources(["memory://photos"])
    assert [Path(name).name for name in remote] == [Path(name).name for name in local]
    assert find_sources(["memory://photos/00*.png"]) == remote[:4]
    assert find_sources([remote[0]]) == remote[:1]
    assert all(is_remote(name) for name in remote)
    assert read_remote(remote[0]) == Path(local[0]).read_bytes()


def test_errors_of_finding_reading_and_writing(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"memory://nothing has no images; check the URL"):
        find_sources(["memory://nothing"])
    with pytest.raises(ImageError, match=r"memory://nothing/a.jpg cannot be read: .*; check the URL"):
        read_remote("memory://nothing/a.jpg")
    with pytest.raises(InputError, match=r"foo://bar is not a URL that fsspec supports"):
        Directory("foo://bar")
    with pytest.raises(MissingDependencyError, match=r"s3://bucket/x cannot be opened: .*s3fs"):
        Directory("s3://bucket/x")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file cannot be listed: .*; give a directory"):
        Directory(str(tmp_path / "file")).names()
    with pytest.raises(OutputError, match=r"a cannot be written"):
        Directory(str(tmp_path / "file")).write("a", b"")
    directory = Directory("memory://bucket")
    full = {"makedirs": lambda *a, **k: None, "pipe_file": lambda *a: 1 / 0, "transaction": nullcontext()}
    directory._files = type("Full", (), full)()
    with pytest.raises(
        OutputError, match=r"memory://bucket/a cannot be written: division by zero; check the URL"
    ):
        directory.write("a", b"")


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"[" * 200_000, b"NaN"])
def test_damaged_settings_are_refused(directory: Directory, content: bytes) -> None:
    directory.write("_job.json", content)
    with pytest.raises(InputError, match=r"out/_job\.json"):
        start_or_resume(directory, {})


def other_table() -> bytes:
    content = io.BytesIO()
    parquet.write_table(pyarrow.table({"shard": ["a"], "images": [5]}), content)
    return content.getvalue()


@pytest.mark.parametrize("content", [b"", b"PAR1 and nothing else", b"PAR1" * 100, other_table()])
def test_a_damaged_plan_is_refused(directory: Directory, content: bytes) -> None:
    directory.write("_plan-000000.parquet", content)
    with pytest.raises(InputError, match=r"out/_plan-000000\.parquet is damaged \(.*choose another --out"):
        read_plan(directory)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "~unknown-user/x", ""])
def test_invalid_directory_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"cannot be a path: .*; pass a string|the path is an empty string"):
        Directory(name)


def test_rows_are_counted_and_damaged_tables_named(directory: Directory) -> None:
    assert directory.count_rows() == 0
    directory.write("part-000000.parquet", other_table())
    directory.write("part-000001.parquet", other_table())
    directory.write("_plan-000000.parquet", other_table())
    assert directory.count_rows() == 2
    directory.write("part-000002.parquet", b"PAR1")
    with pytest.raises(
        InputError, match=r"out has a damaged file: .*part-000002.parquet.*; delete it and run"
    ):
        directory.count_rows()


def test_a_file_that_cannot_be_removed_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="a cannot be removed"):
        Directory(str(tmp_path)).remove("a")
