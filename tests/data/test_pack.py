from __future__ import annotations

import json
import resource
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from vitpose.data.annotations import TrainingAnnotations, read_training_annotations
from vitpose.data.augment import Augmentation
from vitpose.data.dataset import PoseDataset
from vitpose.data.device_samples import DeviceLoader
from vitpose.data.pack import cut_out, join_packs, read_pack, write_pack
from vitpose.errors import ImageError, InputError, OutputError
from vitpose.geometry.boxes import Size
from vitpose.keypoints.dataset_spec import DatasetSpec
from vitpose.keypoints.model_spec import ModelSpec
from vitpose.keypoints.skeleton import Skeleton

RECIPE = Augmentation(brightness=0.2, occlusion=0.5)


def in_images(samples: PoseDataset) -> np.ndarray:
    return np.stack([samples[1, index]["pixels"].numpy() for index in range(len(samples))]).astype(int)


@pytest.mark.parametrize(("quality", "mean", "most"), [(None, 0.1, 1), (95, 1.0, 12)])
def test_a_pack_gives_the_same_samples(
    people: TrainingAnnotations, tmp_path: Path, quality: int | None, mean: float, most: int
) -> None:
    write_pack([people], tmp_path / "pack", quality=quality)
    packed = read_pack(tmp_path / "pack")
    assert (packed.factors == 1).all()
    assert packed.skeleton == people.skeleton
    assert packed.report.instances == 10
    np.testing.assert_array_equal(packed.ids, people.ids)
    first, second = (PoseDataset(source, augmentation=RECIPE, seed=4) for source in (people, packed))
    difference = np.abs(in_images(first) - in_images(second))
    assert difference.max() <= most
    assert difference.mean() <= mean
    for index in range(len(people)):
        one, other = first[1, index], second[1, index]
        np.testing.assert_allclose(one["keypoints"], other["keypoints"], atol=1e-4)
        np.testing.assert_array_equal(one["weights"], other["weights"])


def test_reduced_crops_give_similar_views(people: TrainingAnnotations, tmp_path: Path) -> None:
    """Keypoints and pixels of a reduced crop are scaled alike: in smooth images a view hardly changes."""
    write_pack([people], tmp_path / "pack", quality=None, side=90)
    packed = read_pack(tmp_path / "pack")
    assert (packed.factors > 2).all()
    assert packed.sizes.max() == 90
    shift = packed.origins - 0.5 + packed.factors[:, None] / 2
    back = packed.xy * packed.factors[:, None, None] + shift[:, None]
    np.testing.assert_allclose(back[packed.labelled], people.xy[people.labelled], atol=1e-3)
    middle = (slice(None), slice(64, 192), slice(48, 144))
    first, second = (in_images(PoseDataset(source))[middle] for source in (people, packed))
    assert np.abs(first - second).mean() < 4
    shifted = np.abs(first[:, :, 3:] - second[:, :, :-3]).mean()
    assert shifted > 1.5 * np.abs(first - second).mean()


def test_reduction_has_one_factor_and_keeps_coordinates() -> None:
    ramp = np.tile(np.linspace(0, 255, 301)[None, :, None], (200, 1, 3)).astype(np.uint8)
    crop, origin, factor = cut_out(ramp, np.array([20.3, 10.0, 270.0, 500.0]), 100)
    assert origin.tolist() == [20, 10]
    assert factor == pytest.approx(251 / 100)
    columns = np.arange(5, 95)
    in_image = (columns + 0.5) * factor - 0.5 + origin[0]
    np.testing.assert_allclose(crop[40, 5:95, 0], in_image * 255 / 300, atol=1.5)


def test_a_box_outside_the_image_gives_one_pixel() -> None:
    crop, origin, _ = cut_out(np.zeros((20, 30, 3), np.uint8), np.array([50.0, -40, 80, -10]), 100)
    assert crop.shape == (1, 1, 3)
    assert origin.tolist() == [29, 0]


def test_a_reduced_line_keeps_one_pixel() -> None:
    crop, _, factor = cut_out(np.full((1, 1000, 3), 7, np.uint8), np.array([0.0, 0, 1000, 1]), 100)
    assert (crop.shape, factor) == ((1, 100, 3), 10)
    assert (crop == 7).all()


def test_huge_boxes_are_cropped_without_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crop, _, _ = cut_out(
            np.zeros((20, 30, 3), np.uint8), np.array([-1e30, 0, 1e30, 1e30], np.float32), 100
        )
    assert crop.shape == (20, 30, 3)


def test_parts_do_not_exceed_their_limit(people: TrainingAnnotations, tmp_path: Path) -> None:
    write_pack([people], tmp_path / "pack", quality=None, max_part_bytes=200_000)
    packed = read_pack(tmp_path / "pack")
    assert len(packed.images) > 2
    assert max(part.stat().st_size for part in packed.images) <= 200_000
    whole = write_pack([people], tmp_path / "whole", quality=None)
    other = read_pack(tmp_path / "whole")
    assert whole[0].instances == len(other) == len(packed)
    for row in range(len(packed)):
        np.testing.assert_array_equal(packed.read_image(row), other.read_image(row))


def test_several_sources(people: TrainingAnnotations, tmp_path: Path) -> None:
    few = people.select(slice(0, 3))
    write_pack([people, few], tmp_path / "pack")
    packed = read_pack(tmp_path / "pack")
    assert [len(part) for part in packed.by_source()] == [10, 3]
    assert packed.source_names == (people.report.source,) * 2
    chosen = packed.select([12, 1])
    np.testing.assert_array_equal(chosen.ids, [people.ids[2], people.ids[1]])
    np.testing.assert_array_equal(chosen.read_image(1), packed.read_image(1))
    lsp = packed.map_to(Skeleton.load("lsp"))
    np.testing.assert_array_equal(lsp.read_image(4), packed.read_image(4))


def test_join_packs(people: TrainingAnnotations, tmp_path: Path) -> None:
    write_pack([people, people.select(slice(0, 3))], tmp_path / "first", max_part_bytes=30_000)
    write_pack([people.select(slice(4, 6))], tmp_path / "second")
    packs = [read_pack(tmp_path / name) for name in ("first", "second")]
    joined = join_packs(packs)
    assert [len(part) for part in joined.by_source()] == [10, 3, 2]
    assert len(joined) == joined.report.instances == 15
    for row, person in enumerate([*range(13), 0, 1]):
        source = packs[row > 12]
        np.testing.assert_array_equal(joined.read_image(row), source.read_image(person))
        np.testing.assert_array_equal(joined.xy[row], source.xy[person])
    with pytest.raises(InputError, match="there are no sources of annotations"):
        join_packs([])


def test_unreadable_images_are_reported(people: TrainingAnnotations, tmp_path: Path) -> None:
    people.images[2].write_bytes(b"broken")
    (report,) = write_pack([people], tmp_path / "pack")
    assert report.problems["image cannot be read"] == ("annotation 20 (2.png)", "annotation 21 (2.png)")
    assert report.instances == len(read_pack(tmp_path / "pack")) == 8
    kept = json.loads((tmp_path / "pack" / "pack.json").read_text())["sources"][0]
    assert kept["problems"]["image cannot be read"][0] == "annotation 20 (2.png)"


def test_sources_without_instances_raise(people: TrainingAnnotations, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no instance could be packed: .*0 instances .*; correct the sources"
    ):
        write_pack(
            [replace(people.select([]), report=replace(people.report, instances=0))], tmp_path / "pack"
        )


def test_a_pack_is_not_overwritten(people: TrainingAnnotations, tmp_path: Path) -> None:
    write_pack([people], tmp_path)
    with pytest.raises(InputError, match="already contains a pack; choose another directory"):
        write_pack([people], tmp_path)


def test_a_part_that_cannot_be_written_raises(people: TrainingAnnotations, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(
            OutputError, match=r"part-0000.safetensors cannot be written: .*; choose another directory"
        ):
            write_pack([people], tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob("*.safetensors"))


def test_incomplete_packs_and_other_versions_raise(people: TrainingAnnotations, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"does not contain a complete pack .*; create one with: vitpose data pack"
    ):
        read_pack(tmp_path)
    write_pack([people], tmp_path)
    index = tmp_path / "pack.json"
    table = json.loads(index.read_text())
    index.write_text(json.dumps(table | {"version": 9}))
    with pytest.raises(
        InputError, match="is a pack of version 9; the supported version is 3; pack the dataset again"
    ):
        read_pack(tmp_path)
    table["parts"][0]["instances"] = 11
    index.write_text(json.dumps(table))
    with pytest.raises(InputError, match="contains 10 instances instead of 11"):
        read_pack(tmp_path)
    (tmp_path / "part-0000.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match=r"part-0000.safetensors cannot be read: .*; pack the dataset again"):
        read_pack(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "2"}, "version is '2'; input should be a valid integer"),
        ({"parts": [{"file": "../x", "instances": 1}]}, "parts.0.file is '../x'; string should match pattern"),
        ({"sides": 5}, "unknown key 'sides'; did you mean side"),
        ({"margin": 5}, "margin is 5; it must be a table"),
        ({"margin": {"size": {}, "aspect": "kept"}}, "aspect is 'kept'; string should match pattern"),
        ({"margin": {"size": {"height": 4}, "aspect": "keep"}}, "pack.json, margin: size.width is missing"),
        ({"margin": {"augmentation": {"flop": 1}, "size": {"height": 4, "width": 3}, "aspect": "keep"}},
         r"pack.json, margin: unknown key 'augmentation.flop'; did you mean augmentation.flip"),
        ({"margin": {"augmentation": {"scale_limit": 2}, "size": {"height": 4, "width": 3}, "aspect": "keep"}},
         r"pack.json, margin: augmentation: .*scale_limit 2.* must be below 1"),
        ({"margin": {"size": {"height": 4, "width": 1}}}, "the size of a margin is 1x4; it must be 2x2 px or more"),
        ({"skeleton": {"name": 5}}, r"pack.json, skeleton"),
    ],
)  # fmt: skip
def test_an_invalid_index_raises(
    people: TrainingAnnotations, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    write_pack([people], tmp_path)
    index = tmp_path / "pack.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | change))
    with pytest.raises(InputError, match=message):
        read_pack(tmp_path)


def test_an_index_that_is_not_json_raises(tmp_path: Path) -> None:
    for content, message in (("{", "pack.json is not valid JSON"), ("5", "pack.json: 5; it must be a table")):
        (tmp_path / "pack.json").write_text(content)
        with pytest.raises(InputError, match=message):
            read_pack(tmp_path)


COCO = DatasetSpec.load("coco")
SMALL = Augmentation(scale_limit=0.1, rotation_probability=0.0, shift=0.0, half_body=0.0)


@pytest.mark.parametrize("samples", [PoseDataset, lambda *given: DeviceLoader(given[0], [], 1, *given[1:])])
def test_a_margin_that_is_too_small_raises(
    people: TrainingAnnotations, tmp_path: Path, samples: Callable[..., Any]
) -> None:
    """A pack for a weaker augmentation or another aspect is rejected, as pixels would be missing."""
    small, stretched = ModelSpec(dataset=COCO), ModelSpec(dataset=replace(COCO, aspect="stretch"))
    write_pack([people], tmp_path / "pack", augmentation=SMALL)
    packed = read_pack(tmp_path / "pack")
    samples(packed, small, SMALL)
    samples(packed, small, replace(SMALL, scale_limit=0.05, brightness=0.5, flip=0.1))
    samples(packed, small, None)
    message = (
        r"the margin of the pack .*pack is too small for \d+ of 10 instances in this training run \(.*scale_limit "
        r"0.1 in the pack, 0.5 here.*\); pack the dataset again, with 'vitpose data pack --dataset'"
    )
    with pytest.raises(InputError, match=message):
        samples(packed, small, Augmentation())
    with pytest.raises(InputError, match="aspect keep in the pack, stretch here"):
        samples(packed, stretched, SMALL)
    with pytest.raises(InputError, match="size 192x256 in the pack, 256x192 here"):
        samples(packed, ModelSpec(dataset=COCO, input_size=Size(256, 192)), SMALL)
    write_pack([people], tmp_path / "stretched", augmentation=SMALL, aspect="stretch")
    samples(read_pack(tmp_path / "stretched"), stretched, SMALL)
    with pytest.raises(InputError, match="is too small for"):
        samples(join_packs([read_pack(tmp_path / "stretched"), packed]), stretched, SMALL)


def test_packs_of_whole_images_fit_any_augmentation(people: TrainingAnnotations, tmp_path: Path) -> None:
    whole = replace(people, boxes=np.tile(np.array([[0, 0, 240, 200]], np.float32), (10, 1)))
    write_pack([whole], tmp_path / "pack", augmentation=SMALL)
    packed = read_pack(tmp_path / "pack")
    assert (packed.sizes == [240, 200]).all()
    PoseDataset(packed, ModelSpec(dataset=replace(COCO, aspect="stretch")), Augmentation())


def test_reduced_packs_have_the_same_margin(people: TrainingAnnotations, tmp_path: Path) -> None:
    write_pack([people], tmp_path / "pack", side=40)
    PoseDataset(read_pack(tmp_path / "pack"), augmentation=Augmentation())


def test_damaged_crops(people: TrainingAnnotations, tmp_path: Path) -> None:
    write_pack([people], tmp_path)
    packed = read_pack(tmp_path)
    part = tmp_path / "part-0000.safetensors"
    tensors = load_file(part)
    tensors["crops"] = np.zeros_like(tensors["crops"])
    part.unlink()
    save_file(tensors, part)
    with pytest.raises(
        ImageError, match=r"crop 3 of .*part-0000.safetensors is damaged; pack the dataset again"
    ):
        packed.read_image(3)
    part.unlink()
    with pytest.raises(
        ImageError, match=r"crop 3 of .*part-0000.safetensors cannot be read: .*; pack the dataset again"
    ):
        packed.read_image(3)


def test_the_margin_contains_all_views(samples: Path, tmp_path: Path) -> None:
    """Views of the default augmentation are the same from the images and from a pack that was not reduced."""
    people = read_training_annotations(samples / "coco/test_coco.json")
    write_pack([people], tmp_path / "pack", quality=None, side=10_000, size=Size(192, 256))
    first, second = (
        PoseDataset(source, augmentation=Augmentation()) for source in (people, read_pack(tmp_path / "pack"))
    )
    assert np.abs(in_images(first) - in_images(second)).max() <= 1


def change_part(folder: Path, **changes: Any) -> None:
    part = folder / "part-0000.safetensors"
    columns = load_file(part)
    save_file(columns | {name: change(columns[name]) for name, change in changes.items()}, part)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "boxes",
            lambda rows: rows.astype(np.float64),
            r"the dtype and shape of boxes are \(dtype\('float64'\), \(10, 4\)\) instead of",
        ),
        ("boxes", lambda rows: rows[0, :1].reshape(()), "contains 1 instance instead of 10"),
        ("xy", lambda rows: rows[:, :-1].copy(), r"the dtype and shape of xy are .* instead of"),
        ("sizes", lambda rows: rows[:, :1].copy(), r"the dtype and shape of sizes are .* instead of"),
        ("sources", lambda rows: rows + 7, r"it has a source that pack\.json does not list"),
        ("sources", lambda rows: rows - 1, r"it has a source that pack\.json does not list"),
        ("ends", lambda ends: ends[::-1].copy(), "the ends of its crops are inconsistent"),
        ("ends", lambda ends: ends - ends[0], "the ends of its crops are inconsistent"),
        ("ends", lambda ends: ends[:3].copy(), "the ends of its crops are inconsistent"),
        ("crops", lambda crops: crops[:-1].copy(), "the ends of its crops are inconsistent"),
        ("crops", lambda crops: crops.astype(np.int8), "the ends of its crops are inconsistent"),
    ],
)
def test_inconsistent_columns_raise(
    name: str, change: Callable, message: str, people: TrainingAnnotations, tmp_path: Path
) -> None:
    write_pack([people], tmp_path / "pack")
    change_part(tmp_path / "pack", **{name: change})
    with pytest.raises(InputError, match=rf"part-0000\.safetensors:? {message}.*; pack the dataset again"):
        read_pack(tmp_path / "pack")


def test_a_pack_without_parts_raises(people: TrainingAnnotations, tmp_path: Path) -> None:
    write_pack([people], tmp_path)
    table = json.loads((tmp_path / "pack.json").read_text())
    (tmp_path / "pack.json").write_text(json.dumps(table | {"parts": []}))
    with pytest.raises(InputError, match=r"pack\.json: parts is \[\]; tuple should have at least 1 item"):
        read_pack(tmp_path)
