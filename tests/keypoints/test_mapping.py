"""Conversion of keypoints between skeletons: by name, by synonym, by midpoint, never by index."""

from __future__ import annotations

import numpy as np
import pytest

from vitpose.errors import SkeletonError, UnknownNameError
from vitpose.keypoints.mapping import KeypointMapping
from vitpose.keypoints.skeleton import Skeleton
from vitpose.results.poses import Poses


def poses_of(name: str, n: int = 2) -> Poses:
    rng, skeleton = np.random.default_rng(3), Skeleton.load(name)
    k = len(skeleton)
    return Poses(
        xy=rng.uniform(0, 200, (n, k, 2)).astype(np.float32),
        scores=rng.uniform(0.1, 1, (n, k)).astype(np.float32),
        boxes=np.tile(np.array([0, 0, 200, 200], np.float32), (n, 1)),
        box_scores=np.ones(n, np.float32),
        skeleton=skeleton,
        ids=np.arange(n),
    )


def keypoint(poses: Poses, name: str) -> np.ndarray:
    index = poses.skeleton.index(name)
    return np.concatenate([poses.xy[:, index], poses.scores[:, index, None]], axis=1)


def test_coco_to_mpii() -> None:
    coco = poses_of("coco")
    mpii = coco.to_skeleton("mpii")
    assert mpii.skeleton.name == "mpii"
    assert KeypointMapping.between(coco.skeleton, mpii.skeleton).missing == (
        "thorax",
        "upper_neck",
        "head_top",
    )
    for side in ("left", "right"):
        for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
            np.testing.assert_array_equal(keypoint(mpii, f"{side}_{part}"), keypoint(coco, f"{side}_{part}"))
    left, right = keypoint(coco, "left_hip"), keypoint(coco, "right_hip")
    np.testing.assert_allclose(keypoint(mpii, "pelvis")[:, :2], (left + right)[:, :2] / 2, rtol=1e-6)
    np.testing.assert_array_equal(keypoint(mpii, "pelvis")[:, 2], np.minimum(left[:, 2], right[:, 2]))
    for name in ("thorax", "upper_neck", "head_top"):
        assert np.isnan(keypoint(mpii, name)[:, :2]).all()
        assert (keypoint(mpii, name)[:, 2] == 0).all()
    np.testing.assert_array_equal(mpii.ids, coco.ids)
    np.testing.assert_array_equal(mpii.boxes, coco.boxes)


def test_wholebody_to_coco_and_feet() -> None:
    whole = poses_of("coco-wholebody")
    feet = whole.to_skeleton("coco-feet")
    np.testing.assert_array_equal(feet.xy, whole.xy[:, :23])
    np.testing.assert_array_equal(whole.to_skeleton("coco").xy, whole.xy[:, :17])
    assert feet.skeleton.keypoints[17:] == (
        "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
    )  # fmt: skip


def test_aic_to_coco_and_to_datasets_with_synonyms() -> None:
    aic = poses_of("aic")
    coco = aic.to_skeleton("coco")
    assert KeypointMapping.between(aic.skeleton, coco.skeleton).missing == (
        "nose", "left_eye", "right_eye", "left_ear", "right_ear",
    )  # fmt: skip
    np.testing.assert_array_equal(keypoint(coco, "left_wrist"), keypoint(aic, "left_wrist"))
    crowd = aic.to_skeleton("crowdpose")
    np.testing.assert_array_equal(keypoint(crowd, "top_head"), keypoint(aic, "head_top"))
    mpii = aic.to_skeleton("mpii")
    np.testing.assert_array_equal(keypoint(mpii, "upper_neck"), keypoint(aic, "neck"))
    assert np.isnan(keypoint(mpii, "thorax")[:, :2]).all()


@pytest.mark.parametrize("name", Skeleton.available())
def test_conversion_to_the_same_skeleton_changes_nothing(name: str) -> None:
    poses = poses_of(name)
    np.testing.assert_array_equal(poses.to_skeleton(name).xy, poses.xy)


def test_people_are_not_converted_to_animals() -> None:
    with pytest.raises(
        SkeletonError,
        match=r"the skeletons 'coco' \(person\) and 'ap10k' \(animal\) are of different kinds; choose a",
    ):
        poses_of("coco").to_skeleton("ap10k")
    assert poses_of("ap10k").to_skeleton("apt36k").skeleton.name == "apt36k"


def test_a_custom_skeleton_matches_by_name() -> None:
    custom = Skeleton("custom", ("Left-Wrist", "hat"))
    found = poses_of("coco").to_skeleton(custom)
    np.testing.assert_array_equal(found.xy[:, 0], poses_of("coco").xy[:, 9])
    assert np.isnan(found.xy[:, 1]).all()
    with pytest.raises(
        SkeletonError, match=r"'coco' and 'hats' have no keypoint in common: nose, .* and hat, …; choose"
    ):
        poses_of("coco").to_skeleton(Skeleton("hats", ("hat",)))
    with pytest.raises(UnknownNameError, match="unknown skeleton 'mpi'"):
        poses_of("coco").to_skeleton("mpi")
