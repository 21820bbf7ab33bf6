from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import vitpose
from vitpose.batch.job import Counts, Progress, failures_of, predict_many
from vitpose.batch.plan import Shard
from vitpose.batch.worker import Worker
from vitpose.errors import InputError, OutputError, UnknownNameError, WorkerError

from .conftest import LOADING, make_images, names, rows, table_of


def run(source: Path | str, out: Path | str, **options: object) -> Progress:
    return predict_many(
        [str(source)], str(out), loading=LOADING, **{"workers": 0, "shard_size": 4, **options}
    )


def arguments(source: Path, out: Path, *options: str) -> list[str]:
    files = ["predict", str(source), "--out", str(out)]
    return [*files, "--detector", "whole-image", "--device", "cpu", "--shard-size", "2", *options]


def command(source: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "vitpose", *arguments(source, out, *options)]


def test_the_rows_are_those_of_the_pipeline(images: Path, tmp_path: Path) -> None:
    reports: list[Progress] = []
    progress = run(images, tmp_path / "out.parquet", report=reports.append)
    assert (progress.images, progress.run, progress.earlier) == (12, Counts(12, 10, 2), Counts())
    assert progress.runs_on.startswith("torch, cpu, ")
    assert [report.done.images for report in reports] == [0, 4, 8, 12]
    assert names(tmp_path / "out.parquet") == {
        "_job.json", "_plan-000000.parquet", "part-000000.parquet", "part-000001.parquet", "part-000002.parquet",
    }  # fmt: skip
    found = rows(tmp_path / "out.parquet")
    pipe = vitpose.load(**LOADING)
    for row, path in zip(found, sorted(images.glob("*.png")), strict=True):
        poses = pipe(path)
        assert row["image"] == str(path)
        assert (row["width"], row["height"], row["instance"], row["id"]) == (30, poses_height(path), 0, None)
        np.testing.assert_allclose([row["nose_x"], row["nose_y"]], poses.xy[0, 0], atol=1e-2)
        np.testing.assert_allclose(row["right_ankle_score"], poses.scores[0, 16], atol=1e-5)
    failed = rows(failures_of(str(tmp_path / "out.parquet")))
    assert [Path(row["image"]).name for row in failed] == ["bad 0.jpg", "bad 1.jpg"]
    assert "is not an image" in failed[0]["reason"]


def poses_height(path: Path) -> int:
    return vitpose.read_image(path).shape[0]


def test_a_stopped_run_is_resumed_and_takes_new_images(images: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.parquet", tmp_path / "parts.parquet"
    run(images, whole)
    answers = iter([False, True])
    stopped = run(images, parts, stop=lambda: next(answers))
    assert (stopped.done.images, stopped.images, stopped.complete) == (4, 12, False)
    before = (parts / "part-000000.parquet").stat().st_mtime_ns
    rest = run(images, parts)
    assert rest.complete
    assert (rest.earlier, rest.run) == (Counts(4, 4, 0), Counts(8, 6, 2))
    assert (parts / "part-000000.parquet").stat().st_mtime_ns == before
    assert rows(parts) == rows(whole)
    assert rows(failures_of(str(parts))) == rows(failures_of(str(whole)))
    assert run(images, parts) == Progress(12, Counts(12, 10, 2))
    shutil.copy(images / "000.png", images / "zzz.png")
    added = run(images, parts)
    assert (added.images, added.earlier, added.run) == (13, Counts(12, 10, 2), Counts(1, 1, 0))
    assert len(rows(parts)) == 11


def test_remote_file_systems_give_the_same(images: Path, tmp_path: Path, memory: Any) -> None:
    run(images, tmp_path / "out.parquet")
    memory.put(str(images), "/photos", recursive=True)
    progress = run("memory://photos", "memory://results/out.parquet")
    assert progress.run == Counts(12, 10, 2)
    memory.get("/results/", str(tmp_path / "copy"), recursive=True)
    expected = rows(tmp_path / "out.parquet")
    found = rows(tmp_path / "copy" / "out.parquet")
    assert [row["image"] for row in found] == [
        f"memory:///photos/{Path(row['image']).name}" for row in expected
    ]
    assert [{**row, "image": ""} for row in found] == [{**row, "image": ""} for row in expected]
    (failed, _) = rows(tmp_path / "copy" / "out-failures.parquet")
    assert failed["reason"].startswith("memory:///photos/bad 0.jpg is not an image")
    assert run("memory://photos", "memory://results/out.parquet") == Progress(12, Counts(12, 10, 2))


def test_processes_give_the_same(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "here.parquet")
    assert run(images, tmp_path / "there.parquet", workers=2).complete
    assert rows(tmp_path / "there.parquet") == rows(tmp_path / "here.parquet")


def test_a_dead_worker_is_replaced(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "here.parquet")
    killed: list[int] = []

    def kill_once(progress: Progress) -> None:
        if progress.done.images and not killed:
            (worker,) = running_workers()
            killed.append(worker.pid)
            worker.kill()

    assert run(images, tmp_path / "there.parquet", workers=1, report=kill_once).complete
    assert killed
    assert rows(tmp_path / "there.parquet") == rows(tmp_path / "here.parquet")


def running_workers() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found += [process] if "spawn_main" in " ".join(process.cmdline()) else []
    return found


def test_a_run_whose_workers_keep_dying_ends(images: Path, tmp_path: Path) -> None:
    over = threading.Event()

    def kill_all() -> None:
        while not over.wait(0.1):
            for worker in running_workers():
                with suppress(psutil.Error):
                    worker.kill()

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        with pytest.raises(
            WorkerError,
            match=r"a worker died 3 times in a row in one of the shards \[0\] .*bad 0.jpg.*fewer --workers",
        ):
            run(images / "bad 0.jpg", tmp_path / "out.parquet", workers=1)
    finally:
        over.set()
        killer.join()


def test_errors_of_workers_are_raised(images: Path, tmp_path: Path) -> None:
    loading = LOADING | {"model": "vitpose-tinny"}
    with pytest.raises(UnknownNameError, match="unknown model 'vitpose-tinny'; did you mean vitpose-tiny"):
        predict_many([str(images)], str(tmp_path / "out.parquet"), loading=loading, workers=1)


def test_invalid_arguments_are_refused(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    with pytest.raises(InputError, match=r"shard_size 0 must be at least 1, and workers 1 at least 0"):
        run(images, out, shard_size=0, workers=1)
    with pytest.raises(UnknownNameError, match=r"unknown cluster 'dask'; .*known: ray, ray:ADDRESS"):
        run(images, out, cluster="dask")
    run(images, out)
    with pytest.raises(InputError, match=r"was started with flip_test None, not 'True'"):
        run(images, out, running={"flip_test": True})


def test_a_full_disk_keeps_finished_shards(images: Path, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    out = tmp_path / "out.parquet"
    run(images, tmp_path / "whole.parquet")

    def fill(progress: Progress) -> None:
        if progress.done.images:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OutputError, match=r"part-000001.parquet cannot be written: .*free disk space"):
            run(images, out, report=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(out) == {"_job.json", "_plan-000000.parquet", "part-000000.parquet"}
    assert run(images, out).complete
    assert rows(out) == rows(tmp_path / "whole.parquet")


def test_names_that_are_not_valid_unicode(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 1, 0)
    try:
        (tmp_path / "in" / "000.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/in/caf\xe9 -1.png"))
    except OSError:
        pytest.skip("this file system accepts Unicode names only")
    run(tmp_path / "in", tmp_path / "out.parquet")
    (row,) = rows(tmp_path / "out.parquet")
    assert row["image"].endswith("caf\\udce9 -1.png")


def test_a_shard_without_poses_is_a_table_without_rows(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 2, 2)
    assert run(tmp_path / "in", tmp_path / "out.parquet").done == Counts(2, 0, 2)
    assert rows(tmp_path / "out.parquet") == []
    shard = Shard(0, (str(tmp_path / "in" / "bad 0.jpg"),))
    assert table_of(Worker.load(LOADING, {}).run(shard).poses).num_columns > 50


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_workers_share_the_cores(engine: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("vitpose.hardware.threads._limit", 0)  # restored afterwards
    worker = Worker.load({**LOADING, "model": checkpoint, "engine": engine}, {}, workers=2)
    runner = worker._pipe.estimator.engine
    if engine == "onnxruntime":
        assert runner._session.get_session_options().intra_op_num_threads == 1
    else:
        assert runner._compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_workers_run_exported_files_without_torch(
    exported: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported("onnx")
    monkeypatch.setattr("vitpose.hardware.threads._limit", 0)  # restored afterwards
    monkeypatch.setitem(sys.modules, "torch", None)
    worker = Worker.load({**LOADING, "model": path}, {}, workers=2)
    assert worker._pipe.estimator.engine.description.startswith("ONNX Runtime")


def finish(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def count_parts(out: Path) -> int:
    return len(list(out.glob("part-*")))


def kill_and_resume(images: Path, folder: Path, start: Callable, moments: list[int]) -> None:
    """Kills one run at each number of finished shards in `moments` (of nine), and resumes it."""

    def run_command(out: Path, until: int | None = None) -> int:
        program = start(arguments(images, out))
        while until is not None and count_parts(out) < until and program.poll() is None:
            time.sleep(0.002)
        if until is not None:
            program.send_signal(signal.SIGKILL)
        return program.wait()

    assert run_command(folder / "whole.parquet") == 1  # two bad images
    whole, failed = rows(folder / "whole.parquet"), rows(folder / "whole-failures.parquet")
    for turn, moment in enumerate(moments):
        out = folder / f"{turn}.parquet"
        assert run_command(out, until=moment) == -signal.SIGKILL, "killed too late: all shards were done"
        done = count_parts(out)
        assert moment <= done < 9
        assert run_command(out) in (0, 1)  # 0 if what failed had been done before
        assert rows(out) == whole, f"turn {turn}, killed with {done} shards done"
        assert rows(folder / f"{turn}-failures.parquet") == failed
        assert names(out) == names(folder / "whole.parquet")
        shutil.rmtree(out)


def test_killed_runs_are_resumed(tmp_path: Path, start_vitpose: Callable) -> None:
    kill_and_resume(make_images(tmp_path / "in", 18), tmp_path, start_vitpose, [0, 1, 4])


@pytest.mark.slow
def test_runs_killed_at_twenty_moments_are_resumed(tmp_path: Path, start_vitpose: Callable) -> None:
    moments = random.Random(2).choices(range(7), k=20)
    kill_and_resume(make_images(tmp_path / "in", 18), tmp_path, start_vitpose, moments)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_finishes_the_shards_in_flight_and_prints_how_to_resume(
    tmp_path: Path, number: signal.Signals, start_vitpose: Callable
) -> None:
    images, out = make_images(tmp_path / "in", 60, 0), tmp_path / "my out.parquet"
    program = start_vitpose(arguments(images, out))
    while not count_parts(out):
        assert program.poll() is None, program.errors
        time.sleep(0.002)
    program.send_signal(number)
    assert program.wait() == 130
    assert (
        program.errors.strip()
        == "stopping: finishing the shards in progress; press Ctrl-C again to stop at once"
    )
    first, second, third = program.output.splitlines()
    done = count_parts(out) * 2
    assert first.startswith(f"this run: {done} images, {done} instances in ")
    assert second == f"whole job: {done} of 60 images, {done} instances"
    assert (
        third
        == f"resume with: vitpose {' '.join(arguments(images, out)[:2])} --out '{out}' --detector "
        + ("whole-image --device cpu --shard-size 2")
    )
    assert len(rows(out)) == done < 60
    assert not [name for name in names(out) if name.startswith(".")]


@pytest.mark.slow
def test_ray_gives_the_same_after_a_worker_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    images, out = make_images(tmp_path / "in", 30), tmp_path / "ray.parquet"
    assert finish(command(images, tmp_path / "whole.parquet"), tmp_path).returncode == 1
    process = subprocess.Popen(
        command(images, out, "--cluster", "ray", "--workers", "1"),
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not count_parts(out):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    actors = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "MapWorker" in " ".join(child.cmdline())
    ]
    assert len(actors) == 1
    actors[0].kill()
    done = count_parts(out)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert done < 15, "killed too late: all shards were done"
    assert "30 images, 28 instances, 2 failures listed in " in output  # Ray prints too
    assert rows(out) == rows(tmp_path / "whole.parquet")
    assert rows(tmp_path / "ray-failures.parquet") == rows(tmp_path / "whole-failures.parquet")


def test_settings_are_stored_with_the_results(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "out.parquet")
    kept = json.loads((tmp_path / "out.parquet" / "_job.json").read_text())
    assert kept == {"detector": "whole-image", "model": LOADING["model"]}
