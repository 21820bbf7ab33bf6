"""Parsing and validation: every message, and limits for any content."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitpose.errors import CheckpointError, InputError, SkeletonError, VitPoseError
from vitpose.files.schemas import Row, Schema, check, parse_json, parse_toml

DEEP = "[" * 200_000


class Colour(Schema):
    red: int = 0
    shade: float | None = None


class ImageRow(Schema):
    name: str
    sides: Row[float] = ()
    colour: Colour = Colour()
    others: Row[Colour | int] = ()
    by_name: dict[str, Colour] | None = None


@dataclass(frozen=True)
class Inner:
    sigma: float = 1.0


@dataclass(frozen=True)
class Outer:
    __pydantic_config__ = Schema.model_config
    count: int
    inner: Inner = field(default_factory=Inner)
    pairs: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if self.count < 0:
            raise SkeletonError(f"count is {self.count}; it must be 0 or more")


@pytest.mark.parametrize("text", ['{"a": [1, 2.5, null, "é"]}', '{"a": [1, 2.5, null, "é"]}'.encode()])
def test_json_from_strings_and_bytes(text: str | bytes) -> None:
    assert parse_json(text, "a.json") == {"a": [1, 2.5, None, "é"]}


@pytest.mark.parametrize("text", ["a = 1\nb = ['é']", "a = 1\nb = ['é']".encode()])
def test_toml_from_strings_and_bytes(text: str | bytes) -> None:
    assert parse_toml(text, "a.toml") == {"a": 1, "b": ["é"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "a.json is not valid JSON: Expecting property name"),
        ("", "a.json is not valid JSON: Expecting value: line 1 column 1"),
        (b"\xff{}", "a.json is not valid JSON: 'utf-8' codec can't decode byte 0xff in position 0"),
        (DEEP, "a.json is not valid JSON: it is nested too deeply"),
        ('{"a":' * 200_000, "a.json is not valid JSON: it is nested too deeply"),
        ("1" * 5000, "a.json is not valid JSON: Exceeds the limit .* digits"),
        ("NaN", "a.json is not valid JSON: NaN is not a JSON number"),
        ('{"a": -Infinity}', "a.json is not valid JSON: -Infinity is not a JSON number"),
    ],
)
def test_invalid_json_raises(text: str | bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=f"^{message}"):
        parse_json(text, "a.json", CheckpointError)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = \nb = 2", r"a.toml is not valid TOML: Invalid value \(at line 1"),
        (b"a = '\xe9'", "a.toml is not valid TOML: 'utf-8' codec can't decode byte 0xe9"),
        ("a = " + DEEP, "a.toml is not valid TOML: it is nested too deeply"),
        ("a = " + "1" * 5000, "a.toml is not valid TOML: Exceeds the limit"),
    ],
)
def test_invalid_toml_raises(text: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        parse_toml(text, "a.toml")


def test_content_that_is_too_large_raises() -> None:
    assert parse_json("[1]", "a.json", max_bytes=3) == [1]
    with pytest.raises(InputError, match=r"^a\.json has 4 bytes; a file of this kind may have 3 at most"):
        parse_json("[10]", "a.json", max_bytes=3)


def test_valid_data_becomes_an_instance() -> None:
    image = check(ImageRow, {"name": "x", "sides": [1, 2.5], "others": [{"red": 3}, 4]}, "a.json")
    assert image == ImageRow(name="x", sides=(1.0, 2.5), others=(Colour(red=3), 4))
    assert check(tuple[int, int], (1, 2), "the pair") == (1, 2)
    assert check(Outer, {"count": 1, "pairs": [[1, 2]]}, "a.toml") == Outer(1, pairs=((1.0, 2.0),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"nam": 1},
            r"unknown key 'nam'; did you mean name .* known: by_name, colour, name, others, sides\.",
        ),
        (
            {"shade": 1},
            r"unknown key 'shade'; did you mean .* known: by_name.shade, colour.shade, others.shade\.",
        ),
        ({"colour": {"rde": 1}}, r"unknown key 'colour.rde'; did you mean colour.red"),
        ({"others": [{}, {"shad": 1}]}, r"unknown key 'others.1.Colour.shad'; did you mean .*\.shade"),
        (
            {"by_name": {"sky": {"shad": 1}}},
            r"unknown key 'by_name.sky.shad'; did you mean by_name.sky.shade",
        ),
        ({"name": 5}, "name is 5; input should be a valid string"),
        ({"name": "x" * 500}, None),
        ({"sides": 5}, "sides is 5; input should be a valid tuple"),
        ({"sides": [1, "2"]}, "sides.1 is '2'; input should be a valid number"),
        ({"sides": [float("nan")]}, "sides.0 is nan; input should be a finite number"),
        ({"sides": [10**400]}, "a.json"),
        ({"colour": None}, "colour is None; it must be a table"),
        ({"colour": {"red": True}}, "colour.red is True; input should be a valid integer"),
        ({"colour": {"red": 1.5}}, "colour.red is 1.5; input should be a valid integer"),
        ({"colour": {"shade": 16**5000}}, "a.json"),
        ({"colour": {"shade": [16**5000]}}, "a.json.*shade is"),
    ],
)
def test_errors_name_the_path_of_the_key(change: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert check(ImageRow, {"name": "x", **change}, "a.json")
        return
    with pytest.raises(InputError, match=rf"^(a\.json: )?{message}") as caught:
        check(ImageRow, {"name": "x", **change}, "a.json")
    assert len(str(caught.value)) < 300


def test_missing_keys_and_values_that_are_not_tables_raise() -> None:
    with pytest.raises(InputError, match=r"^a\.json: name is missing$"):
        check(ImageRow, {}, "a.json")
    with pytest.raises(InputError, match=r"^a\.json: 5; it must be a table"):
        check(ImageRow, 5, "a.json")


def test_five_errors_are_described_and_the_rest_counted() -> None:
    with pytest.raises(CheckpointError, match=r"^the sizes: 0 is 'a'; .*; 4 is 'a'; .*integer; and 3 more$"):
        check(Row[int], ["a"] * 8, "the sizes", CheckpointError)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"count": "1"}, "count is '1'; input should be a valid integer"),
        ({"count": True}, "count is True; input should be a valid integer"),
        ({}, "count is missing"),
        ({"count": 1, "inner": {"sgma": 1}}, "unknown key 'inner.sgma'; did you mean inner.sigma"),
        ({"count": 1, "inner": {"sigma": "1"}}, "inner.sigma is '1'; input should be a valid number"),
        ({"count": 1, "pairs": [[1, 2], [3]]}, "pairs.1.1 is missing"),
        ({"count": -1}, "count is -1; it must be 0 or more"),
        (5, "5; it must be a table"),
    ],
)
def test_dataclasses_are_validated_strictly(data: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"^a\.toml: {message}"):
        check(Outer, data, "a.toml")


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.just(1).map(lambda one: one << 20_000),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name", "colour", "sides", "x"]), inner),
    max_leaves=8,
)


@given(data=ANYTHING, schema=st.sampled_from([ImageRow, Outer, Row[float]]))
def test_any_data_is_valid_or_raises_the_given_error(data: Any, schema: Any) -> None:
    result = None
    with suppress(VitPoseError):
        result = check(schema, data, "a.json")
    assert result is None or isinstance(result, schema if isinstance(schema, type) else tuple)
