"""The command line apart from its commands: help, version, imports, errors."""

from __future__ import annotations

import subprocess
import sys
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import vitpose
from vitpose.cli import app
from vitpose.detectors import CocoBoxes, OnnxDetector, RtDetrDetector

HEAVY = ("torch", "transformers", "cv2", "numpy", "huggingface_hub")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], [], ["predict", "--help"], ["models", "-h"]])
def test_help_fits_80_columns(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    assert result.exit_code == (0 if arguments else 2)
    assert "Usage:" in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_help_of_the_threshold_mentions_the_data_files() -> None:
    result = CliRunner().invoke(app, ["predict", "--help"], env={"COLUMNS": "250"})
    assert "Draw only keypoints with at least this score. Data files contain all keypoints." in result.output


def test_help_shows_the_minimum_score_of_the_detectors() -> None:
    def minimum_of(detector: type) -> float:
        return signature(detector).parameters["min_score"].default

    assert (minimum_of(OnnxDetector), minimum_of(RtDetrDetector), minimum_of(CocoBoxes)) == (0.3, 0.3, 0)
    result = CliRunner().invoke(app, ["predict", "--help"], env={"COLUMNS": "250"})
    assert "[default: (0.3; 0 for boxes from a file)]" in result.output


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"vitpose {vitpose.__version__}\n")


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["models"], ["--version"]])
def test_commands_without_a_network_import_no_heavy_packages(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom vitpose.cli import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit as done:\n    assert not done.code\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    # The hub's client knows which files are in its cache.
    assert done.stderr == ("['huggingface_hub']\n" if arguments == ["models"] else "[]\n")


@pytest.mark.parametrize(
    ("arguments", "purpose"),
    [
        (
            ["predict", "a.png", "--out", "out"],
            "to load the checkpoint vitpose-tiny; .onnx and .xml files run without it",
        ),
        (["export", "vitpose-tiny", "--out", "out.onnx"], "to load the checkpoint vitpose-tiny"),
        (["convert", "vitpose-tiny", "out"], "to convert checkpoints"),
    ],
)
def test_without_torch(
    arguments: list[str], purpose: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    vitpose.save_image(tmp_path / "a.png", np.zeros((9, 9, 3), np.uint8))
    monkeypatch.setitem(sys.modules, "torch", None)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert f"error: the package 'torch' is required {purpose}" in result.stderr
    assert result.stderr.endswith("install it with: pip install vitpose\n")


@pytest.mark.parametrize(("package", "install"), [("torch", "vitpose"), ("lightning", "'vitpose[train]'")])
def test_training_without_its_packages(package: str, install: str) -> None:
    code = (
        f"import sys\nsys.modules[{package!r}] = None\n"
        "from vitpose.cli import app\napp(['train', 'recipe.toml'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.endswith(f"is required for training; install it with: pip install {install}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("predcit", "no such command 'predcit'. Did you mean 'predict'?"),
        ("val", "there is no command 'val'; did you mean 'vitpose evaluate'?"),
        ("detect a.jpg", "there is no command 'detect'; did you mean 'vitpose predict'?"),
        ("data cheque", "no such command 'cheque'"),
        ("--foo", "there is no option --foo; see 'vitpose --help'"),
        ("predict", "missing argument 'SOURCE'; see 'vitpose predict --help'"),
        ("predict a.jpg --conf 0.5", "--conf is called --min-score; see 'vitpose predict --help'"),
        ("predict a.jpg --weights w.pth", "--weights is called --model;"),
        ("predict a.jpg --half", "--half is called --dtype float16;"),
        ("predict --source a.jpg", "--source is an argument without a name: vitpose predict SOURCE;"),
        ("predict a.jpg --imgsz 640", "--imgsz is fixed by the model; 'vitpose models' lists the input size"),
        (
            "predict a.jpg --show",
            "--show is unsupported; drawn images and videos are written to the directory",
        ),
        ("predict a.jpg --modle x", "there is no option --modle; did you mean --model?"),
        ("evaluate --ann-file a.json", "--ann-file is called --annotations;"),
        ("models --conf 1", "there is no option --conf; see 'vitpose models --help'"),
    ],
)
def test_an_invalid_command_line_is_answered_in_one_line(arguments: str, message: str) -> None:
    result = CliRunner().invoke(app, arguments.split())
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1


def test_flags_have_no_type_and_paragraphs_are_wrapped_to_the_terminal() -> None:
    result = CliRunner().invoke(app, ["export", "--help"], env={"COLUMNS": "120"})
    assert "bool" not in result.output.lower()
    assert "requires, and accepts batches of any size" in result.output


def test_the_program_keeps_messages_of_other_libraries_off_the_terminal() -> None:
    code = (
        "import logging, warnings\nfrom vitpose.cli import terminal\nterminal.silence_libraries()\n"
        "logging.getLogger('other').warning('from a log')\nwarnings.warn('from a library')\n"
        "import torch\nlogging.getLogger('torch').warning('from torch')\n"
        "warnings.warn_explicit('from us', UserWarning, 'data.py', 1, module='vitpose.data')\n"
        "logging.getLogger('vitpose.model').warning('from our log')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "data.py:1: UserWarning: from us\nfrom our log\n"


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (vitpose.InputError("one [bold]\n  two"), "error: one [bold] two\n", 1),
        (KeyboardInterrupt(), "error: interrupted\n", 130),
    ],
)
def test_errors(error: BaseException, message: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("vitpose.cli.models.list_models", fail)
    result = CliRunner().invoke(app, ["models"])
    assert (result.exit_code, result.stderr, result.stdout) == (code, message, "")
