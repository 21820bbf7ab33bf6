"""Whose boxes predictions were made in, and whether published figures rest on the same."""

from __future__ import annotations

from dataclasses import dataclass

from ..keypoints.dataset_spec import DatasetSpec

_KINDS = {"given": "ground truth", "detections": "a detector's boxes"}
"""What the values of `EvaluationRules.boxes` are called in reports."""


@dataclass(frozen=True)
class BoxSource:
    """Whose boxes poses were looked for in.

    Attributes:
        kind: "ground truth", "file" or "predictions", whose file does not say.
        path: The file of the boxes.
        dataset: The dataset whose published figures the numbers may be compared with, where one was named.
    """

    kind: str
    path: str = ""
    dataset: DatasetSpec | None = None

    @property
    def published(self) -> str | None:
        """Which boxes the dataset's published figures rest on."""
        return None if self.dataset is None else _KINDS[self.dataset.evaluation.boxes]

    @property
    def comparable(self) -> bool | None:
        """Whether the published figures rest on the same boxes; None where that cannot be told.

        A file may hold the published detections, or any others.
        """
        if self.published is None or self.kind == "predictions":
            return None
        if self.kind == "ground truth":
            return self.published == self.kind
        return None if self.published == _KINDS["detections"] else False

    def to_dict(self) -> dict[str, str | bool | None]:
        """Returns plain values, ready for JSON."""
        return {
            "kind": self.kind,
            "path": self.path,
            "published": self.published,
            "comparable_with_published": self.comparable,
        }

    def __str__(self) -> str:
        used = {
            "file": self.path,
            "predictions": "as the predictions were made, which their file does not say",
        }
        text = f"boxes: {used.get(self.kind, self.kind)}"
        if self.dataset is None or self.published is None:
            return text
        figures = f"the published figures of {self.dataset.name}"
        if self.comparable is False:
            return f"{text}; {figures} are in {self.published}, and not comparable with these"
        return f"{text}; {figures} are in {self.published}{' too' if self.comparable else ''}"
