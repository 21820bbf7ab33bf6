"""Evaluation of a model or of saved predictions: the choice of metrics and keypoints, and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from ..errors import InputError, UnknownNameError
from ..inference.pipeline import Pipeline
from ..keypoints.dataset_spec import DatasetSpec, EvaluationRules
from ..keypoints.similarity import MAX_OKS
from ..keypoints.skeleton import Skeleton, plain_name
from .box_source import BoxSource
from .coco import Numbers, Selection, coco_numbers, numbers_by_keypoint
from .correspondence import Correspondence, match_keypoints
from .crowdpose import crowdpose_numbers
from .distances import auc, by_keypoint, mean_distance, pck, relative_distances
from .ground_truth import GroundTruth, Instance, read_ground_truth, with_box_areas
from .pairing import HEAD, Pairs, has_head_boxes, has_torso, measure_lengths, pair
from .report import EvaluationReport
from .results import ResultRow, predict, read_results
from .wholebody import wholebody_numbers

METRICS = ("coco", "coco-keypoints", "crowdpose", "wholebody", "pck", "pckh", "auc", "epe", "nme")
"""The metrics: COCO's ten, AP by keypoint, CrowdPose's, COCO-WholeBody's, and metrics of distances."""

PCK_THRESHOLDS, PCKH_THRESHOLDS = (0.05, 0.1, 0.2), (0.1, 0.5)
AUC_LENGTH_PX = 30.0
"""AUC's thresholds range from 0 to this length, as usual for hands."""
_PRECISION = ("coco", "coco-keypoints", "crowdpose", "wholebody")
"""The metrics of average precision, which require sigmas."""
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
        min_score: Detections with a lower score are left out.
        max_oks: Of two poses with a higher OKS the worse is left out; 1 keeps all. Default: the dataset's limit if it
            declares one (0.9 for AIC and AP-10K, as in the original), otherwise 0.9 with detections and 1 with
            ground-truth boxes.
        length: The length that distances of PCK and NME are divided by: "torso", "box", "head", two keypoints
            ("left_eye:right_eye") or pixels; default: the torso if the skeleton has one, otherwise the box.
        thresholds: Thresholds of PCK, as fractions of that length.
        advance: Called after each image with the number of finished images and their total number.

    Returns:
        The report; its problems name the images, annotations and boxes that could not be used.

    Raises:
        VitPoseError: A file cannot be read, the settings are invalid, or nothing can be evaluated.
    """
    predicted = pipeline.estimator.skeleton
    truth = read_ground_truth(annotations, skeleton, head_boxes)
    rules = _choose_rules(dataset, pipeline.estimator.dataset_spec, truth.skeleton)
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
        length: As in `evaluate_model`.
        thresholds: As in `evaluate_model`.

    Returns:
        The report; its problems name the annotations and predictions that could not be used.

    Raises:
        VitPoseError: A file cannot be read, the settings are invalid, or nothing can be evaluated.
    """
    truth = read_ground_truth(annotations, skeleton, head_boxes)
    predicted = truth.skeleton if predicted_skeleton is None else Skeleton.load(predicted_skeleton)
    rules = _choose_rules(dataset, None, truth.skeleton)
    plan = _Plan.make(truth, predicted, metrics, length, thresholds, rules)
    results = read_results(predictions, truth, truth.problems)
    if results and len(results[0].keypoints) != len(predicted):
        raise InputError(
            f"the predictions have {len(results[0].keypoints)} keypoints and the skeleton {predicted.name!r} has "
            f"{len(predicted)}; give the skeleton of the predictions with --predicted-skeleton (predicted_skeleton=)"
        )
    settings = {
        "predictions": str(predictions) if isinstance(predictions, str | Path) else "a list",
        "annotations": str(annotations),
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
    same = [*map(plain_name, annotated.keypoints)] == [*map(plain_name, model.skeleton.keypoints)]
    return model if same else None


def _uncounted(rules: EvaluationRules, annotated: Skeleton) -> tuple[str, ...]:
    """Return the annotated keypoints that no metric counts: the rules', and MPII's pelvis and thorax always."""
    mpii = DatasetSpec.load("mpii")
    names = set(map(plain_name, rules.uncounted))
    if [*map(plain_name, annotated.keypoints)] == [*map(plain_name, mpii.skeleton.keypoints)]:
        names |= set(map(plain_name, mpii.evaluation.uncounted))
    return tuple(name for name in annotated.keypoints if plain_name(name) in names)


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
    uncounted: tuple[str, ...]

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
        rules = EvaluationRules() if dataset_spec is None else dataset_spec.evaluation
        defaults = rules.metrics or fitting_metrics(truth)
        chosen = tuple(dict.fromkeys(defaults if metrics is None else metrics))
        for name in chosen:
            if name not in METRICS:
                raise UnknownNameError("metric", name, METRICS)
        if any(not 0 < threshold < np.inf for threshold in thresholds) or not thresholds:
            raise InputError(f"thresholds must be one or more numbers above 0, not {list(thresholds)}")
        if truth.skeleton.sigmas == () and set(_PRECISION) & set(chosen):
            raise InputError(
                f"the skeleton {truth.skeleton.name!r} of {truth.path} has no sigmas, which average precision "
                "requires; give a skeleton's .toml file with [sigmas], or choose other metrics"
            )
        divisor = length or ("torso" if has_torso(truth.skeleton) else "box")
        uncounted = _uncounted(rules, truth.skeleton)
        shared = match_keypoints(truth.skeleton, predicted).without(uncounted)
        plan = cls(truth, predicted, shared, chosen, divisor, tuple(thresholds), rules, uncounted)
        for kind in plan._required_lengths():
            measure_lengths(kind, truth.instances, truth.skeleton)
        return plan

    def _required_lengths(self) -> set[str]:
        """Return the lengths that the metrics divide by."""
        required = {self.length} if {"pck", "nme"} & set(self.metrics) else set()
        return required | ({"head"} if "pckh" in self.metrics else set())

    def report(
        self, results: Sequence[ResultRow], settings: Mapping[str, Any], boxes: BoxSource
    ) -> EvaluationReport:
        pairs = pair(self.truth, results, self.shared)
        measurement = _Measurement(self, results, pairs, {}, {}, {})
        for metric in self.metrics:
            measurement.measure(metric)
        return EvaluationReport(
            settings={
                **settings,
                "skeleton": self.truth.skeleton.name,
                "predicted_skeleton": self.predicted.name,
            },
            counts={
                "images": len(self.truth.images),
                "people": len(pairs.instances),
                "predictions": len(results),
                "people with a prediction": sum(result is not None for result in pairs.results),
            },
            compared=self.shared.names,
            unpredicted=self.shared.unpredicted,
            unannotated=self.shared.unannotated,
            numbers=measurement.numbers,
            by_keypoint=measurement.by_keypoint,
            basis=measurement.basis,
            uncounted=self.uncounted,
            boxes=boxes,
            problems=self.truth.problems,
            results=tuple(results),
            pairs=pairs,
            annotations=self.truth,
            predicted_skeleton=self.predicted,
        )


def fitting_metrics(truth: GroundTruth) -> list[str]:
    """Choose the metrics that fit a file: AP in its dataset's form, PCKh with head boxes, PCK with a torso."""
    if len(truth.skeleton) == 133:
        return ["wholebody"]
    crowded = any(image.crowd_index is not None for image in truth.images.values())
    # MPII has no areas and is measured by PCKh.
    has_precision = truth.skeleton.sigmas and truth.skeleton.name != "mpii"
    precision = ["crowdpose" if crowded else "coco"] if has_precision else []
    distances = ["pck"] if has_torso(truth.skeleton) or not precision else []
    return precision + (["pckh"] if has_head_boxes(truth.instances) else []) + distances


@dataclass(frozen=True, eq=False)
class _Measurement:
    """Metrics computed one by one, with their values."""

    plan: _Plan
    results: Sequence[ResultRow]
    pairs: Pairs
    numbers: dict[str, Numbers]
    by_keypoint: dict[str, Numbers]
    basis: dict[str, str]

    def measure(self, metric: str) -> None:
        if metric in _PRECISION:
            self._measure_precision(metric)
        elif metric == "pck":
            self._measure_pck("pck", "PCK", self.plan.length, self.plan.thresholds)
        elif metric == "pckh":
            self._measure_pck("pckh", "PCKh", "head", PCKH_THRESHOLDS)
        elif metric == "auc":
            relative = self.pairs.distances / AUC_LENGTH_PX
            self._add(metric, "AUC", auc, relative, self.pairs.labelled)
            self.basis[metric] = f"thresholds up to {AUC_LENGTH_PX:g} px"
        elif metric == "epe":
            self._add(metric, "EPE px", mean_distance, self.pairs.distances, self.pairs.labelled)
            self.basis[metric] = self._describe_found(self.pairs.distances, self.pairs.labelled)
        else:
            relative, rows = self._relative(self.plan.length)
            self._add(metric, "NME", mean_distance, relative, self.pairs.labelled[rows])
            found = self._describe_found(relative, self.pairs.labelled[rows])
            self.basis[metric] = f"{found}; divided by the length {self.plan.length!r}"

    def _measure_precision(self, metric: str) -> None:
        truth, selection = self.plan.truth, self._selection()
        instances: Sequence[Instance] = truth.instances
        if self.plan.rules.area == "box":
            instances = with_box_areas(instances)
        image_ids = truth.images.keys()
        if metric == "coco":
            self.numbers[metric] = coco_numbers(instances, self.results, selection, images=image_ids)
        elif metric == "crowdpose":
            images, problems = truth.images, truth.problems
            self.numbers[metric] = crowdpose_numbers(instances, self.results, selection, images, problems)
        elif metric == "wholebody":
            parts = wholebody_numbers(instances, self.results, selection, images=image_ids)
            self.numbers.update({f"{metric} {part}": numbers for part, numbers in parts.items()})
        else:
            rows = numbers_by_keypoint(instances, self.results, selection, images=image_ids)
            for name in rows[0]:
                self.by_keypoint[name] = dict(
                    zip(self.plan.shared.names, [row[name] for row in rows], strict=True)
                )

    def _selection(self) -> Selection:
        shared, skeleton = self.plan.shared, self.plan.truth.skeleton
        return Selection(
            shared.annotated,
            shared.predicted,
            np.array(skeleton.sigmas)[shared.annotated],
            recount=bool(shared.unpredicted or self.plan.uncounted),
        )

    def _measure_pck(self, metric: str, title: str, length: str, thresholds: Sequence[float]) -> None:
        relative, rows = self._relative(length)
        labelled = self.pairs.labelled[rows]
        for threshold in thresholds:
            self._add(metric, f"{title}@{threshold:g}", pck, relative, labelled, threshold=threshold)
        divisor = f"the length {length!r}"
        if length == "head" and not has_head_boxes(self.pairs.instances):
            divisor = f"the distance {' to '.join(HEAD)}, as no annotation has a head box (see --head-boxes)"
        count = f"{int(labelled.sum())} keypoints of {len(labelled)} instances"
        self.basis[metric] = f"{count}; divided by {divisor}"

    def _relative(self, length: str) -> tuple[np.ndarray, Bool[np.ndarray, " n"]]:
        """Return distances divided by a length, and the instances that have it; adds the others to the problems."""
        lengths = measure_lengths(length, self.pairs.instances, self.plan.truth.skeleton)
        rows = np.isfinite(lengths)
        kind = f"instances in which the length {length!r} cannot be measured: not in the metrics that use it"
        if kind not in self.plan.truth.problems.names:
            for row in np.flatnonzero(~rows):
                self.plan.truth.problems.add(kind, self.plan.truth.name_of(self.pairs.instances[row]))
        return relative_distances(self.pairs.distances[rows], lengths[rows]), rows

    def _add(
        self,
        metric: str,
        title: str,
        measure: Callable[..., float | None],
        distances: np.ndarray,
        labelled: np.ndarray,
        **settings: float,
    ) -> None:
        self.numbers.setdefault(metric, {})[title] = measure(distances, labelled, **settings)
        values = by_keypoint(measure, distances, labelled, **settings)
        self.by_keypoint[title] = dict(zip(self.plan.shared.names, values, strict=True))

    def _describe_found(self, distances: np.ndarray, labelled: np.ndarray) -> str:
        found, total = int((labelled & np.isfinite(distances)).sum()), int(labelled.sum())
        missing = "" if found == total else f" of {total}; the others are of instances without a prediction"
        return f"{found} keypoints{missing}"
