from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitpose.errors import SkeletonError, UnknownNameError
from vitpose.skeleton import LEFT_COLOUR, MIDDLE_COLOUR, RIGHT_COLOUR, Skeleton

SHIPPED = {
    "aic": 14, "ap10k": 17, "apt36k": 17, "coco": 17, "coco-feet": 23, "coco-wholebody": 133, "crowdpose": 14,
    "interhand2d": 21, "lsp": 14, "mpii": 16, "ochuman": 17,
}  # fmt: skip

SCISSORS = """\
# limbs and colours of a pair of scissors, with "left_tip" and "right_tip"
name = "scissors"
title = "Scissors: limbs = 2"
keypoints = ["pivot", "left_tip", "right_tip",
             "left_tip_end"]
limbs = [
    ["pivot", "left_tip"],
    ["pivot", "right_tip", "#0000ff"],
]
flip_pairs = [["left_tip", "right_tip"]]

[sigmas]
pivot = 0.05
left_tip = 0.1
right_tip = 0.1
left_tip_end = 1

[colours]
pivot = "#ff0000"
left_tip = "#00ff00"
right_tip = "#00ff00"
left_tip_end = "#00ff00"
"""


def scissors(**changes: Any) -> Skeleton:
    parts: dict[str, Any] = {
        "name": "scissors",
        "keypoints": ("pivot", "left_tip", "right_tip"),
        "limbs": ((0, 1), (0, 2), (1, 2)),
        "flip_pairs": ((1, 2),),
    }
    return Skeleton(**{**parts, **changes})


def test_the_shipped_skeletons_are_listed() -> None:
    assert Skeleton.available() == sorted(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_each_shipped_skeleton_holds_together(name: str) -> None:
    skeleton = Skeleton.load(name)
    k = SHIPPED[name]
    assert (skeleton.name, len(skeleton)) == (name, k)
    assert str(k) in skeleton.title
    assert len(skeleton.weights) == len(skeleton.colours) == k
    assert len(skeleton.sigmas) == (0 if name == "interhand2d" else k)
    assert len(skeleton.limb_colours) == len(skeleton.limbs) > 0
    for colour in (*skeleton.colours, *skeleton.limb_colours):
        assert re.fullmatch("#[0-9a-f]{6}", colour)
    assert set(skeleton.upper_body).isdisjoint(skeleton.lower_body)
    assert Skeleton.load(skeleton) is skeleton is Skeleton.load(name)


@pytest.mark.parametrize("name", SHIPPED)
def test_mirroring_twice_changes_nothing_and_swaps_the_sides(name: str) -> None:
    skeleton = Skeleton.load(name)
    mirror = skeleton.mirror
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(skeleton)))
    for index, other in enumerate(mirror):
        mirrored = skeleton.keypoints[index].replace("left_", "right_").replace("L_", "R_")
        if mirrored != skeleton.keypoints[index]:
            assert skeleton.keypoints[other] == mirrored


@pytest.mark.parametrize("name", SHIPPED)
def test_no_limb_joins_a_left_hand_to_a_right_foot(name: str) -> None:
    """Across the body only the same joints are joined; and what is joined is not joined twice."""
    skeleton = Skeleton.load(name)
    sides = {name: re.sub("^(left|L)_", "", name) for name in skeleton.keypoints}
    for a, b in skeleton.limbs:
        first, second = skeleton.keypoints[a], skeleton.keypoints[b]
        if first.startswith(("left_", "L_")) and second.startswith(("right_", "R_")):
            assert sides[first] == re.sub("^(right|R)_", "", second)
    assert len({frozenset(limb) for limb in skeleton.limbs}) == len(skeleton.limbs)
    assert all(a != b for a, b in skeleton.limbs)


@pytest.mark.parametrize("name", ["aic", "ap10k", "coco", "crowdpose", "mpii", "ochuman"])
def test_limbs_join_everything_into_one_body(name: str) -> None:
    skeleton = Skeleton.load(name)
    reached, size = {skeleton.limbs[0][0]}, 0
    while len(reached) > size:
        size = len(reached)
        reached |= {end for limb in skeleton.limbs if reached & set(limb) for end in limb}
    assert reached == set(range(len(skeleton)))


def test_coco_looks_as_people_know_it() -> None:
    coco = Skeleton.load("coco")
    colour = dict(zip(coco.limbs, coco.limb_colours, strict=True))
    assert colour[coco.index("left_ankle"), coco.index("left_knee")] == LEFT_COLOUR
    assert colour[coco.index("right_ankle"), coco.index("right_knee")] == RIGHT_COLOUR
    assert colour[coco.index("left_shoulder"), coco.index("left_hip")] == MIDDLE_COLOUR


def test_supervision_counts_from_one() -> None:
    assert scissors().supervision_edges == [(1, 2), (1, 3), (2, 3)]


def test_a_keypoint_is_found_by_its_name() -> None:
    assert scissors().index("right_tip") == 2
    wanted = r"unknown keypoint of the skeleton 'scissors' 'left_tipp'; did you mean left_tip"
    with pytest.raises(UnknownNameError, match=wanted):
        scissors().index("left_tipp")


def test_what_is_not_given_gets_its_meaning() -> None:
    skeleton = scissors()
    assert skeleton.weights == (1, 1, 1)
    assert skeleton.sigmas == ()
    assert skeleton.colours == (MIDDLE_COLOUR, LEFT_COLOUR, RIGHT_COLOUR)
    assert skeleton.limb_colours == (LEFT_COLOUR, RIGHT_COLOUR, MIDDLE_COLOUR)


def test_a_limbs_empty_colour_comes_from_its_ends() -> None:
    skeleton = scissors(limb_colours=("", "#123456", ""))
    assert skeleton.limb_colours == (LEFT_COLOUR, "#123456", MIDDLE_COLOUR)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints": ()}, "keypoints must hold at least one name"),
        ({"keypoints": ("a", "b", "a")}, "keypoints may have each name once, but has a more often"),
        ({"limbs": ((0, 3),)}, "limbs has the index 3, but there are 3 keypoints, 0 to 2"),
        ({"limbs": ((-1, 0),)}, "limbs has the index -1, but there are 3 keypoints"),
        ({"flip_pairs": ((1, 5),)}, "flip_pairs has the index 5"),
        (
            {"flip_pairs": ((1, 2), (2, 0))},
            "flip_pairs may have each name once, but has right_tip more often",
        ),
        ({"flip_pairs": ((1, 1),)}, "flip_pairs may have each name once, but has left_tip more often"),
        ({"upper_body": (7,)}, "upper_body has the index 7"),
        ({"lower_body": (7,)}, "lower_body has the index 7"),
        ({"sigmas": (0.1,)}, "sigmas has 1 entries and needs 3, or none"),
        ({"sigmas": (0.1, 0.0, 0.1)}, "sigmas must be finite and above 0, not 0.0"),
        ({"sigmas": (0.1, float("nan"), 0.1)}, "sigmas must be finite and above 0, not nan"),
        ({"weights": (1.0,) * 4}, "weights has 4 entries and needs 3, or none"),
        ({"colours": ("#ffffff",)}, "colours has 1 entries and needs 3, or none"),
        ({"colours": ("#ffffff", "red", "#ffffff")}, "colours must look like \"#rrggbb\", not 'red'"),
        ({"colours": ("#ffffff", "", "#ffffff")}, "colours must look like"),
        ({"limb_colours": ("#ffffff",)}, "limb_colours has 1 entries and needs 3, or none"),
        ({"limb_colours": ("#ffffff", "", "#fffff")}, "limb_colours must look like"),
    ],
)
def test_what_does_not_hold_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SkeletonError, match=f"skeleton 'scissors': {message}"):
        scissors(**changes)


def test_a_users_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "scissors.toml"
    path.write_text(SCISSORS)
    skeleton = Skeleton.load(path)
    assert skeleton == Skeleton.load(str(path)) == Skeleton.from_toml(SCISSORS)
    assert skeleton.keypoints == ("pivot", "left_tip", "right_tip", "left_tip_end")
    assert skeleton.limbs == ((0, 1), (0, 2))
    assert skeleton.limb_colours == (MIDDLE_COLOUR, "#0000ff")
    assert skeleton.sigmas == (0.05, 0.1, 0.1, 1.0)
    assert skeleton.mirror.tolist() == [0, 2, 1, 3]


def test_rows_may_stand_in_any_order() -> None:
    text = SCISSORS.replace("pivot = 0.05\n", "").replace(
        "left_tip_end = 1\n", "left_tip_end = 1\npivot = 0.05\n"
    )
    assert Skeleton.from_toml(text) == Skeleton.from_toml(SCISSORS)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("limbs = [\n", "limb = [\n", 6, "unknown key 'limb'; did you mean limbs"),
        ("[sigmas]", "[sigma]", 12, "unknown key 'sigma'; did you mean sigmas"),
        ('["pivot", "left_tip"],', '["pivot", "left_ti"],', 7,
         "in limbs: unknown keypoint 'left_ti'; did you mean left_tip"),
        ('["pivot", "left_tip"],', '["pivot", 5],', 7, "in limbs: unknown keypoint 5;"),
        ('["pivot", "left_tip"],', '["pivot"],', 6, r"limbs must hold pairs of names, not \['pivot'\]"),
        ('["pivot", "left_tip"],', '"pivot",', 6, "limbs must hold pairs of names, not 'pivot'"),
        ('"#0000ff"', '"blue"', 8, 'in limbs: a colour must look like "#rrggbb", not \'blue\''),
        ('"#0000ff"', "255", 8, 'in limbs: a colour must look like "#rrggbb", not 255'),
        ('[["left_tip", "right_tip"]]', '[["left_tip", "tip"]]', 10, "in flip_pairs: unknown keypoint 'tip'"),
        ('[["left_tip", "right_tip"]]', '[["pivot", "pivot"]]', 10,
         "flip_pairs may have each name once, but has pivot"),
        ("right_tip = 0.1\n", "", 12, "sigmas has no row for right_tip; give every keypoint one, or none"),
        ("right_tip = 0.1", "right_ti = 0.1", 15,
         "in sigmas: unknown keypoint 'right_ti'; did you mean right_tip"),
        ("right_tip = 0.1", 'right_tip = "wide"', 15, "in sigmas: 'right_tip' must be a number, not 'wide'"),
        ("right_tip = 0.1", "right_tip = true", 15, "in sigmas: 'right_tip' must be a number, not True"),
        ("right_tip = 0.1", "right_tip = -1", 12, "sigmas must be finite and above 0, not -1.0"),
        ('left_tip_end = "#00ff00"', 'left_tip_end = "#0f0"', 22,
         'in colours: a colour must look like "#rrggbb", not \'#0f0\''),
        ('"left_tip_end"]', '"left_tip_end", 7]', 5, "keypoints must hold names, not 7"),
        ('"left_tip_end"]', '"left_tip_end", "pivot"]', 4,
         "keypoints may have each name once, but has pivot"),
        ('name = "scissors"', "name = 5", 2, "name must be a text, not 5"),
        ('name = "scissors"', 'name = ""', 2, "name is missing; give the skeleton a short one"),
        ('title = "Scissors: limbs = 2"', "title = 2", 3, "title must be a text, not 2"),
        ('flip_pairs = [["left_tip", "right_tip"]]', 'flip_pairs = "no"', 10,
         "flip_pairs must be a list, not 'no'"),
        ("title", 'upper_body = ["tip"]\ntitle', 3, "in upper_body: unknown keypoint 'tip'"),
        ("title", "weights = 1.5\ntitle", 3, "weights must be a table with one row a keypoint, not 1.5"),
        ("title", "title = ", 3, "not valid TOML: Invalid value"),
        ("pivot = 0.05", "pivot = 0.05\npivot = 0.06", 14, "not valid TOML: Cannot overwrite a value"),
    ],
)  # fmt: skip
def test_a_fault_in_a_file_names_its_line(old: str, new: str, line: int, message: str) -> None:
    assert SCISSORS.count(old) >= 1
    with pytest.raises(SkeletonError, match=rf"^mine.toml, line {line}: (skeleton 'scissors': )?{message}"):
        Skeleton.from_toml(SCISSORS.replace(old, new, 1), source="mine.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"', "^skeleton: skeleton 'x': keypoints must hold at least one name"),
        ('keypoints = ["a"]', "^skeleton: name is missing"),
        ("", "^skeleton: name is missing"),
        ('name = "x', "^skeleton, (the last line|line 1): not valid TOML"),
        ('name = "x"\nkeypoints = [', "^skeleton, (the last line|line 2): not valid TOML"),
    ],
)
def test_what_is_missing_has_no_line(text: str, message: str) -> None:
    with pytest.raises(SkeletonError, match=message):
        Skeleton.from_toml(text)


def test_a_binary_file_is_no_skeleton(tmp_path: Path) -> None:
    path = tmp_path / "picture.toml"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(
        SkeletonError, match=r"picture.toml is not a text file \(.*\); a skeleton is a .toml file"
    ):
        Skeleton.load(path)


@pytest.mark.parametrize("name", ["missing.toml", Path("somewhere") / "missing.toml"])
def test_a_missing_file_is_called_so(name: str | Path) -> None:
    with pytest.raises(SkeletonError, match=rf"there is no file {Path.cwd() / name}; .* shipped name: aic, "):
        Skeleton.load(name)


def test_the_nearest_skeleton_is_offered() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown skeleton 'cocoo'; did you mean coco.*mpii, ochuman. A path to a"
    ):
        Skeleton.load("cocoo")


def test_a_folder_is_no_skeleton(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown skeleton"):
        Skeleton.load(tmp_path)


def test_labels_of_a_known_skeleton_give_that_one() -> None:
    labels = dict(
        enumerate(("Nose", "L_Eye", "R_Eye", "L_Ear", "R_Ear", *Skeleton.load("coco").keypoints[5:]))
    )
    assert Skeleton.from_labels(labels, None) is Skeleton.load("coco")
    assert Skeleton.from_labels(Skeleton.load("ap10k").keypoints, None) is Skeleton.load("ap10k")


def test_labels_of_no_known_skeleton_make_one() -> None:
    labels = {0: "Tail", 1: "L_Fin", 2: "R_Fin", 3: "left-eye"}
    skeleton = Skeleton.from_labels(labels, [[0, 1], [0, 2]])
    assert skeleton.keypoints == ("Tail", "L_Fin", "R_Fin", "left-eye")
    assert skeleton.limbs == ((0, 1), (0, 2))
    assert skeleton.flip_pairs == ((1, 2),)
    assert skeleton.colours == (MIDDLE_COLOUR, LEFT_COLOUR, RIGHT_COLOUR, LEFT_COLOUR)


@pytest.mark.parametrize(
    ("labels", "edges", "message"),
    [
        ({}, None, "keypoints must hold at least one name"),
        ({1: "a", 2: "b"}, None, r"labels must be numbered 0 to 1, not \[1, 2\]"),
        ({0: "a", 1: "b"}, [[0, 2]], "limbs has the index 2"),
        ({0: "a", 1: "b"}, [[0, 1, 1]], r"edges must be pairs of keypoints' indices, not \[0, 1, 1\]"),
        ({0: "a", 1: "a"}, None, "keypoints may have each name once, but has a more often"),
    ],
)
def test_labels_that_do_not_hold_together_are_refused(labels: Any, edges: Any, message: str) -> None:
    with pytest.raises(SkeletonError, match=message):
        Skeleton.from_labels(labels, edges)


def test_the_shipped_data_are_those_of_the_data_sets(shared_data: Path) -> None:
    facts = json.loads((shared_data.parent / "facts" / "skeletons.json").read_text())
    for name, fact in facts.items():
        skeleton = Skeleton.load(name.replace("_", "-"))
        assert list(skeleton.keypoints) == fact["names"]
        assert {frozenset(pair) for pair in skeleton.flip_pairs} == {
            frozenset(pair) for pair in fact["flip_pairs"]
        }
        assert list(skeleton.sigmas) == fact["sigmas"]
        assert list(skeleton.weights) == fact["joint_weights"]
