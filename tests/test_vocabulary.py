"""The words of the field in code, messages and documentation: expressions to avoid, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md", "Makefile")
SUFFIXES = {".py", ".toml", ".md"}

# "a training run", "a training step" and the like are the field's; "a training" alone is not.
COMPOUNDS = "run|set|step|sample|loop|image|recipe|batch|data"

REPLACEMENTS = {
    r"pictures?": "image",
    r"heat maps?": "heatmap",
    r"data sets?": "dataset",
    r"bones": "skeleton",
    r"so-manieth": "every n-th",
    r"(could|can) ?not be had": "download failed",
    rf"a training(?!s? ({COMPOUNDS}))": "a training run",
    r"trainings": "training runs",
    r"nobody": "no instance, no one",
    r"(somebody|someone|everybody|whoever)": "the caller, a user, all instances",
    r"by itself": "alone, automatically, separately",
    r"((goes|gone) on|go on with)": "continues, resumes",
    r"begins? again": "restarts, retries",
    r"anew": "again, newly",
    r"comes? across": "finds",
    r"left alone": "unsupported, unchanged",
    r"numbers? that (is|are) no numbers?": "NaN",
    r"identities": "track IDs",
    r"who is who": "tracking, matching",
    r"likeness": "similarity",
    r"must be a text": "must be a string",
    r"is needed": "is required",
    r"rivals?": "baseline",
    r"people a second": "people per second",
    r"looks? for people": "detect people",
    r"as a wish": "a shutdown request",
}
"""Expressions that are not the field's, as regular expressions in which a blank is any white space."""


BLANK = r"(?: +|\s*\"?\n\s*(?:# *|f?\")?)"
"""Blanks, or a line break, in a comment or between the parts of a string too."""


def find_expressions(text: str) -> Iterator[tuple[int, str, str]]:
    """Yields line number, expression and replacement of every expression to avoid, across line breaks too."""
    for expression, replacement in REPLACEMENTS.items():
        pattern = rf"(?<![a-z])(?:{expression})(?![a-z])".replace(" ", BLANK)
        for match in re.finditer(pattern, text, re.IGNORECASE):
            yield text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), replacement


def checked_files() -> list[Path]:
    sources = (path for path in (ROOT / "src").rglob("*") if path.suffix in SUFFIXES)
    return sorted([*sources, *(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in PAGES)])


@pytest.mark.parametrize("path", checked_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_expressions_are_those_of_the_field(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name == "CHANGELOG.md":  # in code it has the former names of what was renamed
        text = re.sub(r"`[^`\n]*`", "``", text)
    found = [
        f"{path.relative_to(ROOT)}:{line}: {expression!r}; write {replacement!r}"
        for line, expression, replacement in find_expressions(text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("One\nPicture", [(2, "Picture", "image")]),
        ("a heat\n# map", [(1, "heat # map", "heatmap")]),
        ('("a data "\n    f"set")', [(1, 'data " f"set', "dataset")]),
        ("_pictures = 1", [(1, "pictures", "image")]),
        ("a training is", [(1, "a training", "a training run")]),
        (
            'a training run of a training set; backbones; a training\nstep; "a training "\n"set"; data, set',
            [],
        ),
    ],
)
def test_expressions_are_found_with_line_and_replacement(
    text: str, found: list[tuple[int, str, str]]
) -> None:
    assert list(find_expressions(text)) == found
