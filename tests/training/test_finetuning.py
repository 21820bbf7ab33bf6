"""The commands of docs/guides/custom-keypoints.md with the images that it draws."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitpose.data.annotations import read_training_annotations
from vitpose.keypoints.skeleton import Skeleton

PAGE = (Path(__file__).parents[2] / "docs/guides/custom-keypoints.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}[^\n]*\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def run(start_vitpose: Callable) -> Callable[..., str]:
    """Run a command of the page with additional arguments; returns its output."""

    def run_line(line: str, *changes: str) -> str:
        program, *words = shlex.split(line)
        assert program == "vitpose"
        running = start_vitpose([*words, *changes])
        assert running.wait() == 0, running.errors
        return running.output + running.errors

    return run_line


@pytest.mark.parametrize("epochs", [6, pytest.param(30, marks=pytest.mark.slow)])
def test_the_commands_of_the_page_work(
    epochs: int,
    run: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the 30 epochs of the page, or with enough of them to find most keypoints."""
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks("python")[0], "custom-keypoints.md", "exec"), {})
    labelled, unlabelled = (read_training_annotations(f"{name}.json", name).xy for name in ("train", "new"))
    Path("new.json").unlink()
    for content in blocks("toml"):
        Path(content.split()[1]).write_text(content)
    check, train, evaluate, predict = "".join(blocks("sh")).splitlines()
    assert "32 instances in 32 images" in run(check)
    assert "; new: tip, left_end, right_end, middle, tail" in run(train, "--loop.epochs", str(epochs))
    assert "PCK@0.1" in run(evaluate)
    run(predict)
    ours, mean = (
        np.linalg.norm(guess - unlabelled, axis=2)
        for guess in (predicted(Path("found/poses.json")), labelled.mean(axis=0))
    )
    assert ours.mean() < mean.mean() / 3
    assert (ours < 6).mean() > 0.8
    assert (mean < 6).mean() < 0.4
    for written in ("results/worst.jpg", "found/0001.jpg", "found/0020.jpg"):
        assert Path(written).is_file()


def predicted(file: Path) -> np.ndarray:
    """Return the pose of each image (n 5 2), in the order of the numbers of the images."""
    images = sorted(json.loads(file.read_text()), key=lambda one: int(Path(one["image"]).stem))
    poses = [one["poses"][0]["keypoints"].values() for one in images]
    return np.array([[(keypoint["x"], keypoint["y"]) for keypoint in pose] for pose in poses])


def test_the_annotations_of_the_page_are_valid(tmp_path: Path) -> None:
    (tmp_path / "page.json").write_text(blocks("json")[0])
    Image.new("RGB", (72, 96)).save(tmp_path / "0001.png")
    people = read_training_annotations(tmp_path / "page.json", tmp_path)
    assert people.report.problems == {}
    assert people.visibility.tolist() == [[2, 2, 2, 2, 0]]
    assert people.skeleton.keypoints == Skeleton.from_toml(blocks("toml")[0]).keypoints
