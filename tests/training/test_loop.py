"""The loop: stopped and resumed, alone and in company, it is the same training."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vitpose.errors import InputError
from vitpose.training.loop import Stream, find_checkpoints, train
from vitpose.training.recipe import Recipe

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's hints; ours are tested elsewhere


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def start(recipe: str, out: Path) -> subprocess.Popen:
    """Begins a training in a process of its own."""
    path = out.with_suffix(".toml")
    path.write_text(recipe)
    command = [sys.executable, "-W", "ignore", "-m", "vitpose", "train", str(path), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_killed_and_resumed_it_goes_on_to_the_last_bit(
    table: dict, toml_of: Callable, tmp_path: Path
) -> None:
    undisturbed = start(toml_of(table), tmp_path / "whole")
    killed = start(toml_of(table), tmp_path / "killed")
    deadline = time.monotonic() + 120
    while not find_checkpoints(tmp_path / "killed"):
        assert killed.poll() is None, killed.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    reached = find_checkpoints(tmp_path / "killed")[-1]
    assert reached.name < "step-00000010", "it was killed too late to show anything"
    assert start(toml_of(table), tmp_path / "killed").wait() == 0
    assert undisturbed.wait() == 0
    expected, found = (find_checkpoints(tmp_path / name)[-1] for name in ("whole", "killed"))
    assert expected.name == found.name == "step-00000010"
    for name, tensor in weights(expected).items():
        assert torch.equal(tensor, weights(found)[name]), name
    rows = [
        line.split(",")
        for path in sorted((tmp_path / "killed" / "logs").glob("version_*/metrics.csv"))
        for line in path.read_text().splitlines()[1:]
    ]
    undisturbed_rows = (tmp_path / "whole/logs/version_0/metrics.csv").read_text().splitlines()[1:]
    assert {tuple(row) for row in rows} >= {tuple(line.split(",")) for line in undisturbed_rows}


def test_weights_of_sources_are_for_all_or_none(recipe: Recipe, tmp_path: Path) -> None:
    first = recipe.sources[0]
    mixed = replace(recipe, sources=(replace(first, weight=1.0), first))
    with pytest.raises(InputError, match="some sources have a weight and some have none"):
        train(mixed, tmp_path)


def test_half_a_checkpoint_is_none(tmp_path: Path) -> None:
    for name in ("step-00000002", "step-00000004.part", "step-3", "logs"):
        (tmp_path / name).mkdir()
    assert [path.name for path in find_checkpoints(tmp_path)] == ["step-00000002"]


def test_time_that_runs_out_stops_cleanly_and_can_be_resumed(recipe: Recipe, tmp_path: Path) -> None:
    short = replace(recipe, loop=replace(recipe.loop, minutes=1e-9))
    assert train(short, tmp_path).name == "step-00000001"
    assert train(recipe, tmp_path).name == "step-00000010"


def test_another_recipe_in_the_same_folder_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    short = replace(recipe, loop=replace(recipe.loop, minutes=1e-9))
    train(short, tmp_path)
    other = replace(recipe, optimizer=replace(recipe.optimizer, lr=0.5))
    with pytest.raises(InputError, match="holds a training of another recipe"):
        train(other, tmp_path)


def test_two_processes_are_one_with_the_double_batch(table: dict, toml_of: Callable, tmp_path: Path) -> None:
    table["model"]["drop_path"] = 0.0
    table["loop"] |= {"epochs": 0.4, "ema": 0.0}  # two steps of eight
    pair = {**table, "loop": {**table["loop"], "batch_size": 4, "devices": 2, "strategy": "ddp"}}
    alone, together = start(toml_of(table), tmp_path / "alone"), start(toml_of(pair), tmp_path / "together")
    for process in (alone, together):
        assert process.wait() == 0, process.stderr.read().decode()
    expected, found = (find_checkpoints(tmp_path / name)[-1] for name in ("alone", "together"))
    assert expected.name == found.name == "step-00000002"
    for name, tensor in weights(expected).items():
        torch.testing.assert_close(weights(found)[name], tensor, atol=2e-6, rtol=1e-4)


def test_accumulated_batches_are_one_large_batch(recipe: Recipe, tmp_path: Path) -> None:
    model = replace(recipe.model, drop_path=0.0)
    loop = replace(recipe.loop, epochs=0.4, ema=0.0)
    whole = train(replace(recipe, model=model, loop=loop), tmp_path / "whole")
    parts = replace(loop, batch_size=4, accumulate=2)
    summed = train(replace(recipe, model=model, loop=parts), tmp_path / "parts")
    assert whole.name == summed.name == "step-00000002"
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(summed)[name], tensor, atol=2e-6, rtol=1e-4)


def test_the_stream_goes_on_where_it_stopped() -> None:
    from vitpose.data.dataset import MixSampler

    def taken(start: int, count: int) -> list[tuple[int, int]]:
        stream = iter(Stream(MixSampler([5, 3], seed=4), start))
        return [next(stream) for _ in range(count)]

    assert taken(0, 30)[13:] == taken(13, 17)
    assert sorted(index for _, index in taken(0, 8)) == list(range(8))
