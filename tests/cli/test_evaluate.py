from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from vitpose.cli import app
from vitpose.keypoints.skeleton import Skeleton

pytest.importorskip("pycocotools")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Annotations of two images with one person each; the second image is missing."""
    Image.new("RGB", (120, 160), "grey").save(tmp_path / "a.png")
    points = [value for index in range(17) for value in (40 + index, 50 + 4 * index, 2)]
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "annotations": [
            {"id": 5, "image_id": image, "category_id": 1, "bbox": [20, 20, 60, 120], "area": 4000,
             "num_keypoints": 17, "keypoints": points} for image in (1, 2)
        ],
        "categories": [{"id": 1, "keypoints": list(Skeleton.load("coco").keypoints)}],
    }  # fmt: skip
    (tmp_path / "val.json").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["evaluate", "--annotations", "val.json", *words])


def test_a_model_and_its_saved_predictions(folder: Path) -> None:
    result = run(
        "--images", ".", "--device", "cpu", "--out", "out", "--worst", "2", "--metrics", "coco,pck,epe"
    )
    assert result.exit_code == 1  # an image failed
    assert "b.png" in result.output
    assert "AP50" in result.output
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "predictions.json",
        "report.json",
        "worst.jpg",
    ]
    report = json.loads((folder / "out/report.json").read_text())
    assert report["settings"]["model"] == "vitpose-tiny"
    assert list(report["failed_images"]) == ["b.png"]
    again = run("--predictions", "out/predictions.json", "--metrics", "coco,pck,epe", "--out", "again")
    assert again.exit_code == 0
    assert json.loads((folder / "again/report.json").read_text())["numbers"] == report["numbers"]
    assert not (folder / "again/predictions.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--images is required to evaluate a model; give the directory of the images, or --predictions"),
        (["--images", ".", "--worst", "3"], "--worst 3 requires --images and --out; give both"),
        (
            ["--boxes", "b.json", "--predictions", "p.json"],
            "both --boxes b.json and --predictions p.json are given",
        ),
        (
            ["--images", ".", "--thresholds", "a"],
            "--thresholds must be numbers separated by commas, such as 0.1,0.2, not 'a'",
        ),
    ],
)
def test_refuses_contradicting_options(folder: Path, words: list[str], message: str) -> None:
    result = run(*words)
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
