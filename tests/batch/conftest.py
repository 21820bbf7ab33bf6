"""Directories of small images, and the tables that a run writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import vitpose

LOADING = {"detector": "whole-image", "device": "cpu"}


@pytest.fixture(scope="session", autouse=True)
def _small_network(checkpoint: Path) -> None:
    """What is tested here happens around the network, so that a small random one serves."""
    LOADING["model"] = str(checkpoint)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


def make_images(folder: Path, count: int = 12, bad: int = 2) -> Path:
    """Writes images of noise in several sizes, then `bad` files that are no images."""
    folder.mkdir()
    for index in range(count - bad):
        pixels = np.random.default_rng(index).integers(0, 256, (40 + index, 30, 3), np.uint8)
        vitpose.save_image(folder / f"{index:03d}.png", pixels)
    for index in range(bad):
        (folder / f"bad {index}.jpg").write_bytes(b"not an image")
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_images(tmp_path / "images")


@pytest.fixture
def memory() -> Any:
    """An empty file system in memory."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    return files


def rows(folder: Path | str) -> list[dict]:
    """All rows of a table's directory, sorted."""
    table = pq.read_table(folder)
    return sorted(table.to_pylist(), key=lambda row: (row["image"], row.get("instance", 0)))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def table_of(content: bytes) -> pa.Table:
    return pq.read_table(pa.BufferReader(content))
