"""Declarations of datasets: published conventions, custom files, and invalid declarations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import vitpose
from vitpose.errors import InputError, SkeletonError, UnknownNameError
from vitpose.geometry.heatmaps import REFINEMENTS
from vitpose.geometry.warp import ASPECTS, WARPS
from vitpose.keypoints.dataset_spec import PLUS_DATASETS, DatasetSpec, EvaluationRules
from vitpose.keypoints.skeleton import Skeleton

# idx, keypoints, unbiased warp, half body: the original's configurations, by hand.
PUBLISHED = {
    "coco": (17, True, True), "aic": (14, False, True), "mpii": (16, True, False), "ap10k": (17, False, True),
    "apt36k": (17, False, True), "coco-wholebody": (133, False, True), "crowdpose": (14, False, True),
    "ochuman": (17, False, True), "interhand2d": (21, False, False),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_conventions(name: str) -> None:
    count, unbiased, half = PUBLISHED[name]
    spec = DatasetSpec.load(name)
    assert len(spec.skeleton) == count
    expected = ("udp", "udp", "dark", False) if unbiased else ("plain", "msra", "quarter", True)
    assert (spec.warp, spec.target, spec.decode, spec.shift_heatmap) == expected
    assert bool(spec.half_body) == half
    stretched = name == "mpii"
    assert (spec.aspect, spec.shift_centre) == ("stretch" if stretched else "keep", not stretched)
    assert spec.evaluation.max_oks == (0.9 if name in ("aic", "ap10k", "apt36k", "ochuman") else 1.0)
    if half:
        assert spec.skeleton.upper_body
        assert spec.skeleton.lower_body


def test_order_of_plus_datasets_and_available_names() -> None:
    assert PLUS_DATASETS == ("coco", "aic", "mpii", "ap10k", "apt36k", "coco-wholebody")
    assert DatasetSpec.available() == sorted([*PUBLISHED, "lsp"])
    assert vitpose.DatasetSpec is DatasetSpec


@pytest.mark.parametrize("name", DatasetSpec.available())
def test_a_declaration_round_trips_through_json(name: str) -> None:
    spec = DatasetSpec.load(name)
    assert DatasetSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert spec.name == name
    assert DatasetSpec.load(spec) is spec


CUSTOM = """
name = "scissors"
skeleton = "skeleton.toml"
warp = "plain"
half_body = 3
classes = ["scissors"]

[evaluation]
metrics = ["pck"]
"""


def write_custom(folder: Path, text: str = CUSTOM) -> Path:
    (folder / "skeleton.toml").write_text(
        'name = "scissors"\nkeypoints = ["pivot", "left_tip", "right_tip"]\n'
    )
    (folder / "mine.toml").write_text(text)
    return folder / "mine.toml"


def test_a_custom_file_is_read(tmp_path: Path) -> None:
    spec = DatasetSpec.load(write_custom(tmp_path))
    assert spec.skeleton.keypoints == ("pivot", "left_tip", "right_tip")
    assert (spec.warp, spec.target, spec.decode, spec.half_body) == ("plain", "udp", "dark", 3)
    assert spec.evaluation.metrics == ("pck",)
    assert (
        DatasetSpec.load(write_custom(tmp_path, CUSTOM.replace("skeleton.toml", "coco"))).skeleton.name
        == "coco"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"plain"', '"plane"', "mine.toml: unknown value of warp 'plane'; did you mean plain?"),
        ('warp = "plain"', 'target = "mrsa"', "mine.toml: unknown value of target 'mrsa'; did you mean msra"),
        ('warp = "plain"', 'decode = "drak"', "mine.toml: unknown value of decode 'drak'; did you mean dark"),
        ('warp = "plain"', 'aspect = "stretched"', "unknown value of aspect 'stretched'; did you mean stretch"),
        ("metrics", "metric", r"mine.toml: unknown key 'evaluation.metric'; did you mean evaluation.metrics"),
        ("[evaluation]", '[evaluation]\nboxes = "found"', "unknown value of evaluation.boxes 'found'"),
        ("[evaluation]", '[evaluation]\narea = "found"', "unknown value of evaluation.area 'found'"),
        ("[evaluation]", "[evaluation]\nmax_oks = nan", "evaluation.max_oks is nan; input should be a finite"),
        ("[evaluation]", "[evaluation]\nmax_oks = 2", "evaluation.max_oks is 2; .* less than or equal to 1"),
        ("[evaluation]", '[evaluation]\nexcluded = ["pivo"]', "unknown keypoint 'pivo'.*The skeleton is 'scissors'"),
        ("warp", "wrap", "mine.toml: unknown key 'wrap'; did you mean warp?"),
        ('name = "scissors"', "", "mine.toml: name is missing"),
        ('name = "scissors"', 'name = ""', "mine.toml: name is ''; .* at least 1 character"),
        ("half_body = 3", "half_body = true", "mine.toml: half_body is True; input should be a valid integer"),
        ("half_body = 3", "half_body = 1e9", "mine.toml: half_body is 1000000000.0; input should be a valid int"),
        ("half_body = 3", f"half_body = {10**30}", "mine.toml: half_body is 1.*; .* less than or equal to 10000"),
        ('["scissors"]', '"scissors"', "mine.toml: classes is 'scissors'; input should be a valid tuple"),
        ('["scissors"]', "[1]", "mine.toml: classes.0 is 1; input should be a valid string"),
        ('"skeleton.toml"', "3", "skeleton must be a name, a file or a table, not 3"),
        ('"skeleton.toml"', '"skeletn.toml"', "there is no file .*skeletn.toml"),
        ("[evaluation]", "[[evaluation]]", r"evaluation is \[.*\]; it must be a table"),
        ('name = "scissors"', "name =", "mine.toml is not valid TOML: "),
        ('name = "scissors"', "x = " + "[" * 5000, "mine.toml is not valid TOML: "),
    ],
)  # fmt: skip
def test_invalid_declarations_raise(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in CUSTOM
    with pytest.raises(InputError, match=message):
        DatasetSpec.load(write_custom(tmp_path, CUSTOM.replace(old, new, 1)))


def test_invalid_values_in_python_raise() -> None:
    skeleton = Skeleton.load("coco")
    with pytest.raises(InputError, match=r"^the dataset 'x': unknown value of warp 'upd'; did you mean udp"):
        DatasetSpec(name="x", skeleton=skeleton, warp="upd")
    with pytest.raises(
        InputError, match=r"^the dataset 'x': evaluation.max_oks is -1.0; .* greater than or eq"
    ):
        DatasetSpec(name="x", skeleton=skeleton, evaluation=EvaluationRules(max_oks=-1.0))


def test_every_option_of_the_code_can_be_declared() -> None:
    spec = DatasetSpec.load("coco")
    for key, choices in (("warp", WARPS), ("aspect", ASPECTS), ("decode", REFINEMENTS)):
        for choice in choices:
            assert getattr(replace(spec, **{key: choice}), key) == choice


@pytest.mark.parametrize("value", [5, True, 1.5, float("nan"), "coco", {"name": "coco"}])
def test_datasets_that_are_not_a_list_raise(value: Any) -> None:
    with pytest.raises(
        InputError, match=r"^datasets is .*; it must be a list of datasets, as names or tables"
    ):
        DatasetSpec.load_all(value, "datasets")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            5,
            "a dataset must be a name, a .toml file or a vitpose.DatasetSpec, not 5; known names: aic, ap10k",
        ),
        (None, "a dataset must be a name, .* not None"),
        ({"name": "x"}, r"^datasets\[1\]: skeleton is missing"),
        ({"name": 5, "skeleton": "coco"}, r"^datasets\[1\]: name is 5"),
        ({"name": "x", "skeleton": "coco", "wrap": 1}, r"\[1\]: unknown key 'wrap'; did you mean warp"),
        ({1: 2}, r"^datasets\[1\]: "),
        ("x" * 5000, "unknown dataset 'xxx"),
        ("~nobody-of-that-name/x", "unknown dataset '~nobody"),
        ("~nobody-of-that-name/x.toml", "there is no file ~nobody"),
        ("x" * 5000 + ".toml", "there is no file xxx"),
        ("a\0b", "unknown dataset"),
    ],
)
def test_invalid_entries_of_datasets_raise(entry: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DatasetSpec.load_all(["coco", entry], "datasets")


def test_an_invalid_skeleton_is_named() -> None:
    table = {"name": "x", "skeleton": {"name": "x", "keypoints": ["a", "b"], "edges": [["a", "c"]]}}
    with pytest.raises(SkeletonError, match=r"my set, \[skeleton\]: edges.0: unknown keypoint 'c'"):
        DatasetSpec.from_dict(table, "my set")


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown dataset 'ap10'; did you mean ap10k.*\.toml file works too"
    ):
        DatasetSpec.load("ap10")


def test_a_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*none.toml; give .* names: aic, ap10k"):
        DatasetSpec.load(tmp_path / "none.toml")


def test_an_unreadable_file_raises(tmp_path: Path) -> None:
    path = write_custom(tmp_path)
    path.write_bytes(b"\xff")
    with pytest.raises(
        InputError, match=r"mine.toml is not valid TOML: 'utf-8' codec can't decode byte 0xff"
    ):
        DatasetSpec.load(path)
    with pytest.raises(InputError, match=r"/proc/self/mem cannot be read \(.*\); give a readable .toml file"):
        DatasetSpec.load("/proc/self/mem")
