from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from vitpose.data.annotations import TrainingAnnotations
from vitpose.data.augment import Augmentation, View
from vitpose.errors import InputError
from vitpose.geometry.boxes import Size
from vitpose.geometry.warp import Warp

SIZE = Size(width=48, height=64)
NOTHING = Augmentation(
    flip=0.0, half_body=0.0, scale_sigma=0.0, rotation_probability=0.0, shift_probability=0.0
)


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def many(people: TrainingAnnotations, count: int = 4000) -> TrainingAnnotations:
    return people.select(np.zeros(count, int))


def test_no_augmentation_is_the_plain_view(people: TrainingAnnotations) -> None:
    view, plain = NOTHING.draw(people, SIZE, "udp", rng()), View.plain(people.boxes, SIZE)
    np.testing.assert_array_equal(view.warp.matrices(SIZE), plain.warp.matrices(SIZE))
    np.testing.assert_allclose(view.colours, plain.colours, atol=1e-12)
    image = people.read_image(0)
    np.testing.assert_array_equal(view.crop(image), Warp.from_boxes(people.boxes[:1], SIZE).crop(image)[0])


def test_a_flip_mirrors_the_crop_and_swaps_keypoints(people: TrainingAnnotations) -> None:
    image, mirror = people.read_image(0), people.skeleton.mirror
    view, plain = replace(NOTHING, flip=1.0).draw(people, SIZE, "udp", rng()), View.plain(people.boxes, SIZE)
    assert view.mirrored.all()
    assert np.abs(view.crop(image).astype(int) - plain.crop(image)[:, ::-1]).max() <= 1
    keypoints, labelled = view.to_grid(people.xy, people.labelled, mirror, SIZE)
    expected, _ = plain.to_grid(people.xy, people.labelled, mirror, SIZE)
    expected[:, :, 0] = SIZE.width - 1 - expected[:, :, 0]
    np.testing.assert_allclose(keypoints, expected[:, mirror], atol=1e-9)
    np.testing.assert_array_equal(labelled, people.labelled[:, mirror])


def test_a_flip_in_the_plain_convention_is_a_crop_of_the_flipped_image(people: TrainingAnnotations) -> None:
    """In the plain convention a mirrored crop is not the reversed crop, as its scale is not one step per cell."""
    image = people.read_image(0)
    view = replace(NOTHING, flip=1.0).draw(people.select([0]), SIZE, "plain", rng())
    left, top, right, bottom = people.boxes[0]
    last = image.shape[1] - 1
    box = np.array([[last - right, top, last - left, bottom]], np.float32)
    expected = Warp.from_boxes(box, SIZE, "plain").crop(np.ascontiguousarray(image[:, ::-1]))[0]
    assert np.abs(view.crop(image).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("convention", ["udp", "plain"])
def test_pixels_and_keypoints_are_transformed_alike(people: TrainingAnnotations, convention: str) -> None:
    """White squares around the keypoints are at the transformed keypoints."""
    image = np.zeros((200, 240, 3), np.uint8)
    person = people.select([0])
    person = replace(person, xy=np.rint(person.xy))
    checked = 0
    for seed in range(40):
        view = Augmentation().draw(person, Size(192, 256), convention, np.random.default_rng(seed))
        transformed, _ = view.to_grid(person.xy, person.labelled, np.arange(17), Size(192, 256))
        for keypoint, expected in zip(person.xy[0].astype(int), transformed[0], strict=True):
            if (expected < 15).any() or (expected > [177, 241]).any():
                continue
            dotted = image.copy()
            dotted[keypoint[1] - 1 : keypoint[1] + 2, keypoint[0] - 1 : keypoint[0] + 2] = 255
            levels = view.crop(dotted)[:, :, 0].astype(float)
            rows, columns = np.mgrid[: levels.shape[0], : levels.shape[1]]
            middle = np.array([(levels * columns).sum(), (levels * rows).sum()]) / levels.sum()
            np.testing.assert_allclose(middle, expected, atol=0.1)
            checked += 1
    assert checked > 100


def test_the_defaults_are_the_published_recipe(people: TrainingAnnotations) -> None:
    crowd = many(replace(people, visibility=np.full((10, 17), 2, np.uint8)))
    full = View.plain(crowd.boxes, SIZE).warp
    view = replace(Augmentation(), half_body=0.0).draw(crowd, SIZE, "udp", rng())
    scales = np.abs(view.warp.extents[:, 1]) / full.extents[:, 1]
    assert scales.min() == pytest.approx(0.5)
    assert scales.max() == pytest.approx(1.5)
    assert (scales < 0.51).mean() == pytest.approx(0.16, abs=0.02)  # N(1, 0.5) below 0.5
    assert view.mirrored.mean() == pytest.approx(0.5, abs=0.03)
    turned = view.warp.angles != 0
    assert turned.mean() == pytest.approx(0.6, abs=0.03)
    assert np.abs(view.warp.angles).max() == 80
    assert np.median(np.abs(view.warp.angles[turned])) == pytest.approx(0.6745 * 40, abs=2)
    moved = (view.warp.centres - full.centres) / (crowd.boxes[:, 2:] - crowd.boxes[:, :2])
    assert (moved[:, 0] != 0).mean() == pytest.approx(0.3, abs=0.03)
    assert 0.19 < np.abs(moved).max() <= 0.2


@pytest.mark.parametrize(
    ("changes", "upper_share"), [({}, NormalDist().cdf(0.5)), ({"half_body_upper": 0.2}, 0.2)]
)
def test_half_bodies(people: TrainingAnnotations, changes: dict[str, float], upper_share: float) -> None:
    """The default share of upper bodies is that of the original, which draws randn() < 0.5."""
    crowd = many(replace(people, visibility=np.full((10, 17), 2, np.uint8)), 2000)
    full = View.plain(crowd.boxes, SIZE).warp
    view = replace(NOTHING, half_body=0.3, **changes).draw(crowd, SIZE, "udp", rng())
    upper, lower = (
        crowd.xy[0, list(part)] for part in (crowd.skeleton.upper_body, crowd.skeleton.lower_body)
    )
    found = []
    for half in (upper, lower):
        here = np.isclose(view.warp.centres, half.mean(axis=0), atol=1e-3).all(axis=1)
        found.append(here.mean())
        width, height = np.ptp(half, axis=0)
        wide = max(width, height * 0.75) * 1.5
        np.testing.assert_allclose(view.warp.extents[here], [[wide, wide / 0.75]] * here.sum(), rtol=1e-5)
    assert found == pytest.approx([0.3 * upper_share, 0.3 * (1 - upper_share)], abs=0.03)
    whole = (view.warp.centres == full.centres).all(axis=1)
    assert whole.mean() + sum(found) == pytest.approx(1)


def test_half_bodies_require_more_than_eight_keypoints_and_an_extent(people: TrainingAnnotations) -> None:
    always, visibility = replace(NOTHING, half_body=1.0), np.zeros((10, 17), np.uint8)
    full = View.plain(people.boxes, SIZE).warp.centres
    visibility[:, :8] = 2
    few = always.draw(replace(people, visibility=visibility), SIZE, "udp", rng())
    np.testing.assert_array_equal(few.warp.centres, full)
    visibility[:, :11] = 2  # only the upper body
    upper = always.draw(replace(people, visibility=visibility), SIZE, "udp", rng())
    np.testing.assert_allclose(upper.warp.centres, people.xy[:, :11].mean(axis=1), rtol=1e-5)
    skeleton = replace(people.skeleton, upper_body=(), lower_body=())
    none = always.draw(replace(people, skeleton=skeleton), SIZE, "udp", rng())
    np.testing.assert_array_equal(none.warp.centres, full)


@pytest.mark.parametrize("aspect", ["keep", "stretch"])
def test_views_stay_within_reach(people: TrainingAnnotations, aspect: str) -> None:
    recipe = Augmentation()
    box = recipe.reach(people, SIZE, aspect)
    corners = np.array([[0, 0], [47, 0], [0, 63], [47, 63]], float)
    for seed in range(200):
        view = recipe.draw(people, SIZE, "udp", np.random.default_rng(seed), aspect)
        in_image = view.warp.to_image(np.repeat(corners[None], len(people), axis=0), SIZE)
        assert (in_image >= box[:, None, :2] - 1e-6).all()
        assert (in_image <= box[:, None, 2:] + 1e-6).all()


def test_colours(people: TrainingAnnotations) -> None:
    grey = np.full((200, 240, 3), 100, np.uint8)
    view = replace(NOTHING, saturation=1.0).draw(people, SIZE, "udp", rng())
    np.testing.assert_array_equal(view.crop(grey)[32, 24], [100] * 3)  # grey has no saturation
    view = replace(NOTHING, brightness=0.5, contrast=0.5).draw(many(people), SIZE, "udp", rng())
    levels = view.colours[:, :, :3].sum(axis=2) * 100 + view.colours[:, :, 3]
    # Brightness and contrast both at their lower limit, and both at their upper limit.
    assert 127.5 - 1.5 * 77.5 <= levels.min() < 127.5 - 1.5 * 77.5 + 4
    assert 127.5 + 1.5 * 22.5 - 4 < levels.max() <= 127.5 + 1.5 * 22.5
    bright = np.eye(3, 4)[None] * 2
    view = replace(View.plain(people.boxes[:1], SIZE), colours=bright)
    assert view.crop(grey)[32, 24].tolist() == [200] * 3
    assert view.crop(grey * 2)[32, 24].tolist() == [255] * 3


def test_occlusion(people: TrainingAnnotations) -> None:
    view = replace(NOTHING, occlusion=1.0).draw(many(people, 300), SIZE, "udp", rng())
    image = people.read_image(0)
    sides = view.hidden[:, 2:] - view.hidden[:, :2]
    assert sides.min() >= 0
    assert sides.max() <= 0.5
    assert view.hidden.max() <= 1
    left, top, right, bottom = view.hidden_cells[7]
    crop = view.crop(image, 7)
    assert (crop[top:bottom, left:right] == np.rint(view.covers[7]).astype(np.uint8)).all()
    plain = View.plain(people.boxes[:1], SIZE).crop(image)
    hidden = np.zeros(plain.shape[:2], bool)
    hidden[top:bottom, left:right] = True
    np.testing.assert_array_equal(crop[~hidden], plain[~hidden])


def test_the_same_seed_gives_the_same_view(people: TrainingAnnotations) -> None:
    recipe = Augmentation(occlusion=0.5, brightness=0.2)
    first, second = (recipe.draw(people, SIZE, "udp", rng()) for _ in range(2))
    np.testing.assert_array_equal(first.warp.matrices(SIZE), second.warp.matrices(SIZE))
    np.testing.assert_array_equal(first.hidden, second.hidden)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip": 1.5}, "flip 1.5 of the augmentation must be at most 1"),
        ({"shift": -0.1}, "shift -0.1 of the augmentation must be finite and not negative"),
        ({"rotation_sigma_deg": float("nan")}, "rotation_sigma_deg nan .* must be finite"),
        ({"scale_limit": 1.0}, "scale_limit 1.0 must be below 1, otherwise a crop could have no area"),
    ],
)
def test_values_out_of_range_raise(changes: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Augmentation(**changes)
