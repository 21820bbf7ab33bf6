"""The limits of the structure that CONTRIBUTING.md states."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_LINES = 400


def test_files_of_the_package_are_short() -> None:
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / "src/vitpose").rglob("*.py")
    }
    assert lengths
    long = {name: length for name, length in lengths.items() if length > MOST_LINES}
    assert not long, f"split these files by responsibility, {MOST_LINES} lines are the limit: {long}"
