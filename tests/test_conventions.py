"""Declarations of data sets: the published facts, files of users, and what cannot be declared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vitpose
from vitpose.conventions import PLUS_DATASETS, Conventions
from vitpose.errors import InputError, SkeletonError, UnknownNameError

# idx, keypoints, unbiased warp, half body: the original's configurations, by hand.
PUBLISHED = {
    "coco": (17, True, True), "aic": (14, False, True), "mpii": (16, True, False), "ap10k": (17, False, True),
    "apt36k": (17, False, True), "coco-wholebody": (133, False, True), "crowdpose": (14, False, True),
    "ochuman": (17, False, True), "interhand2d": (21, False, False),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_conventions(name: str) -> None:
    count, unbiased, half = PUBLISHED[name]
    own = Conventions.load(name)
    assert len(own.skeleton) == count
    wanted = ("udp", "udp", "dark", False) if unbiased else ("plain", "msra", "quarter", True)
    assert (own.warp, own.target, own.decode, own.shift_heatmap) == wanted
    assert bool(own.half_body) == half
    if half:
        assert own.skeleton.upper_body
        assert own.skeleton.lower_body


def test_the_released_order_and_what_is_shipped() -> None:
    assert PLUS_DATASETS == ("coco", "aic", "mpii", "ap10k", "apt36k", "coco-wholebody")
    assert Conventions.available() == sorted([*PUBLISHED, "lsp"])
    assert vitpose.Conventions is Conventions


@pytest.mark.parametrize("name", Conventions.available())
def test_a_declaration_survives_json(name: str) -> None:
    own = Conventions.load(name)
    assert Conventions.from_dict(json.loads(json.dumps(own.to_dict()))) == own
    assert own.name == name
    assert Conventions.load(own) is own


MINE = """
name = "scissors"
skeleton = "bones.toml"
warp = "plain"
half_body = 3
classes = ["scissors"]

[evaluation]
metrics = ["pck"]
"""


def write_mine(folder: Path, text: str = MINE) -> Path:
    (folder / "bones.toml").write_text('name = "scissors"\nkeypoints = ["pivot", "left_tip", "right_tip"]\n')
    (folder / "mine.toml").write_text(text)
    return folder / "mine.toml"


def test_ones_own_declaration(tmp_path: Path) -> None:
    own = Conventions.load(write_mine(tmp_path))
    assert own.skeleton.keypoints == ("pivot", "left_tip", "right_tip")
    assert (own.warp, own.target, own.decode, own.half_body) == ("plain", "udp", "dark", 3)
    assert own.evaluation.metrics == ("pck",)
    assert Conventions.load(write_mine(tmp_path, MINE.replace("bones.toml", "coco"))).skeleton.name == "coco"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"plain"', '"plane"', "unknown warp of the data set 'scissors' 'plane'; did you mean plain?"),
        ('warp = "plain"', 'target = "mrsa"', "unknown target of the data set 'scissors' 'mrsa'; did you mean msra"),
        ('warp = "plain"', 'decode = "drak"', "unknown decoding of the data set 'scissors' 'drak'"),
        ("metrics", "metric", r"unknown key of .*mine.toml, \[evaluation\] 'metric'; did you mean metrics"),
        ("[evaluation]", '[evaluation]\nboxes = "found"', "unknown kind of boxes of the data set"),
        ("[evaluation]", '[evaluation]\narea = "found"', "unknown kind of area of the data set"),
        ("[evaluation]", '[evaluation]\nuncounted = ["pivo"]', "unknown keypoint of the skeleton 'scissors' 'pivo'"),
        ("warp", "wrap", "unknown key of .*mine.toml 'wrap'; did you mean warp?"),
        ('name = "scissors"', "", "mine.toml has no 'name', which a data set needs"),
        ("half_body = 3", "half_body = true", "mine.toml: half_body must be of the type int, not True"),
        ('["scissors"]', '"scissors"', "classes must be a list of texts, not 'scissors'"),
        ('"bones.toml"', "3", "skeleton must be a name, a file or a table, not 3"),
        ('"bones.toml"', '"bone.toml"', "there is no file .*bone.toml"),
        ("[evaluation]", "[[evaluation]]", r"\[evaluation\] must be a table, not \["),
        ('name = "scissors"', "name =", "mine.toml is not valid TOML: "),
    ],
)  # fmt: skip
def test_what_cannot_be_declared(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in MINE
    with pytest.raises(InputError, match=message):
        Conventions.load(write_mine(tmp_path, MINE.replace(old, new, 1)))


def test_a_bad_skeleton_inside_is_named() -> None:
    table = {"name": "x", "skeleton": {"name": "x", "keypoints": ["a", "b"], "limbs": [["a", "c"]]}}
    with pytest.raises(SkeletonError, match=r"my set, \[skeleton\]: in limbs: unknown keypoint 'c'"):
        Conventions.from_dict(table, "my set")


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown data set 'ap10'; did you mean ap10k.*\.toml file works too"
    ):
        Conventions.load("ap10")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*none.toml; give .* shipped name: aic, ap10k"):
        Conventions.load(tmp_path / "none.toml")
