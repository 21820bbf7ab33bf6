"""The program around the commands: help, version, start, errors."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import vitpose
from vitpose.cli import app

HEAVY = ("torch", "transformers", "cv2", "numpy", "huggingface_hub")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], [], ["predict", "--help"], ["models", "-h"]])
def test_help(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    assert result.exit_code == (0 if arguments else 2)
    assert "Usage:" in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_help_says_what_the_threshold_is_not() -> None:
    result = CliRunner().invoke(app, ["predict", "--help"], env={"COLUMNS": "250"})
    assert "Keypoints that score less are not drawn. The data always has all of them." in result.output


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"vitpose {vitpose.__version__}\n")


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["models"], ["--version"]])
def test_what_needs_no_network_imports_none(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom vitpose.cli import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit as done:\n    assert not done.code\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == "[]\n"


def test_an_unknown_command_is_misuse() -> None:
    result = CliRunner().invoke(app, ["predcit"])
    assert result.exit_code == 2
    assert "predict" in result.stderr


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
