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
from vitpose.cli.benchmark import _load_rival, _peak_alone
from vitpose.errors import InputError, WorkerError


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(
        app, ["benchmark", "--device", "cpu", "--people", "2", "--rounds", "1", *arguments]
    )
    return result.exit_code, result.output


def test_every_choice_has_a_line() -> None:
    code, said = run("--dtype", "float32", "--dtype", "bfloat16")
    assert code == 0, said
    assert "2 people in an image of 1280x720, medians of 1 round" in said
    assert said.count("vitpose-tiny") == 2
    for words in ("torch, cpu, float32", "torch, cpu, bfloat16", "crop", "network", "decode", "people"):
        assert words in said
    assert not re.search(r"\bread\b", said)


@pytest.mark.parametrize(
    ("models", "trusted"), [(["a.pt2", "b.onnx"], [True, False]), (["b.onnx", "vitpose-tiny"], [True, True])]
)
def test_trust_goes_to_the_files_that_need_it(
    models: list[str], trusted: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where none needs it, loading refuses it."""
    seen = []

    def load_all(wanted: list) -> None:
        seen.extend(loader.args[1]["trust"] for _, loader in wanted)
        raise InputError("no further")

    monkeypatch.setattr("vitpose.cli.benchmark._load_all", load_all)
    run("--trust", *(word for model in models for word in ("--model", model)))
    assert seen == trusted


def test_what_does_not_go_together_is_left_out_with_its_reason() -> None:
    code, said = run("--engine", "torch", "--engine", "onnxruntime", "--dtype", "bfloat16")
    assert code == 0, said
    assert "torch, cpu, bfloat16" in said
    reason = "with engine 'onnxruntime' vitpose-tiny runs in float32, not in bfloat16; leave dtype at 'auto'"
    assert f"left out: vitpose-tiny, engine onnxruntime, dtype bfloat16: {reason}" in said


def test_an_exported_file_is_measured(exported: Callable[[str], Path]) -> None:
    code, said = run("--model", str(exported("onnx")))
    assert code == 0, said
    assert "ONNX Runtime, cpu, float32" in said


def test_nothing_goes_together() -> None:
    code, said = run("--engine", "onnxruntime", "--engine", "openvno", "--dtype", "bfloat16")
    assert code == 1
    assert "nothing of this can be measured: vitpose-tiny, engine onnxruntime, dtype bfloat16: with" in said
    assert "dtype bfloat16: unknown engine 'openvno'; did you mean openvino?" in said


def test_ones_own_image_is_read_too(tmp_path: Path) -> None:
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    code, said = run(str(tmp_path / "a.png"))
    assert code == 0, said
    assert "image of 200x100" in said
    assert re.search(r"\bread\b", said)


def test_against_transformers() -> None:
    pytest.importorskip("transformers")
    code, said = run("--dtype", "float32", "--against", "transformers")
    assert code == 0, said
    assert "transformers, cpu, float32" in said


def test_the_memory_is_that_of_each_alone() -> None:
    held = np.ones(200_000_000)  # 1.6 GB of this process, which are nobody's
    code, said = run("--dtype", "float32", "--engine", "torch", "--engine", "torch")
    assert code == 0, said
    first, second = (int(row.split()[-1]) for row in said.splitlines() if "vitpose-tiny" in row)
    assert first == pytest.approx(second, rel=0.1)
    assert first < held.nbytes / 1e6


def test_a_process_that_is_killed_while_it_is_measured() -> None:
    with pytest.raises(WorkerError, match=r"the process that measures its memory was killed; .* --people"):
        _peak_alone(partial(os._exit, 1))


def test_a_rival_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    code, said = run("--dtype", "float32", "--against", "transformers")
    assert code == 0, said
    assert (
        "left out: vitpose-tiny, transformers: the package 'transformers' is required to be measured" in said
    )


def test_an_unknown_rival() -> None:
    code, said = run("--against", "transfomers")
    assert code == 1
    assert "unknown library to run against 'transfomers'; did you mean transformers?" in said


def test_a_rival_cannot_run_exported_files() -> None:
    with pytest.raises(InputError, match=r"transformers does not run a\.onnx; give the checkpoint"):
        _load_rival(None, "a.onnx", "cpu", 0)
