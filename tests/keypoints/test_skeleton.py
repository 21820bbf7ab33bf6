from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitpose.errors import SkeletonError, UnknownNameError
from vitpose.keypoints.skeleton import LEFT_COLOUR, MIDDLE_COLOUR, RIGHT_COLOUR, Skeleton

SHIPPED = {
    "aic": 14, "ap10k": 17, "apt36k": 17, "coco": 17, "coco-feet": 23, "coco-wholebody": 133, "crowdpose": 14,
    "interhand2d": 21, "lsp": 14, "mpii": 16, "ochuman": 17,
}  # fmt: skip

SCISSORS = """\
# edges and colours of a pair of scissors, with "left_tip" and "right_tip"
name = "scissors"
title = "Scissors: edges = 2"
keypoints = ["pivot", "left_tip", "right_tip",
             "left_tip_end"]
edges = [
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
        "edges": ((0, 1), (0, 2), (1, 2)),
        "flip_pairs": ((1, 2),),
    }
    return Skeleton(**{**parts, **changes})


def test_available_lists_the_shipped_skeletons() -> None:
    assert Skeleton.available() == sorted(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_each_shipped_skeleton_is_consistent(name: str) -> None:
    skeleton = Skeleton.load(name)
    k = SHIPPED[name]
    assert (skeleton.name, len(skeleton)) == (name, k)
    assert str(k) in skeleton.title
    assert len(skeleton.weights) == len(skeleton.colours) == k
    assert len(skeleton.sigmas) == (0 if name == "interhand2d" else k)
    assert len(skeleton.edge_colours) == len(skeleton.edges) > 0
    for colour in (*skeleton.colours, *skeleton.edge_colours):
        assert re.fullmatch("#[0-9a-f]{6}", colour)
    assert set(skeleton.upper_body).isdisjoint(skeleton.lower_body)
    assert Skeleton.load(skeleton) is skeleton is Skeleton.load(name)


@pytest.mark.parametrize("name", SHIPPED)
def test_mirror_is_an_involution_that_swaps_sides(name: str) -> None:
    skeleton = Skeleton.load(name)
    mirror = skeleton.mirror
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(skeleton)))
    for index, other in enumerate(mirror):
        mirrored = skeleton.keypoints[index].replace("left_", "right_").replace("L_", "R_")
        if mirrored != skeleton.keypoints[index]:
            assert skeleton.keypoints[other] == mirrored


@pytest.mark.parametrize("name", SHIPPED)
def test_edges_across_the_body_connect_the_same_joint_and_do_not_repeat(name: str) -> None:
    skeleton = Skeleton.load(name)
    sides = {name: re.sub("^(left|L)_", "", name) for name in skeleton.keypoints}
    for a, b in skeleton.edges:
        first, second = skeleton.keypoints[a], skeleton.keypoints[b]
        if first.startswith(("left_", "L_")) and second.startswith(("right_", "R_")):
            assert sides[first] == re.sub("^(right|R)_", "", second)
    assert len({frozenset(edge) for edge in skeleton.edges}) == len(skeleton.edges)
    assert all(a != b for a, b in skeleton.edges)


@pytest.mark.parametrize("name", ["aic", "ap10k", "coco", "crowdpose", "mpii", "ochuman"])
def test_edges_connect_all_keypoints(name: str) -> None:
    skeleton = Skeleton.load(name)
    reached, size = {skeleton.edges[0][0]}, 0
    while len(reached) > size:
        size = len(reached)
        reached |= {end for edge in skeleton.edges if reached & set(edge) for end in edge}
    assert reached == set(range(len(skeleton)))


def test_colours_of_coco_by_side() -> None:
    coco = Skeleton.load("coco")
    colour = dict(zip(coco.edges, coco.edge_colours, strict=True))
    assert colour[coco.index("left_ankle"), coco.index("left_knee")] == LEFT_COLOUR
    assert colour[coco.index("right_ankle"), coco.index("right_knee")] == RIGHT_COLOUR
    assert colour[coco.index("left_shoulder"), coco.index("left_hip")] == MIDDLE_COLOUR


def test_supervision_edges_are_counted_from_one() -> None:
    assert scissors().supervision_edges == [(1, 2), (1, 3), (2, 3)]


def test_index_of_a_keypoint_by_name() -> None:
    assert scissors().index("right_tip") == 2
    message = r"unknown keypoint 'left_tipp'; did you mean left_tip.*The skeleton is 'scissors'"
    with pytest.raises(UnknownNameError, match=message):
        scissors().index("left_tipp")


def test_defaults_of_weights_sigmas_and_colours() -> None:
    skeleton = scissors()
    assert skeleton.weights == (1, 1, 1)
    assert skeleton.sigmas == ()
    assert skeleton.colours == (MIDDLE_COLOUR, LEFT_COLOUR, RIGHT_COLOUR)
    assert skeleton.edge_colours == (LEFT_COLOUR, RIGHT_COLOUR, MIDDLE_COLOUR)


def test_an_empty_edge_colour_is_derived_from_its_ends() -> None:
    skeleton = scissors(edge_colours=("", "#123456", ""))
    assert skeleton.edge_colours == (LEFT_COLOUR, "#123456", MIDDLE_COLOUR)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints": ()}, "keypoints is \\(\\); tuple should have at least 1 item"),
        ({"keypoints": ("a", "b", "a")}, "keypoints must not repeat a name; remove duplicates of a"),
        ({"edges": ((0, 3),)}, "edges has the index 3; valid indices of the 3 keypoints are 0 to 2"),
        ({"edges": ((-1, 0),)}, "edges has the index -1; valid indices of the 3 keypoints are 0 to 2"),
        ({"flip_pairs": ((1, 5),)}, "flip_pairs has the index 5"),
        (
            {"flip_pairs": ((1, 2), (2, 0))},
            "flip_pairs must not repeat a name; remove duplicates of right_tip",
        ),
        ({"flip_pairs": ((1, 1),)}, "flip_pairs must not repeat a name; remove duplicates of left_tip"),
        ({"upper_body": (7,)}, "upper_body has the index 7"),
        ({"lower_body": (7,)}, "lower_body has the index 7"),
        ({"sigmas": (0.1,)}, "sigmas has 1 entries; give 3 or none"),
        ({"sigmas": (0.1, 0.0, 0.1)}, "sigmas.1 is 0.0; input should be greater than 0"),
        ({"sigmas": (0.1, float("nan"), 0.1)}, "sigmas.1 is nan; input should be a finite number"),
        ({"weights": (1.0,) * 4}, "weights has 4 entries; give 3 or none"),
        ({"colours": ("#ffffff",)}, "colours has 1 entries; give 3 or none"),
        ({"colours": ("#ffffff", "red", "#ffffff")}, "colours.1 is 'red'; string should match pattern"),
        ({"colours": ("#ffffff", "", "#ffffff")}, "colours.1 is ''; string should match pattern"),
        ({"edge_colours": ("#ffffff",)}, "edge_colours has 1 entries; give 3 or none"),
        ({"weights": (1.0, -1.0, 1.0)}, "weights.1 is -1.0; input should be greater than or equal to 0"),
        (
            {"edge_colours": ("#ffffff", "", "#fffff")},
            "edge_colours.2 is '#fffff'; string should match pattern",
        ),
    ],
)
def test_invalid_skeletons_raise(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SkeletonError, match=f"skeleton 'scissors': {message}"):
        scissors(**changes)


def test_a_custom_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "scissors.toml"
    path.write_text(SCISSORS)
    skeleton = Skeleton.load(path)
    assert skeleton == Skeleton.load(str(path)) == Skeleton.from_toml(SCISSORS)
    assert skeleton.keypoints == ("pivot", "left_tip", "right_tip", "left_tip_end")
    assert skeleton.edges == ((0, 1), (0, 2))
    assert skeleton.edge_colours == (MIDDLE_COLOUR, "#0000ff")
    assert skeleton.sigmas == (0.05, 0.1, 0.1, 1.0)
    assert skeleton.mirror.tolist() == [0, 2, 1, 3]


def test_rows_of_a_table_may_be_in_any_order() -> None:
    text = SCISSORS.replace("pivot = 0.05\n", "").replace(
        "left_tip_end = 1\n", "left_tip_end = 1\npivot = 0.05\n"
    )
    assert Skeleton.from_toml(text) == Skeleton.from_toml(SCISSORS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("edges = [\n", "edge = [\n", "unknown key 'edge'; did you mean edges"),
        ("[sigmas]", "[sigma]", "unknown key 'sigma'; did you mean sigmas"),
        ('["pivot", "left_tip"],', '["pivot", "left_ti"],',
         "edges.0: unknown keypoint 'left_ti'; did you mean left_tip"),
        ('["pivot", "left_tip"],', '["pivot", 5],', "edges.0.tuple.*.1 is 5; input should be a valid string"),
        ('["pivot", "left_tip"],', '["pivot"],', "edges.0.tuple.*.1 is missing"),
        ('["pivot", "left_tip"],', '"pivot",', "edges.0.tuple.* is 'pivot'; input should be a valid tuple"),
        ('"#0000ff"', '"blue"', "edges.1.tuple.*.2 is 'blue'; string should match pattern '.#.0-9"),
        ('"#0000ff"', "255", "edges.1.tuple.*.2 is 255; input should be a valid string"),
        ('[["left_tip", "right_tip"]]', '[["left_tip", "tip"]]', "flip_pairs.0: unknown keypoint 'tip'"),
        ('[["left_tip", "right_tip"]]', '[["pivot", "pivot"]]',
         "skeleton 'scissors': flip_pairs must not repeat a name; remove duplicates of pivot"),
        ('[["left_tip", "right_tip"]]', "[[]]", "flip_pairs.0.0 is missing; flip_pairs.0.1 is missing"),
        ("right_tip = 0.1\n", "", "sigmas has no row for right_tip; give one for every keypoint, or none"),
        ("right_tip = 0.1", "right_ti = 0.1", "sigmas: unknown keypoint 'right_ti'; did you mean right_tip"),
        ("right_tip = 0.1", 'right_tip = "wide"', "sigmas.right_tip is 'wide'; input should be a valid number"),
        ("right_tip = 0.1", "right_tip = true", "sigmas.right_tip is True; input should be a valid number"),
        ("right_tip = 0.1", "right_tip = -1", "sigmas.right_tip is -1; input should be greater than 0"),
        ("right_tip = 0.1", "right_tip = nan", "sigmas.right_tip is nan; input should be a finite number"),
        ('left_tip_end = "#00ff00"', 'left_tip_end = "#0f0"', "colours.left_tip_end is '#0f0'; string should match"),
        ('"left_tip_end"]', '"left_tip_end", 7]', "keypoints.4 is 7; input should be a valid string"),
        ('"left_tip_end"]', '"left_tip_end", "pivot"]',
         "skeleton 'scissors': keypoints must not repeat a name; remove duplicates of pivot"),
        ('name = "scissors"', "name = 5", "name is 5; input should be a valid string"),
        ('name = "scissors"', 'name = ""', "name is ''; string should have at least 1 character"),
        ('title = "Scissors: edges = 2"', "title = 2", "title is 2; input should be a valid string"),
        ('flip_pairs = [["left_tip", "right_tip"]]', 'flip_pairs = "no"',
         "flip_pairs is 'no'; input should be a valid tuple"),
        ("title", 'upper_body = ["tip"]\ntitle', "upper_body: unknown keypoint 'tip'"),
        ("title", "weights = 1.5\ntitle", "weights is 1.5; it must be a table"),
        ("title", "title = ", r"is not valid TOML: Invalid value \(at line 3"),
        ("pivot = 0.05", "pivot = 0.05\npivot = 0.06", r"is not valid TOML: Cannot overwrite a value \(at line 14"),
        ("pivot = 0.05", f"pivot = {'1' * 5000}", "is not valid TOML: Exceeds the limit"),
        ("pivot = 0.05", f"pivot = 0x{'f' * 5000}", "sigmas.pivot is an integer of thousands of digits; "),
        ("title = ", f"upper_body = {'[' * 100_000}", "is not valid TOML: it is nested too deeply"),
    ],
)  # fmt: skip
def test_an_error_in_a_file_names_the_path_of_its_key(old: str, new: str, message: str) -> None:
    assert SCISSORS.count(old) >= 1
    with pytest.raises(SkeletonError, match=rf"^mine.toml:? {message}"):
        Skeleton.from_toml(SCISSORS.replace(old, new, 1), source="mine.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"', "^skeleton: keypoints is missing"),
        ('keypoints = ["a"]', "^skeleton: name is missing"),
        ('name = "x"\nkeypoints = []', "^skeleton: keypoints is .*; tuple should have at least 1 item"),
        ("", "^skeleton: name is missing; keypoints is missing"),
        ('name = "x', "^skeleton is not valid TOML"),
    ],
)
def test_missing_keys_raise(text: str, message: str) -> None:
    with pytest.raises(SkeletonError, match=message):
        Skeleton.from_toml(text)


@pytest.mark.parametrize("table", [None, 5, [["name", "x"]], {5: 6}])
def test_values_that_are_not_a_dictionary_raise(table: Any) -> None:
    with pytest.raises(SkeletonError, match=r"^skeleton: "):
        Skeleton.from_dict(table)


def test_a_binary_file_raises(tmp_path: Path) -> None:
    path = tmp_path / "image.toml"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(SkeletonError, match=r"image.toml is not valid TOML: 'utf-8' codec can't decode"):
        Skeleton.load(path)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_an_unreadable_file_raises(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").symlink_to("/proc/self/mem")
    with pytest.raises(
        SkeletonError, match=r"mine.toml cannot be read \(Input/output error\); give a readable"
    ):
        Skeleton.load(tmp_path / "mine.toml")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "~nobody-of-that-name/x"])
def test_names_that_no_file_can_have_are_unknown(name: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown skeleton"):
        Skeleton.load(name)
    with pytest.raises(SkeletonError, match="there is no file"):
        Skeleton.load(f"{name}.toml")


@pytest.mark.parametrize("name", [None, 5, ["coco"]])
def test_other_types_of_names_raise(name: Any) -> None:
    with pytest.raises(
        SkeletonError, match=r"must be a name, a .toml file or a vitpose.Skeleton, not .*: aic, "
    ):
        Skeleton.load(name)


def test_a_hundred_thousand_keypoints_are_checked_quickly() -> None:
    names = tuple(f"point {index}" for index in range(100_000))
    assert len(Skeleton("many", names, flip_pairs=tuple((i, i + 1) for i in range(0, 100_000, 2)))) == 100_000


@pytest.mark.parametrize("name", ["missing.toml", Path("somewhere") / "missing.toml"])
def test_a_missing_file_raises(name: str | Path) -> None:
    with pytest.raises(SkeletonError, match=rf"there is no file {name}; .* names: aic, "):
        Skeleton.load(name)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown skeleton 'cocoo'; did you mean coco.*mpii, ochuman. The path of a"
    ):
        Skeleton.load("cocoo")


def test_a_directory_is_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown skeleton"):
        Skeleton.load(tmp_path)


def test_labels_of_a_shipped_skeleton_return_it() -> None:
    labels = dict(
        enumerate(("Nose", "L_Eye", "R_Eye", "L_Ear", "R_Ear", *Skeleton.load("coco").keypoints[5:]))
    )
    assert Skeleton.from_labels(labels, None) is Skeleton.load("coco")
    assert Skeleton.from_labels(Skeleton.load("ap10k").keypoints, None) is Skeleton.load("ap10k")


def test_other_labels_make_a_custom_skeleton() -> None:
    labels = {0: "Tail", 1: "L_Fin", 2: "R_Fin", 3: "left-eye"}
    skeleton = Skeleton.from_labels(labels, [[0, 1], [0, 2]])
    assert skeleton.keypoints == ("Tail", "L_Fin", "R_Fin", "left-eye")
    assert skeleton.edges == ((0, 1), (0, 2))
    assert skeleton.flip_pairs == ((1, 2),)
    assert skeleton.colours == (MIDDLE_COLOUR, LEFT_COLOUR, RIGHT_COLOUR, LEFT_COLOUR)


@pytest.mark.parametrize(
    ("labels", "edges", "message"),
    [
        ({}, None, r"keypoints is \(\); tuple should have at least 1 item"),
        ({1: "a", 2: "b"}, None, r"labels must be numbered 0 to 1, not \[1, 2\]"),
        ({0: "a", 1: "b"}, [[0, 2]], "edges has the index 2"),
        ({0: "a", 1: "b"}, [[0, 1, 1]], r"^edges: 0 is \[0, 1, 1\]; tuple should have at most 2 items"),
        ({0: "a", 1: "b"}, [None], "^edges: 0 is None; input should be a valid tuple"),
        ({0: "a", 1: "b"}, [[0, "x"]], "^edges: 0.1 is 'x'; input should be a valid integer"),
        ({0: "a", 1: "b"}, 5, "^edges: 5: input should be a valid tuple"),
        (1.5, None, "^labels: 1.5: input should be a valid tuple"),
        ([None], None, "^labels: 0 is None; input should be a valid string"),
        ({0: "a", 1: 7}, None, "^labels: 1 is 7; input should be a valid string"),
        ({0: "a", 1: "a"}, None, "keypoints must not repeat a name; remove duplicates of a"),
    ],
)
def test_invalid_labels_and_edges_raise(labels: Any, edges: Any, message: str) -> None:
    with pytest.raises(SkeletonError, match=message):
        Skeleton.from_labels(labels, edges)


def test_shipped_skeletons_equal_those_of_the_datasets(shared_data: Path) -> None:
    facts = json.loads((shared_data.parent / "facts" / "skeletons.json").read_text())
    for name, fact in facts.items():
        skeleton = Skeleton.load(name.replace("_", "-"))
        assert list(skeleton.keypoints) == fact["names"]
        assert {frozenset(pair) for pair in skeleton.flip_pairs} == {
            frozenset(pair) for pair in fact["flip_pairs"]
        }
        assert list(skeleton.sigmas) == fact["sigmas"]
        assert list(skeleton.weights) == fact["joint_weights"]
