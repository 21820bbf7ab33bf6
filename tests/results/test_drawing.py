from __future__ import annotations

import json
import re
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vitpose.errors import ImageError, InputError, UnknownNameError
from vitpose.geometry.boxes import Size
from vitpose.images import read_image
from vitpose.keypoints.skeleton import Skeleton
from vitpose.results.drawing import DrawingOptions, draw
from vitpose.results.heatmap_overlay import draw_heatmaps
from vitpose.results.mixed_poses import MixedPoses
from vitpose.results.poses import Poses
from vitpose.results.text import HAS_FONTS

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
ORANGE, AZURE = (255, 128, 0), (0, 128, 255)
ELBOW = Skeleton(
    "elbow",
    ("shoulder", "elbow", "wrist"),
    edges=((0, 1), (1, 2)),
    colours=("#ff0000", "#00ff00", "#0000ff"),
    edge_colours=("#ff8000", "#0080ff"),
)


def grey(width: int = 200, height: int = 200, level: int = 100) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def poses_of(
    keypoints: Any, scores: Any = None, skeleton: Skeleton = ELBOW, ids: Any = None, boxes: Any = None
) -> Poses:
    xy = np.array(keypoints, np.float32)
    xy = xy[None] if xy.ndim == 2 else xy
    n, k = xy.shape[:2]
    return Poses(
        xy=xy,
        scores=np.ones((n, k), np.float32) if scores is None else np.array(scores, np.float32).reshape(n, k),
        boxes=np.array([[20, 60, 180, 150]] * n if boxes is None else boxes, np.float32),
        box_scores=np.full(n, 0.5, np.float32),
        skeleton=skeleton,
        ids=None if ids is None else np.array(ids),
    )


BENT = [[30, 100], [100, 100], [100, 170]]


def assert_colour(pixel: np.ndarray, colour: tuple[int, int, int]) -> None:
    """The tolerance is for anti-aliased lines, which are slightly transparent."""
    np.testing.assert_allclose(pixel.astype(int), colour, atol=20)


def changed(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    return (after != before).any(axis=2)


def test_edges_and_keypoints_have_their_rgb_colours() -> None:
    drawn = draw(grey(), poses_of(BENT))
    assert_colour(drawn[100, 65], ORANGE)
    assert_colour(drawn[135, 100], AZURE)
    for (x, y), colour in zip(BENT, (RED, GREEN, BLUE), strict=True):
        assert_colour(drawn[y, x], colour)


def test_the_given_image_is_not_changed() -> None:
    image = grey()
    drawn = draw(image, poses_of(BENT), boxes=True, names=True, opacity_by_score=True)
    assert (image == 100).all()
    assert drawn.dtype == np.uint8
    assert drawn.shape == image.shape
    assert drawn.flags.writeable
    assert not np.shares_memory(drawn, image)


def test_any_readable_image_can_be_drawn_on() -> None:
    frozen = grey()
    frozen.setflags(write=False)
    expected = draw(grey(), poses_of(BENT))
    for image in (frozen, grey()[:, :, ::-1], grey(400)[:, ::2], grey()[:, :, 0]):
        np.testing.assert_array_equal(draw(image, poses_of(BENT)), expected)
    with pytest.raises(ImageError, match="is not an image"):
        draw(np.zeros(5, np.uint8), poses_of(BENT))


def test_zero_instances_return_a_copy() -> None:
    image = grey()
    drawn = draw(image, Poses.empty(ELBOW), boxes=True, names=True, opacity_by_score=True)
    np.testing.assert_array_equal(drawn, image)
    assert drawn is not image


def test_an_edge_is_drawn_if_both_ends_are() -> None:
    image = grey()
    drawn = draw(image, poses_of(BENT, scores=[0.9, 0.9, 0.2]))
    assert_colour(drawn[100, 65], ORANGE)
    assert not changed(drawn, image)[115:].any()
    np.testing.assert_array_equal(draw(image, poses_of(BENT, scores=[0.2] * 3)), image)


def test_threshold() -> None:
    poses = poses_of(BENT, scores=[0.9, 0.9, 0.2])
    assert_colour(draw(grey(), poses, threshold=0.2)[170, 100], BLUE)
    assert not changed(draw(grey(), poses, threshold=0.95), grey()).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, -2e6])
@pytest.mark.parametrize("opacity_by_score", [False, True])
def test_keypoints_that_are_not_finite_are_not_drawn(bad: float, opacity_by_score: bool) -> None:
    poses = poses_of([BENT[0], BENT[1], [100, bad]], scores=[0.9] * 3)
    lost = poses_of([BENT[0], BENT[1], [0, 0]], scores=[0.9, 0.9, 0])
    options = {"names": True, "boxes": True, "opacity_by_score": opacity_by_score}
    np.testing.assert_array_equal(draw(grey(), poses, **options), draw(grey(), lost, **options))


@pytest.mark.parametrize("far", [300, 10_000, 900_000])
def test_an_edge_that_leaves_the_image_is_drawn_up_to_the_border(far: float) -> None:
    drawn = draw(grey(), poses_of([[100, 100], [far, far], [far, -far]]))
    assert_colour(drawn[150, 150], ORANGE)
    assert_colour(drawn[190, 190], ORANGE)
    assert_colour(draw(grey(), poses_of([[100, 100], [-far, 100], [-far, -far]]))[100, 5], ORANGE)


def test_positions_have_subpixel_accuracy() -> None:
    image = np.zeros((41, 41, 3), np.uint8)
    for x, y in [(20, 20), (20.25, 20), (20.5, 19.75), (19.625, 20.375)]:
        mass = draw(image, poses_of([[x, y]] * 3, scores=[1, 0, 0]))[:, :, 0].astype(float)
        rows, columns = np.mgrid[:41, :41]
        assert (mass * columns).sum() / mass.sum() == pytest.approx(x, abs=0.1)
        assert (mass * rows).sum() / mass.sum() == pytest.approx(y, abs=0.1)


def width_of_edge(size: int, person: float) -> int:
    """Draws an upright person of the given height, px, on a square image and returns the width of the edge."""
    start = (size - person) / 2
    poses = poses_of([[size / 2, start], [size / 2, start + person], [0, 0]], scores=[1, 1, 0])
    box = np.array([[start, start, start + person, start + person]], np.float32)
    across = draw(grey(size, size), replace(poses, boxes=box))[size // 2].astype(int)
    return int((np.abs(across - 100).max(axis=1) > 50).sum())


def test_edges_are_wider_on_larger_images_and_larger_people() -> None:
    assert width_of_edge(160, 25) <= 3  # a small person is not a blob
    assert width_of_edge(640, 60) <= 3
    assert width_of_edge(1080, 900) >= 9  # visible from a distance
    assert width_of_edge(160, 140) <= 6
    assert width_of_edge(1080, 60) < width_of_edge(1080, 300) < width_of_edge(1080, 900)
    assert width_of_edge(160, 140) < width_of_edge(640, 560) < width_of_edge(1080, 945)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_poses_have_contrast_on_any_background(level: int) -> None:
    """Even if edges and keypoints have the colour of the image."""
    camouflage = Skeleton("camouflage", ELBOW.keypoints, ELBOW.edges, colours=("#" + f"{level:02x}" * 3,) * 3)
    drawn = draw(grey(400, 400, level), poses_of(np.array(BENT) * 2, skeleton=camouflage)).astype(int)
    assert np.abs(drawn - level).max() > 100


def test_short_edges_are_thinner_than_long_ones() -> None:
    skeleton = Skeleton(
        "finger", ("shoulder", "wrist", "knuckle", "tip"), ((0, 1), (1, 2), (2, 3)), colours=("#ffffff",) * 4
    )
    poses = poses_of([[100, 50], [900, 50], [900, 80], [900, 100]], skeleton=skeleton)
    image = grey(1000, 200)
    mask = changed(draw(image, poses, thickness=10.0), image)
    arm, finger = mask[:, 500].sum(), mask[90].sum()
    assert arm >= 16
    assert 1 <= finger <= arm / 2


def test_close_keypoints_without_edges_do_not_touch() -> None:
    """Such as those of the outline of a face."""
    skeleton = Skeleton("face", ("nose", "foot", "a", "b", "c"), ((0, 1),))
    poses = poses_of([[100, 50], [100, 950], [300, 60], [310, 60], [320, 60]], skeleton=skeleton)
    image = grey(1000, 1000)
    mask = changed(draw(image, poses), image)
    assert mask[60, [300, 310, 320]].all()
    assert not mask[60, [305, 315]].any()


def test_keypoints_are_drawn_without_edges() -> None:
    drawn = draw(grey(), poses_of(BENT, skeleton=Skeleton("dots", ("a", "b", "c"), colours=ELBOW.colours)))
    assert not changed(drawn, grey())[100, 65]
    for (x, y), colour in zip(BENT, (RED, GREEN, BLUE), strict=True):
        assert_colour(drawn[y, x], colour)


def test_thickness() -> None:
    image = grey()
    widths = [
        changed(draw(image, poses_of(BENT), thickness=t), image)[:, 65].sum() for t in (0.1, 1.0, 4.0, 8.0)
    ]
    assert widths[0] == widths[1] < widths[2] < widths[3]
    # An edge is never wider than an eighth of its length, and rims come on top.
    assert changed(draw(image, poses_of(BENT), thickness=1000.0), image)[:, 65].sum() <= 70 / 8 * 2 + 2


@pytest.mark.parametrize("thickness", [0.0, -1.0, float("nan"), float("inf"), 1001.0])
def test_an_invalid_thickness_raises(thickness: float) -> None:
    message = f"must be above 0 and at most 1000 pixels, not {thickness!r}; None: automatic"
    with pytest.raises(InputError, match=f"thickness {message}"):
        draw(grey(), poses_of(BENT), thickness=thickness)
    with pytest.raises(InputError, match=f"radius {message}"):
        draw(grey(), poses_of(BENT), radius=thickness)


def test_opacity_by_score() -> None:
    poses = poses_of(BENT, scores=[1, 0.5, 1])
    solid, clear = draw(grey(), poses), draw(grey(), poses, opacity_by_score=True)
    np.testing.assert_allclose(clear[100, 65], solid[100, 65] / 2 + 50, atol=1)  # its weaker end has 0.5
    assert_colour(clear[100, 30], RED)
    np.testing.assert_array_equal(changed(solid, grey()), changed(clear, grey()))


def test_a_score_of_1_is_opaque() -> None:
    for top in (1, 1.2):
        poses = poses_of(BENT, scores=[top] * 3)
        np.testing.assert_array_equal(draw(grey(), poses, opacity_by_score=True), draw(grey(), poses))


def test_the_first_pose_is_on_top() -> None:
    other = Skeleton("elbow", ELBOW.keypoints, ELBOW.edges)
    crossing = poses_of(
        [BENT, [[65, 60], [65, 140], [20, 20]]], scores=[[1, 1, 0], [1, 1, 0]], skeleton=other
    )
    drawn = draw(grey(), crossing, thickness=5.0)
    assert (drawn[99:102, 60:70] == drawn[100, 50]).all()


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_an_invalid_threshold_raises(threshold: float) -> None:
    with pytest.raises(InputError, match=f"threshold {threshold} must be a number from 0 to 1"):
        draw(grey(), poses_of(BENT), threshold=threshold)


def test_tags_show_the_score_of_the_pose() -> None:
    """The same box with keypoints of lower score, or with a lower box score."""
    confident, uncertain = (
        Poses(**{**vars(poses_of(BENT)), "scores": np.full((1, 3), s)}) for s in (0.9, 0.4)
    )
    weak = Poses(**{**vars(poses_of(BENT)), "scores": np.full((1, 3), 0.9), "box_scores": np.array([2 / 9])})
    tags = [draw(grey(), poses, scores=True)[40:60, 20:90] for poses in (confident, uncertain, weak)]
    assert changed(tags[0], tags[1]).any()
    np.testing.assert_array_equal(tags[1], tags[2])


def test_tags_do_not_cover_each_other() -> None:
    """For two nearly equal boxes the second tag is at another corner; there are eight positions at a box."""
    boxes = [[20, 60, 180, 150], [24, 60, 184, 150]]
    both = draw(grey(), poses_of([BENT, BENT], ids=[1, 2], boxes=boxes))
    first = draw(grey(), poses_of(BENT, ids=[1], boxes=boxes[:1]))
    np.testing.assert_array_equal(both[40:60, :70], first[40:60, :70])
    assert changed(both, first)[45:60, 150:184].any()
    many = poses_of([BENT] * 9, ids=range(9), boxes=boxes[:1] * 9)
    tags = [changed(draw(grey(), p), draw(grey(), p, ids=False)) for p in (many, many[:8], many[:7])]
    np.testing.assert_array_equal(tags[0], tags[1])
    assert tags[1].sum() > tags[2].sum()


def test_untracked_instances_have_no_tag_and_a_grey_box() -> None:
    tracked, untracked, plain = (poses_of(BENT, ids=ids) for ids in ([5], [-1], None))
    np.testing.assert_array_equal(draw(grey(), untracked), draw(grey(), plain))
    assert changed(draw(grey(), tracked), draw(grey(), plain)).any()
    boxed = draw(grey(), untracked, boxes=True)
    red, green, blue = boxed[100, 20].astype(int)
    assert red == green == blue != 100
    assert changed(boxed, draw(grey(), tracked, boxes=True))[:60].any()


def test_boxes_and_scores_are_drawn_separately() -> None:
    image = grey()
    plain, box = draw(image, poses_of(BENT)), draw(image, poses_of(BENT), boxes=True)
    mask = changed(box, plain)
    assert mask[80:140, 20].all()  # left side
    assert mask[150, 30:170].all()  # bottom
    assert not mask[:59].any()
    boxed = draw(image, poses_of(BENT), boxes=True, scores=True)
    mask = changed(boxed, plain)
    assert changed(draw(image, poses_of(BENT), scores=True), plain)[46:59, 20:40].all()
    tag = boxed[45:59, 20:40]
    assert (tag > 200).all(axis=2).any()  # white letters
    assert not mask[:40].any()
    other = Poses(**{**vars(poses_of(BENT)), "box_scores": np.array([0.75], np.float32)})
    assert changed(draw(image, other, boxes=True, scores=True), boxed)[:60].any()


def test_track_ids_are_written_if_given() -> None:
    image = grey()
    plain = draw(image, poses_of(BENT))
    np.testing.assert_array_equal(draw(image, poses_of(BENT, ids=[7]), ids=False), plain)
    marked = changed(draw(image, poses_of(BENT, ids=[7])), plain)
    assert marked[45:60, 20:40].any()
    assert not marked[62:].any()


def test_the_colour_of_a_track_does_not_depend_on_its_row() -> None:
    keypoints, boxes = [BENT, BENT], [[20, 60, 180, 150], [20, 60, 180, 150]]
    alone = draw(grey(), poses_of(BENT, ids=[12]), boxes=True)
    second = poses_of(keypoints, ids=[3, 12], boxes=boxes)[1]
    np.testing.assert_array_equal(draw(grey(), second, boxes=True), alone)
    assert changed(draw(grey(), poses_of(BENT, ids=[3]), boxes=True), alone)[100, 20]


@pytest.mark.parametrize(
    "box",
    [[-1e9, -1e9, 1e9, 1e9], [-50, -50, -10, -10], [500, 500, 600, 600], [0, 0, 200, 200], [190, 0, 191, 3]],
)
def test_boxes_at_any_position(box: list[float]) -> None:
    drawn = draw(grey(), poses_of(BENT, boxes=[box], ids=[1]), boxes=True)
    assert (drawn > 200).all(axis=2).any()  # its tag stays in the image


def test_a_box_that_is_not_finite_is_not_drawn() -> None:
    poses = poses_of(BENT, boxes=[[np.nan, 0, 5, 5]], ids=[1])
    np.testing.assert_array_equal(draw(grey(), poses, boxes=True), draw(grey(), poses, ids=False))


@pytest.mark.parametrize("fonts", [True, False], ids=["OpenCV 5", "OpenCV 4"])
def test_names_are_beside_their_keypoints_and_cover_none(
    fonts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitpose.results.text.HAS_FONTS", fonts and HAS_FONTS)
    poses = poses_of([[30, 100], [100, 100], [190, 170]])
    plain, named = draw(grey(), poses), draw(grey(), poses, names=True)
    mask = changed(named, plain)
    assert mask[93:108, 36:80].any()  # right of the shoulder
    assert mask[163:178, 130:184].any()  # left of the wrist, as there is no space to its right
    for x, y in poses.xy[0].astype(int):
        assert not mask[y - 2 : y + 3, x - 2 : x + 3].any()
    letters = named[mask]
    assert letters.max() > 200
    assert letters.min() < 50


def test_names_without_space_are_omitted() -> None:
    crowd = poses_of([[100, 100], [101, 100], [100, 101]])
    one = poses_of([[100, 100], [101, 100], [100, 101]], scores=[1, 0, 0])
    written = changed(draw(grey(), crowd, names=True), draw(grey(), crowd)).sum()
    assert written < 5 * changed(draw(grey(), one, names=True), draw(grey(), one)).sum()
    small = grey(20, 12)
    poses = poses_of([[5, 5], [9, 5], [9, 9]])
    np.testing.assert_array_equal(draw(small, poses, names=True), draw(small, poses))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 2)])
def test_tiny_images(size: tuple[int, int]) -> None:
    drawn = draw(grey(*size), poses_of(BENT, ids=[1]), boxes=True, names=True, opacity_by_score=True)
    assert drawn.shape == (size[1], size[0], 3)


@settings(deadline=None, max_examples=60)
@given(
    arrays(np.float32, (2, 3, 2), elements=st.floats(width=32)),
    arrays(np.float32, (2, 3), elements=st.floats(-1, 2, width=32)),
    arrays(np.float32, (2, 4), elements=st.floats(width=32)),
    st.booleans(),
)
def test_any_floats_can_be_drawn(xy: np.ndarray, scores: np.ndarray, boxes: np.ndarray, fade: bool) -> None:
    poses = Poses(xy, scores, boxes, np.ones(2, np.float32), ELBOW, np.array([-5, 2**40]))
    assert draw(grey(40, 30), poses, boxes=True, names=True, opacity_by_score=fade).shape == (30, 40, 3)


def test_whole_body_faces_are_readable(shared_data: Path) -> None:
    """On a photograph enlarged four times, the face is drawn in thin lines with skin visible between them."""
    folder = shared_data / "samples" / "coco"
    note = json.loads((folder / "test_coco_wholebody.json").read_text())["annotations"][0]
    parts = ("keypoints", "foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")
    points = np.array([value for part in parts for value in note[part]], np.float32).reshape(133, 3)
    skeleton = Skeleton.load("coco-wholebody")
    image = np.repeat(np.repeat(read_image(folder / "000000000785.jpg"), 4, axis=0), 4, axis=1)
    poses = poses_of(points[:, :2] * 4, scores=np.minimum(points[:, 2], 1), skeleton=skeleton)
    mask = changed(draw(image, poses), image)
    jaw = poses.xy[0, 27:36]  # its lower part, away from the edges of the body
    for x, y in jaw.round().astype(int):
        assert mask[y, x]
    steps = np.diff(jaw, axis=0)
    beside = 5 * steps[:, ::-1] * [1, -1] / np.linalg.norm(steps, axis=1, keepdims=True)  # px, inwards
    middles = (jaw[:-1] + jaw[1:]) / 2
    for (x, y), (u, v) in zip(
        middles.round().astype(int), (middles + beside).round().astype(int), strict=True
    ):
        assert mask[y, x]
        assert not mask[v, u]


def test_face_and_hands_have_colours_by_part_and_thinner_edges() -> None:
    skeleton = Skeleton.load("coco-wholebody")
    colours = dict(zip(skeleton.keypoints, skeleton.colours, strict=True))
    face = [colours[f"face-{index}"] for index in range(68)]
    parts = [slice(0, 17), slice(17, 27), slice(27, 36), slice(36, 48), slice(48, 68)]
    assert len({face[part][0] for part in parts}) == 5
    assert all(len(set(face[part])) == 1 for part in parts)
    # A forearm of 100 px, a palm of 40 px and finger segments of 10 px, in one line.
    names = ("left_elbow", "left_wrist", "left_hand_root", "left_forefinger1", "left_forefinger2")
    points = np.zeros((133, 2), np.float32)
    points[[skeleton.index(name) for name in names], 0] = (20, 120, 130, 170, 180)
    points[:, 1] = 100
    scores = np.zeros(133, np.float32)
    scores[[skeleton.index(name) for name in names]] = 1
    mask = changed(draw(grey(), poses_of(points, scores, skeleton), thickness=12.0), grey())
    assert mask[:, 150].sum() < mask[:, 70].sum() / 2
    assert mask[:, 175].sum() <= mask[:, 150].sum()


def test_mixed_poses_are_drawn_with_the_edges_of_each_skeleton() -> None:
    person = poses_of(np.array(BENT) * 0.5, skeleton=ELBOW)
    animal = replace(ELBOW, name="paw", edges=((0, 2),), edge_colours=("#ff00ff",))
    paw = poses_of(np.array(BENT) * 0.5 + 90, skeleton=animal)
    mixed = MixedPoses({"elbow": person, "paw": paw}, np.array([[1, 0], [0, 0]]), ("cat", "person"))
    np.testing.assert_array_equal(draw(grey(), mixed), draw(draw(grey(), person), paw))
    drawn = draw(grey(), mixed, boxes=True, names=True)
    assert_colour(drawn[157, 122], (255, 0, 255))
    assert changed(drawn, draw(grey(), mixed)).any()


def test_colours_by_instance_and_one_colour() -> None:
    two = poses_of([BENT, np.add(BENT, (40, -60))])
    drawn = draw(grey(), two, colours="instance")
    first, second = drawn[100, 65].astype(int), drawn[40, 105].astype(int)
    assert np.abs(first - second).max() > 50
    np.testing.assert_array_equal(drawn[100, 65], drawn[100, 30])  # edge and keypoint
    tracked = replace(two, ids=np.array([3, 3]))
    same = draw(grey(), tracked, colours="instance", ids=False)
    np.testing.assert_array_equal(same[100, 65], same[40, 105])
    assert_colour(draw(grey(), two, colours="#FF0000")[100, 65], RED)


@pytest.mark.parametrize("colours", ["instances", "#ff00", "red", ""])
def test_invalid_colours_raise(colours: str) -> None:
    message = re.escape(f"unknown choice of colours {colours!r}") + '.* One colour is written as "#rrggbb"'
    with pytest.raises(UnknownNameError, match=message):
        draw(grey(), poses_of(BENT), colours=colours)


def test_radius() -> None:
    image = grey()
    small, large = (
        changed(draw(image, poses_of(BENT), thickness=2.0, radius=r), image).sum() for r in (1, 6.5)
    )
    assert small < large
    discs = draw(image, poses_of(BENT), thickness=2.0, radius=6.0)
    assert_colour(discs[95, 30], RED)
    np.testing.assert_array_equal(discs[100, 65], draw(image, poses_of(BENT), thickness=2.0)[100, 65])


def test_an_image_of_another_size_raises() -> None:
    poses = replace(poses_of(BENT), image_size=Size(width=200, height=200))
    np.testing.assert_array_equal(draw(grey(), poses), draw(grey(), poses_of(BENT)))
    message = "the image has 300x200 pixels, but the poses are those of an image of 200x200; pass that image"
    with pytest.raises(InputError, match=message):
        draw(grey(300, 200), poses)


HEAD = Skeleton("head", ("nose", "left_ear", "right_ear"), colours=("#404040",) * 3)
FACE = [[100, 50], [112, 50], [88, 50]]


def test_tags_do_not_cover_faces_if_there_is_another_position() -> None:
    """The face of one instance is where the tag of the other would be."""
    other = poses_of([[30, 70], [38, 70], [22, 70]], skeleton=HEAD, boxes=[[15, 60, 60, 180]])
    below = poses_of([[30, 130], [38, 130], [22, 130]], skeleton=HEAD, ids=[5], boxes=[[20, 85, 60, 140]])
    alone = draw(grey(), below)
    both = draw(grey(), replace_rows(other, below))
    assert changed(alone, grey())[68:85, 20:45].any()  # above its box
    bare = draw(grey(), replace_rows(other, below), ids=False)
    assert not changed(both, bare)[60:82, 20:42].any()
    assert changed(both, bare).any()


def replace_rows(first: Poses, second: Poses) -> Poses:
    """Returns the instance of the first poses, without a track, and that of the second."""
    parts = ("xy", "scores", "boxes", "box_scores")
    rows = {name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in parts}
    return Poses(**rows, skeleton=first.skeleton, ids=np.array([-1, second.ids[0]]))


def test_names_do_not_cover_faces() -> None:
    poses = poses_of(FACE, skeleton=HEAD, boxes=[[60, 20, 140, 190]])
    mask = changed(draw(grey(), poses, names=True), draw(grey(), poses))
    assert mask.any()
    assert not mask[35:65, 85:115].any()


def test_the_options_are_the_keywords_of_draw() -> None:
    keywords = {name for name, one in signature(draw).parameters.items() if one.kind is one.KEYWORD_ONLY}
    assert keywords == set(DrawingOptions.__annotations__)


GRID_TO_IMAGE = np.array([[[4.0, 0, 20], [0, 5.0, 30]]])


def test_a_peak_is_drawn_at_the_position_given_by_the_matrix() -> None:
    heatmaps = np.zeros((1, 2, 16, 12), np.float32)
    heatmaps[0, 1, 10, 3] = 1
    drawn = draw_heatmaps(grey(), heatmaps, GRID_TO_IMAGE).astype(int)
    difference = np.abs(drawn - 100).sum(axis=2)
    y, x = np.unravel_index(difference.argmax(), difference.shape)
    assert abs(x - (4 * 3 + 20)) <= 1
    assert abs(y - (5 * 10 + 30)) <= 1
    red, _, blue = drawn[80, 32]
    assert red > 100 > blue  # high values are red in RGB


def test_heatmaps_of_zeros_leave_the_image_unchanged() -> None:
    image = np.arange(256, dtype=np.uint8).repeat(30).reshape(64, 40, 3)
    heatmaps = np.zeros((1, 1, 8, 8), np.float32)
    np.testing.assert_array_equal(draw_heatmaps(image, heatmaps, GRID_TO_IMAGE), image)
    np.testing.assert_array_equal(draw_heatmaps(image, heatmaps + 1, GRID_TO_IMAGE, opacity=0.0), image)
    np.testing.assert_array_equal(draw_heatmaps(image, heatmaps[:0], GRID_TO_IMAGE[:0]), image)


def test_the_maximum_over_keypoints_and_instances_is_drawn() -> None:
    heatmaps = np.zeros((2, 3, 16, 12), np.float32)
    heatmaps[0, 0, 8, 6], heatmaps[0, 2, 8, 6], heatmaps[1, 1, 8, 6] = 0.3, 0.9, 0.5
    matrices = np.repeat(GRID_TO_IMAGE, 2, axis=0)
    alone = np.zeros((1, 1, 16, 12), np.float32)
    alone[0, 0, 8, 6] = 0.9
    np.testing.assert_array_equal(
        draw_heatmaps(grey(), heatmaps, matrices), draw_heatmaps(grey(), alone, GRID_TO_IMAGE)
    )


def test_rotated_and_distant_heatmaps() -> None:
    heatmaps = np.ones((4, 1, 16, 12), np.float16)
    matrices = np.array(
        [
            [[0, -4, 190], [4, 0, 10]],
            [[4, 0, -5000], [0, 4, 0]],
            [[4, 0, 180], [0, 4, 180]],
            [[4000, 0, -9000], [0, 4000, -9000]],
        ],
        float,
    )
    drawn = [draw_heatmaps(grey(), heatmaps[i : i + 1], matrices[i : i + 1]) for i in range(4)]
    assert changed(drawn[0], grey())[30, 160]
    assert not changed(drawn[0], grey())[30, 20]
    np.testing.assert_array_equal(drawn[1], grey())
    assert changed(drawn[2], grey())[190:, 190:].all()
    assert changed(drawn[3], grey()).all()


def test_values_outside_0_to_1_are_clipped() -> None:
    heatmaps = np.full((1, 1, 16, 12), 1, np.float32)
    clipped = draw_heatmaps(grey(), 5 * heatmaps, GRID_TO_IMAGE)[50:90, 40:50].astype(int)
    np.testing.assert_allclose(clipped, draw_heatmaps(grey(), heatmaps, GRID_TO_IMAGE)[50:90, 40:50], atol=5)
    np.testing.assert_array_equal(draw_heatmaps(grey(), -heatmaps, GRID_TO_IMAGE), grey())


def test_invalid_heatmaps_and_opacity_raise() -> None:
    heatmaps = np.ones((2, 1, 16, 12), np.float32)
    with pytest.raises(InputError, match="2 instances need one matrix each, not 1 matrices"):
        draw_heatmaps(grey(), heatmaps, GRID_TO_IMAGE)
    for opacity in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=f"opacity must be from 0 to 1, not {opacity!r}"):
            draw_heatmaps(grey(), heatmaps[:1], GRID_TO_IMAGE, opacity=opacity)
