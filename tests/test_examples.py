"""Run the examples."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vitpose

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
# Runs a program without access to the network.
OFFLINE = (
    "import runpy, socket, sys\n"
    "def refuse(*_, **__): raise OSError('the network was touched')\n"
    "socket.socket.connect = socket.getaddrinfo = refuse\n"
    "runpy.run_path(sys.argv[1], run_name='__main__')\n"
)


def test_the_demo_writes_drawn_images_and_prints_their_paths(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", OFFLINE, str(EXAMPLES / "demo.py")]
    # One thread, because tests run in parallel.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    photographs = ["person", "group"] + ["astronaut"] * bool(importlib.util.find_spec("skimage"))
    for name in photographs:
        assert f"demo/{name}.jpg" in done.stdout
        assert vitpose.read_image(tmp_path / "demo" / f"{name}.jpg").ndim == 3
        poses = json.loads((tmp_path / "demo" / f"{name}.json").read_text())["poses"]
        # The detector takes the flag beside the astronaut for a person, but no keypoint is found there.
        seen = [any(point["score"] >= 0.3 for point in pose["keypoints"].values()) for pose in poses]
        assert sum(seen) == (2 if name == "group" else 1)
    if importlib.util.find_spec("av"):
        assert "demo/clip.mp4" in done.stdout
        assert (tmp_path / "demo" / "clip.mp4").is_file()


def test_the_notebook_runs_and_shows_what_it_stores(capsys: pytest.CaptureFixture[str]) -> None:
    """Each cell is executed as a notebook does it; its last expression has the formats that are stored."""
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))
    names: dict[str, object] = {}
    shown = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            value = run_cell("".join(cell["source"]), names)
            outputs = {output["output_type"]: output for output in cell["outputs"]}
            assert "error" not in outputs
            assert bool(capsys.readouterr().out) == ("stream" in outputs)
            formats = outputs.get("execute_result", {"data": {}})["data"].keys()
            assert all(format_of(value, name) for name in formats)
            shown += formats
    assert {"image/png", "image/jpeg", "text/html"} <= set(shown)


def run_cell(source: str, names: dict[str, object]) -> object:
    """Execute a cell; returns the value of its last line if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def format_of(value: object, name: str) -> object:
    methods = {"image/png": "_repr_png_", "image/jpeg": "_repr_jpeg_", "text/html": "_repr_html_"}
    return getattr(value, methods.get(name, "__repr__"))()
