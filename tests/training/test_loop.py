"""The loop: resumed runs, and runs on several devices, have the same result."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vitpose.data.annotations import read_training_annotations
from vitpose.data.pack import write_pack
from vitpose.errors import InputError, OutputError
from vitpose.training.loop import train
from vitpose.training.recipe import Recipe
from vitpose.training.recipe_tables import Source, Stage
from vitpose.training.run_directory import RECIPE_FILE, find_checkpoints, lock_directory, step_of

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's hints; our warnings are tested elsewhere


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture
def start(start_vitpose: Callable, toml_of: Callable) -> Callable:
    """Start a training run in another process."""

    def begin(table: dict, out: Path, **options: Any) -> Any:
        path = out.with_suffix(".toml")
        path.write_text(toml_of(table))
        return start_vitpose(["train", str(path), "--out", str(out)], **options)

    return begin


def test_a_killed_and_resumed_run_has_the_same_bits(table: dict, start: Callable, tmp_path: Path) -> None:
    """The run that is not killed has no validation either, which does not affect the result."""
    table["loop"]["epochs"] = 4
    undisturbed = start(table, tmp_path / "whole")
    table["validation"] = [{key: table["sources"][0][key] for key in ("annotations", "images")}]
    table["loop"]["evaluate_every"] = 3
    killed = start(table, tmp_path / "killed")
    while not find_checkpoints(tmp_path / "killed"):
        assert killed.poll() is None, killed.errors
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    reached = find_checkpoints(tmp_path / "killed")[-1]
    assert reached.name < "step-00000020", "it was killed too late to show anything"
    assert start(table, tmp_path / "killed").wait() == 0
    assert undisturbed.wait() == 0
    expected, found = (find_checkpoints(tmp_path / name)[-1] for name in ("whole", "killed"))
    assert expected.name == found.name == "step-00000020"
    for name, tensor in weights(expected).items():
        assert torch.equal(tensor, weights(found)[name]), name
    whole, logged = (losses(tmp_path / name) for name in ("whole", "killed"))
    assert {step: whole[step] for step in logged} == logged
    # The row of the step that was reached may have been lost with the process.
    assert set(logged) >= {step for step in whole if int(step) >= step_of(reached)}
    measured = {int(row["step"]) for row in rows(tmp_path / "killed") if not row["loss"]}
    assert measured == {3, 6, 9, 12, 15, 18, 20}
    assert (tmp_path / "killed/best/model.safetensors").is_file()


def rows(folder: Path) -> list[dict[str, str]]:
    """Return the rows of the logs of all starts."""
    files = sorted((folder / "logs").glob("version_*/metrics.csv"))
    return [row for path in files for row in csv.DictReader(path.open())]


def losses(folder: Path) -> dict[str, str]:
    return {row["step"]: row["loss"] for row in rows(folder) if row["loss"]}


@pytest.fixture(scope="session")
def pack(arrows: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("packed") / "pack"
    write_pack([read_training_annotations(arrows / "arrows.json", arrows)], folder)
    return str(folder)


WAYS = ["images", "a pack and workers", "two packs on the device", "two stages"]


@pytest.mark.parametrize("way", WAYS)
def test_a_run_stopped_after_every_step_has_the_same_result(
    recipe: Recipe, pack: str, tmp_path: Path, way: str
) -> None:
    loop = replace(recipe.loop, epochs=0.8, checkpoint_every=100)
    if way == "a pack and workers":
        recipe, loop = replace(recipe, sources=(Source(pack=pack),)), replace(loop, workers=1)
    elif way == "two packs on the device":
        two = (Source(pack=pack, weight=1.0), Source(pack=pack, weight=2.0))
        recipe, loop = replace(recipe, sources=two), replace(loop, on_device=True, batch_size=16)
    elif way == "two stages":
        larger = Stage(model={"height": 96, "width": 64}, augmentation={"rotation_probability": 0.0})
        recipe = replace(recipe, stages=(Stage(loop={"epochs": 0.4}), larger))
    whole = train(replace(recipe, loop=loop), tmp_path / "whole")
    short = replace(recipe, loop=replace(loop, minutes=1e-9))
    reached, goal = [train(short, tmp_path / "stopped")], whole.relative_to(tmp_path / "whole")
    while reached[-1].relative_to(tmp_path / "stopped") != goal:
        reached.append(train(short, tmp_path / "stopped"))
        assert reached[-1] != reached[-2], "no step was taken"
    assert len(reached) > 3
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(reached[-1])[name]), name


def test_a_run_stopped_by_its_time_limit_can_be_resumed(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "vitpose")
    short = replace(recipe, loop=replace(recipe.loop, minutes=1e-9))
    assert train(short, tmp_path).name == "step-00000001"
    assert "step 1 of 10, loss 0.0" in caplog.text
    assert "stopped after step 1 of 10; run the same command again to resume" in caplog.text
    assert train(recipe, tmp_path, stop=lambda: True).name == "step-00000002"
    assert train(recipe, tmp_path).name == "step-00000010"


def test_sigint_stops_with_a_checkpoint(table: dict, start: Callable, tmp_path: Path) -> None:
    table["loop"] |= {"epochs": 1000, "checkpoint_every": 100000}
    running = start(table, tmp_path / "long")
    while "step 1 of 5000" not in running.errors:
        assert running.poll() is None, running.errors
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    assert running.wait() == 130
    assert "stopping: writing a checkpoint; press Ctrl-C again" in running.errors
    reached = step_of(find_checkpoints(tmp_path / "long")[-1])
    assert f"stopped after step {reached} of 5000; run the same command again to resume" in running.errors


def test_a_checkpoint_that_cannot_be_written_raises(table: dict, start: Callable, tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="file size limits require POSIX")
    whole = start(table, tmp_path / "whole")
    assert whole.wait() == 0, whole.errors
    model = (find_checkpoints(tmp_path / "whole")[-1] / "model.safetensors").stat().st_size
    running = start(table, tmp_path / "full", largest=model + 1000)
    assert running.wait() == 1
    assert re.search(
        r"error: the checkpoint \S+step-00000002 cannot be written .*File too large.*free disk space",
        running.errors,
    )
    assert not find_checkpoints(tmp_path / "full")


def test_two_runs_in_one_directory_raise(recipe: Recipe, tmp_path: Path) -> None:
    with (
        lock_directory(tmp_path),
        pytest.raises(
            InputError, match=f"another training run is using {tmp_path}; wait until it ends, or choose"
        ),
    ):
        train(recipe, tmp_path)
    assert not (tmp_path / RECIPE_FILE).exists(), "the stored recipe of the other run was overwritten"


def test_a_directory_that_cannot_be_created_raises(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file cannot be written to: .*exists.*; choose another directory"):
        train(recipe, tmp_path / "file")


def test_diverged_weights_are_not_saved(recipe: Recipe, tmp_path: Path) -> None:
    optimizer = replace(recipe.optimizer, lr=1e20, clip=0.0, warmup_steps=0)
    with pytest.raises(
        InputError, match=r"the norm of the weights is (nan|inf) after step \d+: .* diverged.*last good"
    ):
        train(replace(recipe, optimizer=optimizer), tmp_path)
    for checkpoint in find_checkpoints(tmp_path):
        assert all(tensor.isfinite().all() for tensor in weights(checkpoint).values())


@pytest.mark.parametrize(
    ("strategy", "optimizer"),
    [
        ("ddp", "muon"),  # matrices by Muon, other parameters by AdamW
        pytest.param("ddp", "adamw", marks=pytest.mark.slow),
        pytest.param("fsdp", "adamw", marks=pytest.mark.slow),
    ],
)
def test_two_processes_equal_one_with_twice_the_batch_size(
    table: dict, toml_of: Callable, start: Callable, tmp_path: Path, strategy: str, optimizer: str
) -> None:
    """The run of two processes is stopped once and resumed, as FSDP only loads sharded weights."""
    table["optimizer"] = {**table.get("optimizer", {}), "kind": optimizer}
    table["model"]["drop_path"] = 0.0
    table["loop"]["epochs"] = 0.6  # three steps of eight
    loop = {**table["loop"], "batch_size": 4, "devices": 2, "strategy": strategy}
    alone = start(table, tmp_path / "alone")
    for minutes in (1e-9, 0):
        # Lightning starts the second process with the command of the first, so that has to be a program.
        path, out = tmp_path / "together.toml", tmp_path / "together"
        path.write_text(toml_of({**table, "loop": {**loop, "minutes": minutes}}))
        command = [sys.executable, "-m", "vitpose", "train", str(path), "--out", str(out)]
        together = subprocess.run(command, capture_output=True, text=True)
        assert together.returncode == 0, together.stderr
    assert alone.wait() == 0, alone.errors
    expected, found = (find_checkpoints(tmp_path / name)[-1] for name in ("alone", "together"))
    assert expected.name == found.name == "step-00000003"
    for name, tensor in weights(expected).items():
        torch.testing.assert_close(weights(found)[name], tensor, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("reached", ["all processes", pytest.param("the first", marks=pytest.mark.slow)])
def test_sigterm_stops_two_processes_with_a_checkpoint(
    table: dict, toml_of: Callable, tmp_path: Path, reached: str
) -> None:
    """All processes receive the signal from a shell or `timeout`, and only the first from `kill`."""
    table["loop"] |= {"epochs": 1000, "checkpoint_every": 100000, "batch_size": 4, "devices": 2}
    (tmp_path / "long.toml").write_text(toml_of(table))
    command = [
        sys.executable,
        "-m",
        "vitpose",
        "train",
        str(tmp_path / "long.toml"),
        "--out",
        str(tmp_path / "long"),
    ]
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        while "step 1 of 5000" not in (text := (tmp_path / "log").read_text()):
            assert running.poll() is None, text
            time.sleep(0.05)
        (os.killpg if reached == "all processes" else os.kill)(running.pid, signal.SIGTERM)
        assert running.wait(timeout=120) == 130, (tmp_path / "log").read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):  # both processes wait for ever if this fails
            os.killpg(running.pid, signal.SIGKILL)
    step = step_of(find_checkpoints(tmp_path / "long")[-1])
    assert (
        f"stopped after step {step} of 5000; run the same command again to resume"
        in (tmp_path / "log").read_text()
    )


def test_a_terminal_shows_the_progress(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    train(replace(recipe, loop=replace(recipe.loop, epochs=0.4)), tmp_path)
    shown = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", sys.stderr.getvalue())
    assert re.search(r"step 2/2 \S+ loss 0\.0\d+ ", shown)


def test_accumulated_batches_equal_one_large_batch(recipe: Recipe, tmp_path: Path) -> None:
    model = replace(recipe.model, drop_path=0.0)
    loop = replace(recipe.loop, epochs=0.4, ema=0.0)
    whole = train(replace(recipe, model=model, loop=loop), tmp_path / "whole")
    parts = replace(loop, batch_size=4, accumulate=2)
    summed = train(replace(recipe, model=model, loop=parts), tmp_path / "parts")
    assert whole.name == summed.name == "step-00000002"
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(summed)[name], tensor, atol=2e-6, rtol=1e-4)
