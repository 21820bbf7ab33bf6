"""`vitpose data`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from vitpose.cli import app
from vitpose.data.pack import read_pack


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments)], env={"COLUMNS": "250"})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "set" / "images").mkdir(parents=True)
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(tmp_path / "set/images/a.png")
    points = [20, 20, 2, 30, 30, 2]
    rows: list[dict[str, Any]] = [
        {"id": 1, "image_id": 0, "bbox": [10, 10, 30, 40], "keypoints": points},
        {"id": 2, "image_id": 0, "bbox": [10, 10, 0, 40], "keypoints": points},
    ]
    table = {
        "images": [{"id": 0, "file_name": "a.png"}],
        "annotations": rows,
        "categories": [{"keypoints": ["left_tip", "right_tip"]}],
    }
    file = tmp_path / "set" / "people.json"
    file.write_text(json.dumps(table))
    return file


def test_check(source: Path) -> None:
    result = run("check", source, "--images")
    assert result.exit_code == 0
    assert f"{source}: 1 instance in 1 image\n  box without area: 1 (annotation 2)" in result.output
    assert "labels: left_tip 1, right_tip 1" in result.output


def test_check_fails_without_usable_annotations(source: Path) -> None:
    table = json.loads(source.read_text())
    source.write_text(json.dumps(table | {"annotations": []}))
    result = run("check", source)
    assert result.exit_code == 1
    assert "a source has no annotation that can be used for training; see the reasons above" in result.stderr


def test_pack(source: Path, tmp_path: Path) -> None:
    moved = source.rename(tmp_path / "people.json")
    out = tmp_path / "pack"
    result = run("pack", f"{moved}={tmp_path / 'set/images'}", "--out", out, "--lossless", "--side", 40)
    assert result.exit_code == 0, result.output
    assert "box without area: 1 (annotation 2)" in result.output
    assert f"1 instance, 1 part, 0.0 MB; written to {out}" in result.output
    packed = read_pack(out)
    assert packed.skeleton.keypoints == ("left_tip", "right_tip")
    assert packed.sizes.max() == 40


def test_pack_with_another_skeleton(source: Path, tmp_path: Path) -> None:
    skeleton = tmp_path / "mine.toml"
    skeleton.write_text('name = "mine"\nkeypoints = ["right_tip", "pivot"]\n')
    assert run("pack", source, "--out", tmp_path / "pack", "--skeleton", skeleton).exit_code == 0
    assert read_pack(tmp_path / "pack").visibility.tolist() == [[2, 0]]


@pytest.mark.parametrize(("options", "aspect"), [((), "keep"), (("--dataset", "mpii"), "stretch")])
def test_pack_for_a_dataset(options: tuple[str, ...], aspect: str, source: Path, tmp_path: Path) -> None:
    assert run("pack", source, "--out", tmp_path / "pack", *options).exit_code == 0
    assert {margin.aspect for margin in read_pack(tmp_path / "pack").margins} == {aspect}


def test_refuses_contradicting_options(source: Path, tmp_path: Path) -> None:
    result = run("pack", source, "--out", tmp_path, "--lossless", "--quality", 90)
    assert result.exit_code == 1
    assert "both --lossless and --quality 90 are given; give one" in result.stderr
