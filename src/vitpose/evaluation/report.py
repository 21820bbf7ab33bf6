"""What an evaluation found: numbers, what they rest on, and what could not be used; as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ..files.writing import replace_file
from ..keypoints.skeleton import Skeleton
from .box_source import BoxSource
from .coco import Numbers
from .ground_truth import GroundTruth
from .pairing import Pairs
from .problems import Problems
from .results import ResultRow

_NAMES_SHOWN = 3
_COLUMNS = 5  # beside the longest names of keypoints, these fit into 80 columns


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """The outcome of an evaluation.

    Attributes:
        settings: What was evaluated, and how.
        counts: Images, people, predictions, and how many people have a prediction.
        compared: Names of the points that every number rests on.
        unpredicted: Annotated points that nothing predicts, left out.
        unannotated: Predicted points that nothing annotates, left out.
        uncounted: Points that the dataset's own rules leave out.
        numbers: By measure and name, such as `numbers["coco"]["AP"]`; None where there is nothing to measure.
        by_keypoint: By number and keypoint, such as `by_keypoint["PCK@0.2"]["left_wrist"]`.
        basis: What each measure rests on, in words.
        boxes: Whose boxes the predictions were made in.
        problems: What could not be used.
        results: The predictions.
        pairs: The people beside their predictions.
        annotations: What was annotated.
        predicted_skeleton: What the predicted points are called.
    """

    settings: Mapping[str, Any]
    counts: Mapping[str, int]
    compared: tuple[str, ...]
    unpredicted: tuple[str, ...]
    unannotated: tuple[str, ...]
    uncounted: tuple[str, ...]
    numbers: Mapping[str, Numbers]
    by_keypoint: Mapping[str, Numbers]
    basis: Mapping[str, str]
    boxes: BoxSource
    problems: Problems
    results: tuple[ResultRow, ...] = field(repr=False)
    pairs: Pairs = field(repr=False)
    annotations: GroundTruth = field(repr=False)
    predicted_skeleton: Skeleton = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain lists and dictionaries, ready for JSON, without the predictions."""
        return {
            "settings": dict(self.settings),
            "boxes": self.boxes.to_dict(),
            "counts": dict(self.counts),
            "keypoints": {
                "compared": list(self.compared),
                "unpredicted": list(self.unpredicted),
                "unannotated": list(self.unannotated),
                "uncounted": list(self.uncounted),
            },
            "numbers": {measure: dict(numbers) for measure, numbers in self.numbers.items()},
            "by_keypoint": {name: dict(numbers) for name, numbers in self.by_keypoint.items()},
            "basis": dict(self.basis),
            "problems": {kind: list(names) for kind, names in self.problems.names.items()},
            "failed_images": dict(self.problems.images),
        }

    def save(self, path: str | Path) -> None:
        """Writes `to_dict()` to a JSON file."""
        _write_json(path, self.to_dict())

    def save_results(self, path: str | Path) -> None:
        """Writes the predictions as COCO's results, from which the same numbers follow."""
        _write_json(path, [result.to_row() for result in self.results])

    def print(self, console: Console | None = None) -> None:
        """Prints the tables."""
        console = console or Console(highlight=False)
        for part in self._parts():
            console.print(part)

    def _parts(self) -> Iterator[RenderableType]:
        yield Text(", ".join(f"{count} {what}" for what, count in self.counts.items()))
        yield Text(str(self.boxes), style="yellow" if self.boxes.comparable is False else "dim")
        yield _table("measure", self.numbers, self.basis)
        if self.by_keypoint:
            columns = list(self.by_keypoint.items())
            for start in range(0, len(columns), _COLUMNS):
                yield _keypoint_table(self.compared, dict(columns[start : start + _COLUMNS]))
        left_out = {
            "not predicted": self.unpredicted,
            "not annotated": self.unannotated,
            "not counted": self.uncounted,
        }
        for what, names in left_out.items():
            if names:
                yield Text(f"left out, as {what}: {_some(names, 8)}", style="yellow")
        if len(self.problems):
            yield _problem_table(self.problems)


def _write_json(path: str | Path, content: Any) -> None:
    with replace_file(Path(path)) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _table(title: str, numbers: Mapping[str, Numbers], basis: Mapping[str, str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(title)
    table.add_column("number")
    table.add_column("", justify="right")
    for measure, own in numbers.items():
        for row, (name, value) in enumerate(own.items()):
            table.add_row(Text(measure if row == 0 else ""), Text(name), _shown(value))
        if measure in basis:
            table.add_row("", Text(basis[measure], style="dim"), "")
        table.add_section()
    return table


def _keypoint_table(names: tuple[str, ...], columns: Mapping[str, Numbers]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("keypoint", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for name in names:
        table.add_row(Text(name), *(_shown(own[name]) for own in columns.values()))
    return table


def _problem_table(problems: Problems) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="yellow")
    table.add_column("what could not be used", overflow="fold")
    table.add_column("how many", justify="right")
    table.add_column("which", overflow="fold")
    for kind, names in problems.names.items():
        table.add_row(Text(kind), str(len(names)), Text(_some(names, _NAMES_SHOWN)))
    if problems.images:
        reasons = [f"{name}: {reason}" for name, reason in problems.images.items()]
        table.add_row(Text("images that failed"), str(len(reasons)), Text(_some(reasons, _NAMES_SHOWN)))
    return table


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _some(names: tuple[str, ...] | list[str], most: int) -> str:
    more = f", … and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
