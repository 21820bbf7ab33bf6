"""The packaged sample images and clip, and the poses of the packaged model in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vitpose


def test_samples_are_small_files_with_their_licence_beside_them() -> None:
    paths = [
        vitpose.samples.person(),
        vitpose.samples.group(),
        vitpose.samples.clip(),
        vitpose.samples.annotations(),
    ]
    assert all(isinstance(path, Path) and path.is_file() for path in paths)
    assert sum(path.stat().st_size for path in paths) < 600_000
    readme = (paths[0].parent / "README.md").read_text(encoding="utf-8")
    assert "Sample videos by Intel\nCorporation, [CC BY 4.0]" in readme
    assert all(f"`{path.name}`" in readme for path in paths)


@pytest.mark.parametrize(("name", "people"), [("person", 1), ("group", 2)])
def test_the_packaged_model_finds_most_keypoints_of_the_people(name: str, people: int) -> None:
    pipe = vitpose.load("vitpose-tiny", detector=f"boxes:{vitpose.samples.annotations()}", device="cpu")
    poses = pipe(getattr(vitpose.samples, name)())
    assert len(poses) == people
    assert (poses.visible(0.3).sum(axis=1) >= 15).all()


def test_annotations_are_for_the_size_of_the_images() -> None:
    images = json.loads(vitpose.samples.annotations().read_text(encoding="utf-8"))["images"]
    for image in images:
        shape = vitpose.read_image(getattr(vitpose.samples, Path(image["file_name"]).stem)()).shape
        assert shape == (image["height"], image["width"], 3)


def test_the_clip_can_be_read() -> None:
    pytest.importorskip("av")
    from vitpose.video.reading import open_video

    assert [frame.image.shape for frame in open_video(vitpose.samples.clip())] == [(432, 448, 3)] * 22
