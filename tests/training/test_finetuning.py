"""docs/finetuning.md, followed command by command with drawn pictures."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitpose.data.annotations import read_annotations
from vitpose.skeleton import Skeleton

PAGE = (Path(__file__).parents[2] / "docs" / "finetuning.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}[^\n]*\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def run(line: str) -> str:
    """Runs a command of the page, in a process of its own as its reader does."""
    program, *words = shlex.split(line)
    assert program == "vitpose"
    done = subprocess.run([sys.executable, "-m", program, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_page_can_be_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_arrows: Callable[..., np.ndarray]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labelled, _, unlabelled = (
        write_arrows(Path(f"{name}.json"), Path(name), count, rng, tilt_deg=60.0)
        for name, count in (("train", 32), ("val", 8), ("new", 20))
    )
    Path("new.json").unlink()
    for text in blocks("toml"):
        Path(text.split()[1]).write_text(text)
    said = "".join(map(run, "".join(blocks("sh")).splitlines()))
    assert "32 people in 32 pictures" in said
    assert "the last layer is made anew" in said
    assert "PCK@0.1" in said
    ours, mean = (
        np.linalg.norm(guess - unlabelled, axis=2)
        for guess in (predicted(Path("found/poses.json")), labelled.mean(axis=0))
    )
    assert ours.mean() < mean.mean() / 3
    assert (ours < 6).mean() > 0.8
    assert (mean < 6).mean() < 0.4
    for written in ("results/worst.jpg", "found/0.jpg", "found/19.jpg"):
        assert Path(written).is_file()


def predicted(file: Path) -> np.ndarray:
    """Returns the one pose of each picture (n 5 2), in the order of the pictures' numbers."""
    pictures = sorted(json.loads(file.read_text()), key=lambda one: int(Path(one["picture"]).stem))
    poses = [one["poses"][0]["keypoints"].values() for one in pictures]
    return np.array([[(point["x"], point["y"]) for point in pose] for pose in poses])


def test_the_page_s_annotations_are_some(tmp_path: Path) -> None:
    (tmp_path / "page.json").write_text(blocks("json")[0])
    Image.new("RGB", (72, 96)).save(tmp_path / "0001.png")
    people = read_annotations(tmp_path / "page.json", tmp_path)
    assert people.report.problems == {}
    assert people.visibility.tolist() == [[2, 2, 2, 2, 0]]
    assert people.skeleton.keypoints == Skeleton.from_toml(blocks("toml")[0]).keypoints
