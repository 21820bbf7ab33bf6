from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vitpose.files.schemas import check
from vitpose.training.recipe import Recipe

KEYPOINTS = ("tip", "left_end", "right_end", "middle", "tail")


def draw_arrow(rng: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """Return an image of an arrow and its five keypoints."""
    image = Image.fromarray(rng.integers(0, 60, (96, 72, 3), dtype=np.uint8))
    x, y = rng.uniform([26, 20], [46, 32])
    length, half = rng.uniform(34, 50), rng.uniform(9, 15)
    shape = np.array([[0, 0], [half, half], [-half, half], [0, length / 2], [0, length]])
    keypoints = shape + np.array([x, y])
    pen = ImageDraw.Draw(image)
    for a, b in ((0, 1), (0, 2), (0, 4)):
        pen.line([*keypoints[a], *keypoints[b]], fill=(240, 200, 40), width=3)
    return image, keypoints


def write_arrows(file: Path, images: Path, count: int, rng: np.random.Generator) -> np.ndarray:
    """Write images of arrows and their COCO file; returns the keypoints (n 5 2)."""
    images.mkdir(exist_ok=True)
    drawn = [draw_arrow(rng) for _ in range(count)]
    rows, annotations = [], []
    for index, (image, keypoints) in enumerate(drawn):
        image.save(images / f"{index}.png")
        low, high = keypoints.min(axis=0) - 4, keypoints.max(axis=0) + 4
        rows.append({"id": index, "file_name": f"{index}.png", "width": 72, "height": 96})
        annotations.append(
            {
                "id": index,
                "image_id": index,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [*low, *(high - low)],
                "area": float(np.prod(high - low)),
                "num_keypoints": 5,
                "keypoints": np.column_stack([keypoints, np.full(5, 2)]).ravel().tolist(),
            }
        )
    edges = [[1, 2], [1, 3], [1, 4], [4, 5]]
    category = {"id": 1, "name": "arrow", "keypoints": list(KEYPOINTS), "skeleton": edges}
    file.write_text(json.dumps({"images": rows, "annotations": annotations, "categories": [category]}))
    return np.array([keypoints for _, keypoints in drawn])


@pytest.fixture(scope="session")
def arrows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images of arrows with five keypoints, in COCO format."""
    folder = tmp_path_factory.mktemp("arrows")
    write_arrows(folder / "arrows.json", folder, 40, np.random.default_rng(0))
    (folder / "arrow.toml").write_text(
        f'name = "arrow"\nkeypoints = {json.dumps(KEYPOINTS)}\n'
        'edges = [["tip", "left_end"], ["tip", "right_end"], ["tip", "middle"], ["middle", "tail"]]\n'
        'flip_pairs = [["left_end", "right_end"]]\n'
    )
    return folder


@pytest.fixture
def table(arrows: Path) -> dict:
    """The table of a recipe that takes seconds."""
    return {
        "name": "arrows",
        "sources": [{"annotations": str(arrows / "arrows.json"), "images": str(arrows)}],
        "model": {
            "size": "tiny", "layers": 2, "decoder": "simple", "skeleton": str(arrows / "arrow.toml"),
            "height": 64, "width": 48, "drop_path": 0.1,
        },
        "optimizer": {"lr": 1e-3, "layer_decay": 0.9, "warmup_steps": 2, "schedule": "cosine"},
        "target": {"sigma": 1.5},
        "loop": {"epochs": 2, "batch_size": 8, "checkpoint_every": 2, "workers": 0, "log_every": 1, "ema": 0.8},
    }  # fmt: skip


@pytest.fixture
def toml_of() -> Callable[[dict], str]:
    return _toml_of


def _toml_of(table: dict) -> str:
    """Return a recipe's table as TOML; strings, numbers and lists are written as in JSON."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items() if isinstance(value, str)]
    for key, value in table.items():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                lines.append(f"[[{key}]]" if isinstance(value, list) else f"[{key}]")
                lines += [f"{name} = {json.dumps(entry)}" for name, entry in part.items()]
    return "\n".join(lines) + "\n"


@pytest.fixture
def recipe(table: dict) -> Recipe:
    return check(Recipe, table, "the recipe")


@pytest.fixture
def two_datasets(table: dict, arrows: Path, tmp_path: Path) -> dict:
    """The arrows as two datasets: all five keypoints with the UDP conventions, three of them with the plain ones."""
    three = ["tip", "left_end", "right_end"]
    (tmp_path / "three.toml").write_text(
        f'name = "three"\nwarp = "plain"\ntarget = "msra"\ndecode = "quarter"\nshift_heatmap = true\n'
        f'[skeleton]\nname = "three"\nkeypoints = {json.dumps(three)}\nflip_pairs = [["left_end", "right_end"]]\n'
    )
    (tmp_path / "five.toml").write_text(f'name = "five"\nskeleton = "{arrows / "arrow.toml"}"\n')
    source = table["sources"][0]
    sources = [source | {"dataset": str(tmp_path / f"{name}.toml")} for name in ("five", "three", "five")]
    model = {key: value for key, value in table["model"].items() if key != "skeleton"}
    return table | {"sources": sources, "model": model}


@pytest.fixture
def recipe_of() -> Callable[[dict], Recipe]:
    return lambda table: check(Recipe, table, "the recipe")
