"""Metrics of a model, or of saved predictions, against annotations.

    pipe = vitpose.load("vitpose-tiny", detector=None)
    report = vitpose.evaluate_model(pipe, "val.json", "images/")
    report.numbers["coco"]["AP"]

    ground_truth  annotations to measure against            results   predictions, made or read
          └── correspondence, pairing: keypoints by name, instances by box ──┘
                coco · crowdpose · wholebody · distances: the metrics
                metrics: the table of all
                evaluation: which metrics over which keypoints ─► report, worst

There is no function `evaluate`: the functions are `evaluate_model` and `evaluate_predictions`. Nothing here imports
torch.
"""

from __future__ import annotations

from .evaluation import evaluate_model, evaluate_predictions
from .metrics import METRICS
from .report import EvaluationReport
from .worst import draw_worst

__all__ = ["METRICS", "EvaluationReport", "draw_worst", "evaluate_model", "evaluate_predictions"]
