from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from vitpose.batch.plan import begin_or_go_on, done_shards, plan_shards, read_plan
from vitpose.batch.storage import Place, find_sources, is_remote, read_remote
from vitpose.errors import ImageError, InputError, MissingDependencyError, OutputError

from .conftest import make_images


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path, memory: Any) -> Place:
    return Place(str(tmp_path / "out") if request.param == "local" else "memory://bucket/out")


def test_files_come_back_as_they_were_written(place: Place) -> None:
    assert place.names() == []
    place.write("a.bin", b"1")
    place.write("b.bin", b"2")
    place.write("a.bin", b"3")
    assert sorted(place.names()) == ["a.bin", "b.bin"]
    assert place.read("a.bin") == b"3"
    place.remove("a.bin")
    place.remove("a.bin")
    assert place.names() == ["b.bin"]
    with pytest.raises(InputError, match=r"out/c.bin cannot be read"):
        place.read("c.bin")


def test_a_plan_only_grows(place: Place) -> None:
    first = plan_shards(place, ["a", "b", "c"], 2)
    assert [(shard.number, shard.images) for shard in first] == [(0, ("a", "b")), (1, ("c",))]
    assert plan_shards(place, ["c", "b", "a"], 7) == first
    more = plan_shards(place, ["d", "a", "e"], 1)
    assert more == read_plan(place)
    assert [(shard.number, shard.images) for shard in more[2:]] == [(2, ("d",)), (3, ("e",))]
    assert done_shards(place) == set()
    place.write(more[2].name, b"")
    assert done_shards(place) == {2}


def test_names_that_are_no_unicode(place: Place) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    plan_shards(place, [name], 2)
    assert read_plan(place)[0].images == (name,)


def test_a_run_goes_on_with_the_same_settings_only(place: Place) -> None:
    begin_or_go_on(place, {"model": "a", "labels": ["person"]})
    begin_or_go_on(place, {"model": "a", "labels": ["person"]})
    with pytest.raises(
        InputError, match=r"out was begun with model 'a', not 'b'; give the same command to go on"
    ):
        begin_or_go_on(place, {"model": "b", "labels": ["person"]})


def test_a_folder_of_something_else_is_left_alone(place: Place) -> None:
    place.write("thesis.txt", b"")
    with pytest.raises(InputError, match=r"is not empty and no run of ours \(thesis.txt lies there\)"):
        begin_or_go_on(place, {})


def test_what_a_killed_run_was_writing_is_removed(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    begin_or_go_on(place, {})
    (tmp_path / ".part-000000.parquet.x7.part").write_bytes(b"half")
    begin_or_go_on(place, {})
    assert place.names() == ["_job.json"]


def test_images_are_found_here_and_elsewhere(tmp_path: Path, memory: Any) -> None:
    make_images(tmp_path / "in", 5, 1)
    here = find_sources([str(tmp_path / "in"), str(tmp_path / "in" / "000.png")])
    assert [Path(name).name for name in here] == ["000.png", "001.png", "002.png", "003.png", "bad 0.jpg"]
    assert find_sources([f"file://{tmp_path}/in"]) == here
    memory.put(str(tmp_path / "in"), "/photos", recursive=True)
    memory.pipe_file("/photos/notes.txt", b"")
    there = find_sources(["memory://photos"])
    assert [Path(name).name for name in there] == [Path(name).name for name in here]
    assert find_sources(["memory://photos/00*.png"]) == there[:4]
    assert find_sources([there[0]]) == there[:1]
    assert all(is_remote(name) for name in there)
    assert read_remote(there[0]) == Path(here[0]).read_bytes()


def test_what_cannot_be_found_or_written(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"memory://nothing gives no images; check the address"):
        find_sources(["memory://nothing"])
    with pytest.raises(ImageError, match=r"memory://nothing/a.jpg cannot be read: .*; check the address"):
        read_remote("memory://nothing/a.jpg")
    with pytest.raises(InputError, match=r"foo://bar is no address that fsspec knows"):
        Place("foo://bar")
    with pytest.raises(MissingDependencyError, match=r"s3://bucket/x cannot be reached: .*s3fs"):
        Place("s3://bucket/x")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file cannot be listed: .*; give a folder"):
        Place(str(tmp_path / "file")).names()
    with pytest.raises(OutputError, match=r"a cannot be written"):
        Place(str(tmp_path / "file")).write("a", b"")
    place = Place("memory://bucket")
    place._files = type("Full", (), {"makedirs": lambda *a, **k: None, "pipe_file": lambda *a: 1 / 0})()
    with pytest.raises(
        OutputError, match=r"memory://bucket/a cannot be written: division by zero; check the address"
    ):
        place.write("a", b"")


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"[" * 200_000, b"NaN"])
def test_settings_that_are_damaged(place: Place, content: bytes) -> None:
    place.write("_job.json", content)
    with pytest.raises(InputError, match=r"out/_job\.json"):
        begin_or_go_on(place, {})


def other_table() -> bytes:
    content = io.BytesIO()
    parquet.write_table(pyarrow.table({"shard": ["a"], "images": [5]}), content)
    return content.getvalue()


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"PAR1" * 100, other_table()])
def test_a_plan_that_is_damaged(place: Place, content: bytes) -> None:
    place.write("_plan-000000.parquet", content)
    with pytest.raises(InputError, match=r"out/_plan-000000\.parquet is damaged \(.*choose another --out"):
        read_plan(place)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_names_that_no_directory_can_have(name: str, tmp_path: Path) -> None:
    place = Place(str(tmp_path / name))
    with pytest.raises((InputError, OutputError), match=r"cannot be (listed|written)"):
        begin_or_go_on(place, {})
    with pytest.raises(InputError, match=r"cannot be a directory: .*; give its whole path"):
        Place("~nobody-here/x")


def test_what_cannot_be_removed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="a cannot be removed"):
        Place(str(tmp_path)).remove("a")
