"""Measuring a model, or saved predictions, against annotations.

    pipe = vitpose.load("vitpose-tiny", detector=None)
    report = vitpose.evaluate_model(pipe, "val.json", "images/")
    report.numbers["coco"]["AP"]

    annotations   what people marked                    results   predictions, made or read
          └── correspondence, pairing: which is which ──┘
                coco · crowdpose · wholebody · distances: the measures
                evaluation: which of them, over which points ─► report, worst

The package is called `evaluate`, and so no function is: they are `evaluate_model` and `evaluate_predictions`. Nothing
here imports torch.
"""

from __future__ import annotations

from .evaluation import METRICS, evaluate_model, evaluate_predictions
from .report import EvaluationReport
from .worst import draw_worst

__all__ = ["METRICS", "EvaluationReport", "draw_worst", "evaluate_model", "evaluate_predictions"]
