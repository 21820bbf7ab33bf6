"""`vitpose export`, and `vitpose predict` with an exported file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from typer.testing import CliRunner, Result

import vitpose
from vitpose.cli import app

Export = Callable[[str], Path]


def run(*arguments: str | Path) -> Result:
    command = list(map(str, arguments))
    return CliRunner().invoke(app, command, env={"COLUMNS": "250"}, catch_exceptions=False)


def test_an_exported_file_predicts(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.xml"
    result = run("export", checkpoint, "--to", "openvino", "--out", path)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("0.")
    assert " MB, heatmaps differ from torch's by " in result.stdout
    assert result.stdout.endswith(f" (relative norm); written to {path}\n")
    vitpose.save_image(tmp_path / "b.jpg", np.full((60, 50, 3), 90, np.uint8))
    options = (
        "--model",
        path,
        "--detector",
        "whole-image",
        "--engine",
        "openvino",
        "--out",
        tmp_path / "out",
    )
    result = run("predict", tmp_path / "b.jpg", *options)
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "out" / "b.jpg").is_file()


def test_refuses_contradicting_or_unknown_options(checkpoint: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (["--int8"], "--int8 requires calibration data; give annotations or images with --calibrate"),
        (["--calibrate", "x"], "--calibrate x is only used with --int8; add --int8, or omit --calibrate"),
        (["--to", "onx"], "unknown format to export to 'onx'; did you mean onnx"),
        (["--out", "a.pt"], "a file for onnx must end in .onnx"),
        (["--int8", "--calibrate", tmp_path / "none"], "none"),
    ):
        result = run("export", checkpoint, *arguments)
        assert (result.exit_code, message in result.stderr) == (1, True), result.stderr


def test_refuses_a_directory_that_cannot_be_written(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("export", checkpoint, "--out", tmp_path / "file" / "a.onnx")
    assert (result.exit_code, "Not a directory; choose another directory" in result.stderr) == (1, True)
