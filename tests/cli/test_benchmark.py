from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vitpose.cli import app
from vitpose.cli.benchmark import _load_baseline, _measure_peak
from vitpose.errors import InputError, WorkerError


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        app, ["benchmark", "--device", "cpu", "--people", "2", "--rounds", "1", *arguments]
    )
    return result.exit_code, result.output


def test_every_combination_has_a_row() -> None:
    code, output = run("--dtype", "float32", "--dtype", "bfloat16")
    assert code == 0, output
    assert "2 people in an image of 1280x720, medians of 1 round" in output
    assert output.count("vitpose-tiny") == 2
    for cell in ("torch, cpu, float32", "torch, cpu, bfloat16", "crop", "network", "decode", "people"):
        assert cell in output
    assert not re.search(r"\bread\b", output)
    assert "peak: memory of a process that loads the model and runs one round" in " ".join(output.split())


@pytest.mark.parametrize(
    ("models", "trusted"), [(["a.pt2", "b.onnx"], [True, False]), (["b.onnx", "vitpose-tiny"], [True, True])]
)
def test_trust_is_passed_for_the_files_that_require_it(
    models: list[str], trusted: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no file requires it, it is passed for all, and loading refuses it."""
    passed = []

    def load_all(loaders: list) -> None:
        passed.extend(loader.args[1]["trust"] for _, loader in loaders)
        raise InputError("stopped before loading")

    monkeypatch.setattr("vitpose.cli.benchmark._load_all", load_all)
    run("--trust", *(argument for model in models for argument in ("--model", model)))
    assert passed == trusted


def test_unsupported_combinations_are_left_out_with_a_reason() -> None:
    code, output = run("--engine", "torch", "--engine", "onnxruntime", "--dtype", "bfloat16")
    assert code == 0, output
    assert "torch, cpu, bfloat16" in output
    reason = "with engine 'onnxruntime' vitpose-tiny runs in float32, not in bfloat16; leave dtype at 'auto'"
    assert f"left out: vitpose-tiny, engine onnxruntime, dtype bfloat16: {reason}" in output


def test_an_exported_file_is_measured(exported: Callable[[str], Path]) -> None:
    code, output = run("--model", str(exported("onnx")))
    assert code == 0, output
    assert "ONNX Runtime, cpu, float32" in output


def test_refuses_to_run_without_a_supported_combination() -> None:
    code, output = run("--engine", "onnxruntime", "--engine", "openvno", "--dtype", "bfloat16")
    assert code == 1
    assert (
        "none of the combinations can be measured: vitpose-tiny, engine onnxruntime, dtype bfloat16: with"
        in output
    )
    assert "dtype bfloat16: unknown engine 'openvno'; did you mean openvino?" in output


def test_reading_of_a_given_image_is_measured(tmp_path: Path) -> None:
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    code, output = run(str(tmp_path / "a.png"))
    assert code == 0, output
    assert "image of 200x100" in output
    assert re.search(r"\bread\b", output)


def test_against_transformers() -> None:
    pytest.importorskip("transformers")
    code, output = run("--dtype", "float32", "--against", "transformers")
    assert code == 0, output
    assert "transformers, cpu, float32" in output


def test_memory_is_measured_in_a_separate_process() -> None:
    held = np.ones(200_000_000)  # 1.6 GB in this process, which must not count
    code, output = run("--dtype", "float32", "--engine", "torch", "--engine", "torch")
    assert code == 0, output
    first, second = (int(row.split()[-1]) for row in output.splitlines() if "vitpose-tiny" in row)
    assert first == pytest.approx(second, rel=0.1)
    assert first < held.nbytes / 1e6


def test_a_killed_process_is_an_error() -> None:
    message = r"the process that measures the memory was killed, probably for lack of memory; .* --people"
    with pytest.raises(WorkerError, match=message):
        _measure_peak(partial(os._exit, 1))


def test_a_baseline_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    code, output = run("--dtype", "float32", "--against", "transformers")
    assert code == 0, output
    assert (
        "left out: vitpose-tiny, transformers: the package 'transformers' is required to be measured"
        in output
    )


def test_refuses_an_unknown_baseline() -> None:
    code, output = run("--against", "transfomers")
    assert code == 1
    assert "unknown library to run against 'transfomers'; did you mean transformers?" in output


def test_the_baseline_refuses_exported_files() -> None:
    with pytest.raises(InputError, match=r"transformers does not run a\.onnx; give the checkpoint"):
        _load_baseline(None, "a.onnx", "cpu", 0)
