"""From annotations and predictions to a report: which measures, over which points.

The functions are `evaluate_model` and `evaluate_predictions`. There is no function `evaluate`: the package has that
name, and one would hide the other.
"""

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
from .ground_truth import GroundTruth, Person, read_ground_truth, with_areas_of_boxes
from .pairing import HEAD, Pairs, has_head_boxes, has_torso, measure_lengths, pair
from .report import EvaluationReport
from .results import ResultRow, predict, read_results
from .wholebody import wholebody_numbers

METRICS = ("coco", "coco-keypoints", "crowdpose", "wholebody", "pck", "pckh", "auc", "epe", "nme")
"""What can be measured: COCO's ten numbers, AP of each keypoint alone, CrowdPose's and COCO-WholeBody's numbers,
and distances."""

PCK_THRESHOLDS, PCKH_THRESHOLDS = (0.05, 0.1, 0.2), (0.1, 0.5)
AUC_LENGTH_PX = 30.0
"""AUC's thresholds go from 0 to this, as is usual for hands."""


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
    """Measures a model on the images of an annotation file.

    Args:
        pipeline: The model, as of `vitpose.load(…, detector=None)`; a detector it has is not asked.
        annotations: The annotation file, of COCO's or MPII's form.
        images: Folder of its images.
        boxes: COCO's detections to look in; None looks in the boxes of the annotated people.
        metrics: Some of `METRICS`; None takes the dataset's, or those that fit the file.
        flip_test: Average with the mirrored crops.
        dataset: By whose rules to measure: metrics, areas, points that do not count; see `vitpose.DatasetSpec`. None
            takes those that the model's checkpoint declares, if the file has the same keypoints.
        skeleton: Names and sigmas of the annotated points, where the file's own are not wanted.
        head_boxes: MPII's `mpii_gt_val.mat`, whose boxes of heads PCKh needs and its json lacks.
        min_score: Detections that score less are left out.
        max_oks: Of two poses more alike than this the worse is left out; 1 keeps all. None is the dataset's own limit
            where it declares one (0.9 for AIC and AP-10K, as in the original), otherwise 0.9 with detections and 1 with
            ground-truth boxes.
        length: What PCK and NME divide by: "torso", "box", "head", two points ("left_eye:right_eye") or
            pixels; None is the torso if there is one, otherwise the box.
        thresholds: Of PCK, shares of that length.
        advance: Called after each image with how many are done and how many there are.

    Raises:
        VitPoseError: Something is wrong that concerns all images. What concerns one is in the report's problems.
    """
    bones = pipeline.estimator.skeleton
    truth = read_ground_truth(annotations, skeleton, head_boxes)
    rules = _rules_of(dataset, pipeline.estimator.dataset_spec, truth.skeleton)
    plan = _Plan.make(truth, bones, metrics, length, thresholds, rules)
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
        "rules": rules.name if rules is not None else "of the file",
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
    """Measures saved predictions, just as they are: none is left out, none is scored anew.

    Args:
        predictions: COCO's keypoint results, in a file or as a list: of `vitpose evaluate`, of
            `vitpose predict --save coco`, or of another program.
        annotations: The annotation file, of COCO's or MPII's form.
        metrics: Some of `METRICS`; None takes the dataset's, or those that fit the file.
        dataset: By whose rules to measure, as in `evaluate_model`; None takes what fits the file.
        skeleton: Names and sigmas of the annotated points, where the file's own are not wanted.
        predicted_skeleton: Names of the predicted points; None if they are the annotated ones.
        head_boxes: As in `evaluate_model`.
        length: As in `evaluate_model`.
        thresholds: As in `evaluate_model`.

    Raises:
        VitPoseError: Something is wrong that concerns all predictions. What concerns one is in the report's problems.
    """
    truth = read_ground_truth(annotations, skeleton, head_boxes)
    bones = truth.skeleton if predicted_skeleton is None else Skeleton.load(predicted_skeleton)
    rules = _rules_of(dataset, None, truth.skeleton)
    plan = _Plan.make(truth, bones, metrics, length, thresholds, rules)
    results = read_results(predictions, truth, truth.problems)
    if results and len(results[0].points) != len(bones):
        raise InputError(
            f"the predictions have {len(results[0].points)} keypoints and the skeleton {bones.name!r} has "
            f"{len(bones)}; name the predicted points with --predicted-skeleton, or predicted_skeleton="
        )
    source = str(predictions) if isinstance(predictions, str | Path) else "a list"
    told = rules.name if rules is not None else "of the file"
    settings = {"predictions": source, "annotations": str(annotations), "rules": told}
    return plan.report(results, settings, BoxSource("predictions", dataset=rules))


def _rules_of(
    given: str | Path | DatasetSpec | None, model: DatasetSpec | None, annotated: Skeleton
) -> DatasetSpec | None:
    """Returns by whose rules a file is measured: of the dataset named, or the model's if it is the file's too."""
    if given is not None:
        return DatasetSpec.load(given)
    names = [
        tuple(map(plain_name, own.keypoints)) for own in (annotated, model.skeleton if model else annotated)
    ]
    declared = model is not None and bool(model.evaluation.metrics)
    return model if declared and names[0] == names[1] else None


def _uncounted(rules: EvaluationRules, annotated: Skeleton) -> tuple[str, ...]:
    """Returns the annotated keypoints that no measure counts: the rules', and MPII's pelvis and thorax always."""
    mpii = DatasetSpec.load("mpii")
    names = set(map(plain_name, rules.uncounted))
    if [*map(plain_name, annotated.keypoints)] == [*map(plain_name, mpii.skeleton.keypoints)]:
        names |= set(map(plain_name, mpii.evaluation.uncounted))
    return tuple(name for name in annotated.keypoints if plain_name(name) in names)


@dataclass(frozen=True, eq=False)
class _Plan:
    """What will be measured; made, and refused, before the network runs."""

    truth: GroundTruth
    bones: Skeleton
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
        bones: Skeleton,
        metrics: Sequence[str] | None,
        length: str | None,
        thresholds: Sequence[float],
        dataset_spec: DatasetSpec | None,
    ) -> _Plan:
        rules = EvaluationRules() if dataset_spec is None else dataset_spec.evaluation
        fitting = rules.metrics or fitting_metrics(truth)
        chosen = tuple(dict.fromkeys(fitting if metrics is None else metrics))
        for name in chosen:
            if name not in METRICS:
                raise UnknownNameError("metric", name, METRICS)
        if any(not 0 < threshold < np.inf for threshold in thresholds) or not thresholds:
            raise InputError(f"thresholds must be above 0, and one at least, not {list(thresholds)}")
        if truth.skeleton.sigmas == () and {"coco", "coco-keypoints", "crowdpose", "wholebody"} & set(chosen):
            raise InputError(
                f"the skeleton {truth.skeleton.name!r} of {truth.path} has no sigmas, which average precision needs; "
                "pass a skeleton's .toml file with [sigmas], or choose other metrics"
            )
        measure = length or ("torso" if has_torso(truth.skeleton) else "box")
        uncounted = _uncounted(rules, truth.skeleton)
        shared = match_keypoints(truth.skeleton, bones).without(uncounted)
        plan = cls(truth, bones, shared, chosen, measure, tuple(thresholds), rules, uncounted)
        for kind in plan._lengths():
            measure_lengths(kind, truth.people, truth.skeleton)
        return plan

    def _lengths(self) -> set[str]:
        """Returns the lengths that will be needed."""
        needed = {self.length} if {"pck", "nme"} & set(self.metrics) else set()
        return needed | ({"head"} if "pckh" in self.metrics else set())

    def report(
        self, results: Sequence[ResultRow], settings: Mapping[str, Any], boxes: BoxSource
    ) -> EvaluationReport:
        pairs = pair(self.truth, results, self.shared)
        work = _Work(self, results, pairs, {}, {}, {})
        for metric in self.metrics:
            work.measure(metric)
        predicted = sum(own is not None for own in pairs.results)
        return EvaluationReport(
            settings={
                **settings,
                "skeleton": self.truth.skeleton.name,
                "predicted_skeleton": self.bones.name,
            },
            counts={
                "images": len(self.truth.images),
                "people": len(pairs.people),
                "predictions": len(results),
                "people with a prediction": predicted,
            },
            compared=self.shared.names,
            unpredicted=self.shared.unpredicted,
            unannotated=self.shared.unannotated,
            numbers=work.numbers,
            by_keypoint=work.by_keypoint,
            basis=work.basis,
            uncounted=self.uncounted,
            boxes=boxes,
            problems=self.truth.problems,
            results=tuple(results),
            pairs=pairs,
            annotations=self.truth,
            predicted_skeleton=self.bones,
        )


def fitting_metrics(truth: GroundTruth) -> list[str]:
    """Chooses the metrics that fit a file: its dataset's own, PCKh with boxes of heads, PCK where there is a torso."""
    if len(truth.skeleton) == 133:
        return ["wholebody"]
    crowded = any(image.crowd_index is not None for image in truth.images.values())
    precise = (
        truth.skeleton.sigmas and truth.skeleton.name != "mpii"
    )  # which has no areas, and is measured by PCKh
    precision = ["crowdpose" if crowded else "coco"] if precise else []
    distances = ["pck"] if has_torso(truth.skeleton) or not precision else []
    return precision + (["pckh"] if has_head_boxes(truth.people) else []) + distances


@dataclass(frozen=True, eq=False)
class _Work:
    """Measures one thing after the other and keeps the numbers."""

    plan: _Plan
    results: Sequence[ResultRow]
    pairs: Pairs
    numbers: dict[str, Numbers]
    by_keypoint: dict[str, Numbers]
    basis: dict[str, str]

    def measure(self, metric: str) -> None:
        if metric in ("coco", "coco-keypoints", "crowdpose", "wholebody"):
            self._measure_precision(metric)
        elif metric == "pck":
            self._measure_pck("pck", "PCK", self.plan.length, self.plan.thresholds)
        elif metric == "pckh":
            self._measure_pck("pckh", "PCKh", "head", PCKH_THRESHOLDS)
        elif metric == "auc":
            relative = self.pairs.distances / AUC_LENGTH_PX
            self._keep(metric, "AUC", auc, relative, self.pairs.labelled)
            self.basis[metric] = f"thresholds up to {AUC_LENGTH_PX:g} px"
        elif metric == "epe":
            self._keep(metric, "EPE px", mean_distance, self.pairs.distances, self.pairs.labelled)
            self.basis[metric] = self._only_found(self.pairs.distances, self.pairs.labelled)
        else:
            relative, rows = self._relative(self.plan.length)
            self._keep(metric, "NME", mean_distance, relative, self.pairs.labelled[rows])
            found = self._only_found(relative, self.pairs.labelled[rows])
            self.basis[metric] = f"{found}; shares of the length {self.plan.length!r}"

    def _measure_precision(self, metric: str) -> None:
        truth, selection = self.plan.truth, self._selection()
        people: Sequence[Person] = truth.people
        if self.plan.rules.area == "box":
            people = with_areas_of_boxes(people)
        image_ids = truth.images.keys()
        if metric == "coco":
            self.numbers[metric] = coco_numbers(people, self.results, selection, images=image_ids)
        elif metric == "crowdpose":
            images, problems = truth.images, truth.problems
            self.numbers[metric] = crowdpose_numbers(people, self.results, selection, images, problems)
        elif metric == "wholebody":
            parts = wholebody_numbers(people, self.results, selection, images=image_ids)
            self.numbers.update({f"{metric} {part}": numbers for part, numbers in parts.items()})
        else:
            rows = numbers_by_keypoint(people, self.results, selection, images=image_ids)
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
            self._keep(metric, f"{title}@{threshold:g}", pck, relative, labelled, threshold=threshold)
        told = f"the length {length!r}"
        if length == "head" and not has_head_boxes(self.pairs.people):
            told = f"the distance of {' and '.join(HEAD)}, as nobody has a box of the head (see --head-boxes)"
        self.basis[metric] = f"{int(labelled.sum())} points of {len(labelled)} people; shares of {told}"

    def _relative(self, length: str) -> tuple[np.ndarray, Bool[np.ndarray, " n"]]:
        """Returns distances as shares of a length, and of whom it can be measured; names the others."""
        lengths = measure_lengths(length, self.pairs.people, self.plan.truth.skeleton)
        rows = np.isfinite(lengths)
        kind = f"people of whom the length {length!r} cannot be measured, in no measure that needs it"
        if kind not in self.plan.truth.problems.names:
            for row in np.flatnonzero(~rows):
                self.plan.truth.problems.add(kind, self.plan.truth.name_of(self.pairs.people[row]))
        return relative_distances(self.pairs.distances[rows], lengths[rows]), rows

    def _keep(
        self,
        metric: str,
        title: str,
        measure: Callable[..., float | None],
        distances: np.ndarray,
        labelled: np.ndarray,
        **settings: float,
    ) -> None:
        self.numbers.setdefault(metric, {})[title] = measure(distances, labelled, **settings)
        own = by_keypoint(measure, distances, labelled, **settings)
        self.by_keypoint[title] = dict(zip(self.plan.shared.names, own, strict=True))

    def _only_found(self, distances: np.ndarray, labelled: np.ndarray) -> str:
        found, all_points = int((labelled & np.isfinite(distances)).sum()), int(labelled.sum())
        missing = "" if found == all_points else f" of {all_points}; the others' people have no prediction"
        return f"{found} points{missing}"
