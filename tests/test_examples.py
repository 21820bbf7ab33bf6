"""Run the examples."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

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
        assert len(poses) == (2 if name == "group" else 1)
    if importlib.util.find_spec("av"):
        assert "demo/clip.mp4" in done.stdout
        assert (tmp_path / "demo" / "clip.mp4").is_file()
