"""From one skeleton to another: by name, by place, by the middle; never by number."""

from __future__ import annotations

import numpy as np
import pytest

from vitpose.errors import SkeletonError, UnknownNameError
from vitpose.keypoints.mapping import Layout
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


def point(poses: Poses, name: str) -> np.ndarray:
    index = poses.skeleton.index(name)
    return np.concatenate([poses.xy[:, index], poses.scores[:, index, None]], axis=1)


def test_coco_to_mpii() -> None:
    coco = poses_of("coco")
    mpii = coco.to_skeleton("mpii")
    assert mpii.skeleton.name == "mpii"
    assert Layout.between(coco.skeleton, mpii.skeleton).missing == ("thorax", "upper_neck", "head_top")
    for side in ("left", "right"):
        for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
            np.testing.assert_array_equal(point(mpii, f"{side}_{part}"), point(coco, f"{side}_{part}"))
    left, right = point(coco, "left_hip"), point(coco, "right_hip")
    np.testing.assert_allclose(point(mpii, "pelvis")[:, :2], (left + right)[:, :2] / 2, rtol=1e-6)
    np.testing.assert_array_equal(point(mpii, "pelvis")[:, 2], np.minimum(left[:, 2], right[:, 2]))
    for name in ("thorax", "upper_neck", "head_top"):
        assert np.isnan(point(mpii, name)[:, :2]).all()
        assert (point(mpii, name)[:, 2] == 0).all()
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


def test_aic_to_coco_and_between_sets_with_other_names() -> None:
    aic = poses_of("aic")
    coco = aic.to_skeleton("coco")
    assert Layout.between(aic.skeleton, coco.skeleton).missing == (
        "nose", "left_eye", "right_eye", "left_ear", "right_ear",
    )  # fmt: skip
    np.testing.assert_array_equal(point(coco, "left_wrist"), point(aic, "left_wrist"))
    crowd = aic.to_skeleton("crowdpose")
    np.testing.assert_array_equal(point(crowd, "top_head"), point(aic, "head_top"))
    mpii = aic.to_skeleton("mpii")
    np.testing.assert_array_equal(point(mpii, "upper_neck"), point(aic, "neck"))
    assert np.isnan(point(mpii, "thorax")[:, :2]).all()


@pytest.mark.parametrize("name", Skeleton.available())
def test_a_skeleton_becomes_itself(name: str) -> None:
    poses = poses_of(name)
    np.testing.assert_array_equal(poses.to_skeleton(name).xy, poses.xy)


def test_people_and_animals_do_not_become_each_other() -> None:
    with pytest.raises(
        SkeletonError, match="'coco' that of person and 'ap10k' that of animal: their points do not"
    ):
        poses_of("coco").to_skeleton("ap10k")
    assert poses_of("ap10k").to_skeleton("apt36k").skeleton.name == "apt36k"


def test_ones_own_skeleton_goes_by_name() -> None:
    own = Skeleton("own", ("Left-Wrist", "hat"))
    found = poses_of("coco").to_skeleton(own)
    np.testing.assert_array_equal(found.xy[:, 0], poses_of("coco").xy[:, 9])
    assert np.isnan(found.xy[:, 1]).all()
    with pytest.raises(SkeletonError, match=r"'coco' and 'hats' share no point: nose, .* and hat, …"):
        poses_of("coco").to_skeleton(Skeleton("hats", ("hat",)))
    with pytest.raises(UnknownNameError, match="unknown skeleton 'mpi'"):
        poses_of("coco").to_skeleton("mpi")
