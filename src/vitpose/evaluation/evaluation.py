"""Evaluation of a model or of saved predictions: whose rules apply, which keypoints count, and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, UnknownNameError, counted
from ..inference.pipeline import Pipeline
from ..keypoints.dataset_spec import DatasetSpec, EvaluationRules
from ..keypoints.similarity import MAX_OKS
from ..keypoints.skeleton import Skeleton, plain_name
from .box_source import BoxSource
from .correspondence import Correspondence, match_keypoints
from .ground_truth import GroundTruth, read_ground_truth
from .metrics import METRICS, Measurement, fitting_metrics
from .pairing import has_torso, measure_lengths, pair
from .report import EvaluationReport
from .results import ResultRow, predict, read_results

PCK_THRESHOLDS = (0.05, 0.1, 0.2)
_RULES_OF_FILE = "from the annotation file"
"""The setting "rules" of a report without a dataset."""


def evaluate_model(
    pipeline: Pipeline,
    annotations: str | Path,
    images: str | Path,
    *,
    boxes: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    flip_test: bool = False,
    dataset: str | Path | DatasetSpec | None = None,
    skeleton: str | Path | Skeleton | None = None,
    head_boxes: str | Path | None = None,
    limit: int | None = None,
    min_score: float = 0.0,
    max_oks: float | None = None,
    length: str | None = None,
    thresholds: Sequence[float] = PCK_THRESHOLDS,
    advance: Callable[[int, int], None] | None = None,
) -> EvaluationReport:
    """Evaluate a model on the images of an annotation file.

    Args:
        pipeline: The model, as returned by `vitpose.load(…, detector=None)`; a detector in it is not run.
        annotations: The annotation file, in COCO's or MPII's form.
        images: Directory of its images.
        boxes: A file of COCO's detections to predict in; default: the boxes of the annotations.
        metrics: Names from `METRICS`; default: the dataset's, or those that fit the file.
        flip_test: Average with the mirrored crops.
        dataset: The dataset that defines the rules: metrics, areas, keypoints that do not count; see
            `vitpose.DatasetSpec`. Default: the dataset in the model's checkpoint, if the file has the same keypoints.
        skeleton: Skeleton with the names and sigmas of the annotated keypoints; default: the file's.
        head_boxes: MPII's `mpii_gt_val.mat`, the head boxes that PCKh requires and MPII's JSON does not contain.
        limit: Evaluate on the first images of the file only, this many, which the report states; default: on all.
        min_score: Detections with a lower score are left out.
        max_oks: Of two poses with a higher OKS the worse is left out; 1 keeps all. Default: the dataset's limit if it
            declares one (0.9 for AIC and AP-10K, as in the original), otherwise 0.9 with detections and 1 with
            ground-truth boxes.
        length: The length that distances of PCK and NME are divided by, as their names say ("PCK@0.2 (torso)"):
            "torso", "box", "head", two keypoints ("left_eye:right_eye") or pixels; default: the torso if the skeleton
            has one, otherwise the box.
        thresholds: Thresholds of PCK, as fractions of that length.
        advance: Called after each image with the number of finished images and their total number.

    Returns:
        The report; its problems name the images, annotations and boxes that could not be used.

    Raises:
        VitPoseError: A file cannot be read, the settings are invalid, or nothing can be evaluated.
    """
    predicted = pipeline.estimator.skeleton
    truth = read_ground_truth(annotations, skeleton, head_boxes, limit)
    rules = _choose_rules(dataset, pipeline.estimator.spec.dataset, truth.skeleton)
    plan = _Plan.make(truth, predicted, metrics, length, thresholds, rules)
    if max_oks is None:
        max_oks = min(1.0 if boxes is None else MAX_OKS, plan.rules.max_oks)
    results = predict(
        pipeline,
        truth,
        images,
        boxes,
        truth.problems,
        flip_test=flip_test,
        min_score=min_score,
        max_oks=max_oks,
        advance=advance,
    )
    settings = {
        "model": pipeline.estimator.runs_on,
        "annotations": str(annotations),
        "images": str(images),
        "flip_test": flip_test,
        "min_score": min_score,
        "max_oks": max_oks,
        "limit": limit,
        "rules": rules.name if rules is not None else _RULES_OF_FILE,
    }
    kind = "ground truth" if boxes is None else "file"
    return plan.report(results, settings, BoxSource(kind, "" if boxes is None else str(boxes), rules))


def evaluate_predictions(
    predictions: str | Path | Sequence[Any],
    annotations: str | Path,
    *,
    metrics: Sequence[str] | None = None,
    dataset: str | Path | DatasetSpec | None = None,
    skeleton: str | Path | Skeleton | None = None,
    predicted_skeleton: str | Path | Skeleton | None = None,
    head_boxes: str | Path | None = None,
    limit: int | None = None,
    length: str | None = None,
    thresholds: Sequence[float] = PCK_THRESHOLDS,
) -> EvaluationReport:
    """Evaluate saved predictions unchanged: none is left out or rescored.

    Args:
        predictions: COCO's keypoint results, in a file or as a list: from `vitpose evaluate`, from
            `vitpose predict --save coco`, or from other software.
        annotations: The annotation file, in COCO's or MPII's form.
        metrics: Names from `METRICS`; default: the dataset's, or those that fit the file.
        dataset: The dataset that defines the rules, as in `evaluate_model`; default: rules that fit the file.
        skeleton: Skeleton with the names and sigmas of the annotated keypoints; default: the file's.
        predicted_skeleton: Skeleton of the predicted keypoints; default: that of the annotated ones.
        head_boxes: As in `evaluate_model`.
        limit: As in `evaluate_model`.
        length: As in `evaluate_model`.
        thresholds: As in `evaluate_model`.

    Returns:
        The report; its problems name the annotations and predictions that could not be used.

    Raises:
        VitPoseError: A file cannot be read, the settings are invalid, or nothing can be evaluated.
    """
    truth = read_ground_truth(annotations, skeleton, head_boxes, limit)
    predicted = truth.skeleton if predicted_skeleton is None else Skeleton.load(predicted_skeleton)
    rules = _choose_rules(dataset, None, truth.skeleton)
    plan = _Plan.make(truth, predicted, metrics, length, thresholds, rules)
    results = read_results(predictions, truth, truth.problems)
    if results and len(results[0].keypoints) != len(predicted):
        raise InputError(
            f"the predictions have {counted(len(results[0].keypoints), 'keypoint')} and the skeleton "
            f"{predicted.name!r} has {len(predicted)}; give the skeleton of the predictions with "
            "--predicted-skeleton (predicted_skeleton=)"
        )
    settings = {
        "predictions": str(predictions) if isinstance(predictions, str | Path) else "a list",
        "annotations": str(annotations),
        "limit": limit,
        "rules": rules.name if rules is not None else _RULES_OF_FILE,
    }
    return plan.report(results, settings, BoxSource("predictions", dataset=rules))


def _choose_rules(
    given: str | Path | DatasetSpec | None, model: DatasetSpec | None, annotated: Skeleton
) -> DatasetSpec | None:
    """Return the dataset that defines the rules: the given one, or the model's if the file has its keypoints."""
    if given is not None:
        return DatasetSpec.load(given)
    if model is None or not model.evaluation.metrics:
        return None
    return model if _same_keypoints(annotated, model.skeleton) else None


def _same_keypoints(one: Skeleton, other: Skeleton) -> bool:
    return [*map(plain_name, one.keypoints)] == [*map(plain_name, other.keypoints)]


def _declared_rules(annotated: Skeleton) -> EvaluationRules:
    """Return the rules of the shipped dataset whose keypoints a file has; of several, the one of the same name."""
    specs = [DatasetSpec.load(name) for name in DatasetSpec.available()]
    fitting = {spec.name: spec.evaluation for spec in specs if _same_keypoints(spec.skeleton, annotated)}
    return fitting.get(annotated.name) or next(iter(fitting.values()), EvaluationRules())


@dataclass(frozen=True, eq=False)
class _Plan:
    """The metrics to compute; made before the network runs, so that invalid settings fail first."""

    truth: GroundTruth
    predicted: Skeleton
    shared: Correspondence
    metrics: tuple[str, ...]
    length: str
    thresholds: tuple[float, ...]
    rules: EvaluationRules
    excluded: tuple[str, ...]

    @classmethod
    def make(
        cls,
        truth: GroundTruth,
        predicted: Skeleton,
        metrics: Sequence[str] | None,
        length: str | None,
        thresholds: Sequence[float],
        dataset_spec: DatasetSpec | None,
    ) -> _Plan:
        declared = _declared_rules(truth.skeleton)
        rules = EvaluationRules() if dataset_spec is None else dataset_spec.evaluation
        defaults = rules.metrics or fitting_metrics(truth, declared)
        chosen = tuple(dict.fromkeys(defaults if metrics is None else metrics))
        for name in chosen:
            if name not in METRICS:
                raise UnknownNameError("metric", name, METRICS)
        if any(not 0 < threshold < np.inf for threshold in thresholds) or not thresholds:
            raise InputError(f"thresholds must be one or more numbers above 0, not {list(thresholds)}")
        if truth.skeleton.sigmas == () and any(METRICS[name].has_sigmas for name in chosen):
            raise InputError(
                f"the skeleton {truth.skeleton.name!r} of {truth.path} has no sigmas, which average precision "
                "requires; give a skeleton's .toml file with [sigmas], or choose other metrics"
            )
        divisor = length or ("torso" if has_torso(truth.skeleton) else "box")
        # The dataset that the file is of excludes its keypoints even if another one's rules are given.
        names = {plain_name(name) for name in (*rules.excluded, *declared.excluded)}
        excluded = tuple(name for name in truth.skeleton.keypoints if plain_name(name) in names)
        shared = match_keypoints(truth.skeleton, predicted).without(excluded)
        for kind in {METRICS[name].length for name in chosen} - {None}:
            measure_lengths(kind or divisor, truth.instances, truth.skeleton)
        return cls(truth, predicted, shared, chosen, divisor, tuple(thresholds), rules, excluded)

    def report(
        self, results: Sequence[ResultRow], settings: Mapping[str, Any], boxes: BoxSource
    ) -> EvaluationReport:
        pairs, recount = (
            pair(self.truth, results, self.shared),
            bool(self.shared.unpredicted or self.excluded),
        )
        measurement = Measurement(
            self.truth, results, pairs, self.shared, self.rules, recount, self.length, self.thresholds
        )
        for metric in self.metrics:
            METRICS[metric].measure(measurement)
        return EvaluationReport(
            settings={
                **settings,
                "skeleton": self.truth.skeleton.name,
                "predicted_skeleton": self.predicted.name,
            },
            counts={
                "images": len(self.truth.images),
                "instances": len(pairs.instances),
                "predictions": len(results),
                "instances with a prediction": sum(result is not None for result in pairs.results),
            },
            compared=self.shared.names,
            unpredicted=self.shared.unpredicted,
            unannotated=self.shared.unannotated,
            numbers=measurement.numbers,
            by_keypoint=measurement.by_keypoint,
            basis=measurement.basis,
            excluded=self.excluded,
            boxes=boxes,
            problems=self.truth.problems,
            results=tuple(results),
            pairs=pairs,
            annotations=self.truth,
            predicted_skeleton=self.predicted,
        )
