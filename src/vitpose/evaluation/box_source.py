"""The boxes that predictions were made in, and whether published results use the same."""

from __future__ import annotations

from dataclasses import dataclass

from ..keypoints.dataset_spec import DatasetSpec

_KINDS = {"given": "ground truth", "detections": "a detector's boxes"}
"""Names in reports of the values of `EvaluationRules.boxes`."""


@dataclass(frozen=True)
class BoxSource:
    """The boxes that poses were predicted in.

    Attributes:
        kind: "ground truth"; "file", a file of boxes; or "predictions", a file of predictions, which does not record
            its boxes.
        path: The file of boxes.
        dataset: The dataset to compare published results with, if one is known.
    """

    kind: str
    path: str = ""
    dataset: DatasetSpec | None = None

    @property
    def published(self) -> str | None:
        """The boxes that the dataset's published results use."""
        return None if self.dataset is None else _KINDS[self.dataset.evaluation.boxes]

    @property
    def comparable(self) -> bool | None:
        """Whether published results use the same boxes; None if unknown.

        A file may hold the published detections or others.
        """
        if self.published is None or self.kind == "predictions":
            return None
        if self.kind == "ground truth":
            return self.published == self.kind
        return None if self.published == _KINDS["detections"] else False

    def to_dict(self) -> dict[str, str | bool | None]:
        """Return plain values, ready for JSON."""
        return {
            "kind": self.kind,
            "path": self.path,
            "published": self.published,
            "comparable_with_published": self.comparable,
        }

    def __str__(self) -> str:
        used = {"file": self.path, "predictions": "not recorded in the predictions"}
        line = f"boxes: {used.get(self.kind, self.kind)}"
        if self.dataset is None or self.published is None:
            return line
        also = "also " if self.comparable else ""
        line = f"{line}; published results of {self.dataset.name} {also}use {self.published}"
        return f"{line} and are not comparable" if self.comparable is False else line
