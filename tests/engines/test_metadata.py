"""The metadata of exported files: the round trip, invalid entries, and the shapes that it describes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

import vitpose
from vitpose.engines.metadata import Metadata
from vitpose.errors import CheckpointError


def without_none(table: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in table.items() if value is not None}


def test_round_trip(metadata: Metadata) -> None:
    assert Metadata.from_json(metadata.to_json(), "x") == metadata
    for name in vitpose.Skeleton.available():
        skeleton = vitpose.Skeleton.load(name)
        assert vitpose.Skeleton.from_dict(skeleton.to_dict()) == skeleton


def test_the_dataset_is_part_of_the_metadata(metadata: Metadata) -> None:
    spec = replace(metadata.spec, dataset=vitpose.DatasetSpec.load("aic"))
    assert Metadata.from_json(replace(metadata, spec=spec).to_json(), "x").spec == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format": 3},
            "'vitpose' of x is invalid: it has format 3, this vitpose reads format 2; update",
        ),
        ({"format": True}, "is invalid: it: .*format.*True"),
        ({"spec": None}, "is invalid: it: spec is missing; export the model again with"),
        ({"spek": {}}, "is invalid: it: unknown key 'spek'; did you mean spec"),
        ({"spec": 3}, "spec.* 3"),
        ({"spec": {"dataset": None}}, r"its spec: dataset is missing"),
        ({"spec": {"dataset": 5}}, r"dataset\b.* 5"),
        ({"spec": {"dataset": {"name": "a"}}}, r"dataset\.skeleton is missing"),
        (
            {"spec": {"dataset": {"name": "a", "skeleton": "/etc/passwd"}}},
            r"dataset\.skeleton is '/etc/passwd'",
        ),
        (
            {"spec": {"dataset": {"name": "a", "skeleton": {"name": "a", "keypoints": ["b"], "edgez": []}}}},
            "unknown key 'edgez'; did you mean edges",
        ),
        ({"spec": {"dataset": {"name": "a", "skeleton": {"name": "a", "keypoints": []}}}}, "keypoints"),
        (
            {"spec": {"dataset": {"name": "a", "warp": "upd", "skeleton": {}}}},
            "its spec, dataset: unknown value of warp 'upd'",
        ),
        ({"spec": {"input_size": {"height": 32000, "width": 32000}}}, "32000"),
        ({"spec": {"std": [0, 1, 1]}}, "std"),
        ({"spec": {"max_step": "x"}}, "max_step"),
        ({"spec": {"border": "zeros"}}, "unknown border 'zeros'; did you mean zero"),
        (
            {"precision": "int4"},
            "precision.*'int4'.*float32",
        ),
        ({"precision": 32}, "precision is 32"),
        ({"model": 7}, "model is 7; input should be a valid string"),
        ({"model": "m" * 1001}, "string should have at most 1000 characters"),
    ],
)
def test_invalid_keys(metadata: Metadata, change: dict[str, Any], message: str) -> None:
    stored = json.loads(metadata.to_json())
    if isinstance(change.get("spec"), dict):
        change = {"spec": without_none({**stored["spec"], **change["spec"]})}
    table = without_none({**stored, **change})
    with pytest.raises(CheckpointError, match=message):
        Metadata.from_json(json.dumps(table), "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "it is not valid JSON"),
        ("[1]", r"it: \[1\]"),
        ('{"format": NaN}', "NaN is not a JSON number"),
        ("[" * 200_000, "it is nested too deeply"),
        (f'{{"format": {"1" * 5000}}}', "it is not valid JSON: .*digits"),
        (" " * 2**20 + "{}", "it has 1048578 bytes; a file of this kind may have 1048576 at most"),
    ],
)
def test_invalid_json(text: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"the metadata 'vitpose' of x is invalid: .*{message}"):
        Metadata.from_json(text, "x")


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (["b", 3, 64, 48], ["b", 2, 16, 12], None),
        ([-1, 3, 64, 48], [-1, 2, 16, 12], None),
        (
            [1, 3, 64, 48],
            [1, 2, 16, 12],
            "the input pixel_values 1 x 3 x 64 x 48 .* batch must be dynamic",
        ),
        (["b", 3, 64, 48], [10**9, 2, 16, 12], "batch must be dynamic"),
        (["b", 3, 64, 48], ["b", 2, "h", 12], "heatmaps of a fixed size, 48x64 at most"),
        (["b", 3, 64, 48], ["b", 2, 65, 12], "heatmaps of a fixed size, 48x64 at most"),
        (["b", 3, 64, 48], ["b", 3, 16, 12], "but its metadata describes"),
        (["b", 3, 64, 48], ["b"], "but its metadata describes"),
    ],
)
def test_shapes(metadata: Metadata, inputs: list[object], outputs: list[object], message: str | None) -> None:
    shapes = [("pixel_values", inputs)], [("heatmaps", outputs)]
    if message is None:
        assert metadata.check_shapes(*shapes, "x") == (2, 16, 12)
    else:
        with pytest.raises(CheckpointError, match=message):
            metadata.check_shapes(*shapes, "x")
