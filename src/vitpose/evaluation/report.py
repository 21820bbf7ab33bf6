"""The result of an evaluation as tables and as JSON: metrics, what they are computed from, and skipped input."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ..errors import counted
from ..files.writing import replace_file
from ..keypoints.skeleton import Skeleton
from .box_source import BoxSource
from .coco import Numbers
from .ground_truth import GroundTruth
from .pairing import Pairs
from .problems import Problems
from .results import ResultRow

_NAMES_SHOWN = 3
_COLUMNS = 3  # with the longest names of keypoints and metrics, these fit into 80 columns


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """The result of an evaluation.

    Attributes:
        settings: The settings of the evaluation.
        counts: Numbers of images, instances, predictions, and instances with a prediction.
        compared: Names of the keypoints that all metrics are computed from.
        unpredicted: Annotated keypoints that are not predicted, left out.
        unannotated: Predicted keypoints that are not annotated, left out.
        excluded: Keypoints that the dataset's rules leave out.
        numbers: Values by metric and name, such as `numbers["coco"]["AP"]`; None if nothing can be measured.
        by_keypoint: Values by name and keypoint, such as `by_keypoint["PCK@0.2 (torso)"]["left_wrist"]`.
        basis: For each metric, a description of what it is computed from.
        boxes: The boxes that the predictions were made in.
        problems: Input that could not be used.
        results: The predictions.
        pairs: The instances with their predictions.
        annotations: The ground truth.
        predicted_skeleton: Skeleton of the predicted keypoints.
    """

    settings: Mapping[str, Any]
    counts: Mapping[str, int]
    compared: tuple[str, ...]
    unpredicted: tuple[str, ...]
    unannotated: tuple[str, ...]
    excluded: tuple[str, ...]
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
        """Return lists and dictionaries, ready for JSON, without the predictions."""
        return {
            "settings": dict(self.settings),
            "boxes": self.boxes.to_dict(),
            "counts": dict(self.counts),
            "keypoints": {
                "compared": list(self.compared),
                "unpredicted": list(self.unpredicted),
                "unannotated": list(self.unannotated),
                "excluded": list(self.excluded),
            },
            "numbers": {metric: dict(values) for metric, values in self.numbers.items()},
            "by_keypoint": {name: dict(values) for name, values in self.by_keypoint.items()},
            "basis": dict(self.basis),
            "problems": {kind: list(names) for kind, names in self.problems.names.items()},
            "failed_images": dict(self.problems.images),
        }

    def save(self, path: str | Path) -> None:
        """Write `to_dict()` to a JSON file.

        Raises:
            OutputError: The file cannot be written.
        """
        _write_json(path, self.to_dict())

    def save_results(self, path: str | Path) -> None:
        """Write the predictions in COCO's results format; evaluating that file gives the same metrics.

        Raises:
            OutputError: The file cannot be written.
        """
        _write_json(path, [result.to_row() for result in self.results])

    def print(self, console: Console | None = None) -> None:
        """Print the tables.

        Args:
            console: The console to print to; default: the standard output.
        """
        console = console or Console(highlight=False)
        for part in self._parts():
            console.print(part)

    def _parts(self) -> Iterator[RenderableType]:
        singular = {name: re.sub(r"s\b", "", name, count=1) for name in self.counts}
        yield Text(", ".join(counted(count, singular[name], name) for name, count in self.counts.items()))
        if beyond := len(self.annotations.beyond_limit):
            kept = len(self.annotations.images)
            yield Text(f"limit: the first {counted(kept, 'image')} of {kept + beyond}", style="yellow")
        yield Text(str(self.boxes), style="yellow" if self.boxes.comparable is False else "dim")
        states = {True: "on", False: "off", None: "not recorded in the predictions"}
        yield Text(f"flip test: {states[self.settings.get('flip_test')]}", style="dim")
        yield _table(self.numbers, self.basis)
        if self.by_keypoint:
            columns = list(self.by_keypoint.items())
            for start in range(0, len(columns), _COLUMNS):
                yield _keypoint_table(self.compared, dict(columns[start : start + _COLUMNS]))
        left_out = {
            "not predicted": self.unpredicted,
            "not annotated": self.unannotated,
            "excluded by the dataset's rules": self.excluded,
        }
        for reason, names in left_out.items():
            if names:
                yield Text(f"keypoints left out, {reason}: {_some(names, 8)}", style="yellow")
        if len(self.problems):
            yield _problem_table(self.problems)


def _write_json(path: str | Path, content: Any) -> None:
    with replace_file(Path(path)) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _table(numbers: Mapping[str, Numbers], basis: Mapping[str, str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("metric")
    table.add_column("")
    table.add_column("value", justify="right")
    for metric, values in numbers.items():
        for row, (name, value) in enumerate(values.items()):
            table.add_row(Text(metric if row == 0 else ""), Text(name), _format(value))
        if metric in basis:
            table.add_row("", Text(basis[metric], style="dim"), "")
        table.add_section()
    return table


def _keypoint_table(names: tuple[str, ...], columns: Mapping[str, Numbers]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("keypoint", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for name in names:
        table.add_row(Text(name), *(_format(values[name]) for values in columns.values()))
    return table


def _problem_table(problems: Problems) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="yellow")
    table.add_column("problem", overflow="fold")
    table.add_column("count", justify="right")
    table.add_column("where", overflow="fold")
    for kind, names in problems.names.items():
        table.add_row(Text(kind), str(len(names)), Text(_some(names, _NAMES_SHOWN)))
    if problems.images:
        reasons = [f"{name}: {reason}" for name, reason in problems.images.items()]
        table.add_row(Text("images that failed"), str(len(reasons)), Text(_some(reasons, _NAMES_SHOWN)))
    return table


def _format(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _some(names: tuple[str, ...] | list[str], limit: int) -> str:
    """Join the first names, and counts the others."""
    more = f", … and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
