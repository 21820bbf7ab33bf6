"""The metrics: what each is computed from, and which files and datasets it suits.

A metric is an entry of `METRICS`; nothing else distinguishes metrics or datasets by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool

from ..errors import counted
from ..keypoints.dataset_spec import EvaluationRules
from .coco import Numbers, Selection, coco_numbers, numbers_by_keypoint
from .correspondence import Correspondence
from .crowdpose import crowdpose_numbers
from .distances import auc, by_keypoint, mean_distance, pck, relative_distances
from .ground_truth import GroundTruth, Instance, with_box_areas
from .pairing import HEAD, Pairs, has_head_boxes, has_torso, measure_lengths
from .results import ResultRow
from .wholebody import wholebody_numbers

PCKH_THRESHOLDS = (0.1, 0.5)
AUC_LENGTH_PX = 30.0
"""AUC's thresholds range from 0 to this length, as usual for hands."""


@dataclass(frozen=True, eq=False)
class Measurement:
    """What metrics are computed from, and their values.

    Attributes:
        truth: The ground truth.
        results: The predictions.
        pairs: The instances with their predictions.
        shared: The keypoints that are compared.
        rules: The rules of the dataset.
        recount: Whether keypoints are left out, so that the file's counts of keypoints do not apply.
        length: The length that PCK and NME divide by; see `pairing.measure_lengths`.
        thresholds: Thresholds of PCK, as fractions of it.
        numbers: Values by metric and name.
        by_keypoint: Values by name and keypoint.
        basis: For each metric, a description of what it is computed from.
    """

    truth: GroundTruth
    results: Sequence[ResultRow]
    pairs: Pairs
    shared: Correspondence
    rules: EvaluationRules
    recount: bool
    length: str
    thresholds: tuple[float, ...]
    numbers: dict[str, Numbers] = field(default_factory=dict)
    by_keypoint: dict[str, Numbers] = field(default_factory=dict)
    basis: dict[str, str] = field(default_factory=dict)

    @property
    def instances(self) -> Sequence[Instance]:
        """All instances, with the areas that the rules define."""
        truth = self.truth.instances
        return with_box_areas(truth) if self.rules.area == "box" else truth

    @property
    def selection(self) -> Selection:
        """The compared keypoints with their sigmas."""
        shared, sigmas = self.shared, np.array(self.truth.skeleton.sigmas)
        return Selection(shared.annotated, shared.predicted, sigmas[shared.annotated], self.recount)

    def relative(self, length: str) -> tuple[np.ndarray, Bool[np.ndarray, " n"]]:
        """Return distances divided by a length, and the instances that have it; adds the others to the problems."""
        lengths = measure_lengths(length, self.pairs.instances, self.truth.skeleton)
        rows = np.isfinite(lengths)
        kind = f"instances in which the length {length!r} cannot be measured: not in the metrics that use it"
        if kind not in self.truth.problems.names:
            for row in np.flatnonzero(~rows):
                self.truth.problems.add(kind, self.truth.name_of(self.pairs.instances[row]))
        return relative_distances(self.pairs.distances[rows], lengths[rows]), rows

    def add(
        self,
        metric: str,
        title: str,
        measure: Callable[..., float | None],
        distances: np.ndarray,
        labelled: np.ndarray,
        **settings: float,
    ) -> None:
        """Add a metric of distances, over all keypoints and of each."""
        self.numbers.setdefault(metric, {})[title] = measure(distances, labelled, **settings)
        values = by_keypoint(measure, distances, labelled, **settings)
        self.by_keypoint[title] = dict(zip(self.shared.names, values, strict=True))


@dataclass(frozen=True)
class Metric:
    """How a metric is computed, and when it is chosen.

    Attributes:
        measure: Adds the values to a measurement.
        suits: Whether it is computed by default for a file without rules, given those of the dataset whose keypoints
            the file has.
        has_sigmas: Whether it requires sigmas, as average precision does.
        length: The length that it divides by: None, a name, or "" for the chosen one.
    """

    measure: Callable[[Measurement], None]
    suits: Callable[[GroundTruth, EvaluationRules], bool] = lambda truth, rules: False
    has_sigmas: bool = False
    length: str | None = None


def reference_name(length: str) -> str:
    """Return the name of a length in the name of a metric: "80 px" for "80"."""
    return f"{length} px" if length.replace(".", "", 1).isdecimal() else length


def _measure_coco(given: Measurement) -> None:
    images = given.truth.images.keys()
    given.numbers["coco"] = coco_numbers(given.instances, given.results, given.selection, images=images)


def _measure_by_keypoint(given: Measurement) -> None:
    images = given.truth.images.keys()
    rows = numbers_by_keypoint(given.instances, given.results, given.selection, images=images)
    for name in rows[0]:
        values = [row[name] for row in rows]
        given.by_keypoint[name] = dict(zip(given.shared.names, values, strict=True))


def _measure_crowdpose(given: Measurement) -> None:
    truth = given.truth
    given.numbers["crowdpose"] = crowdpose_numbers(
        truth.instances, given.results, given.selection, truth.images, truth.problems
    )


def _measure_wholebody(given: Measurement) -> None:
    images = given.truth.images.keys()
    parts = wholebody_numbers(given.instances, given.results, given.selection, images=images)
    given.numbers.update({f"wholebody {part}": numbers for part, numbers in parts.items()})


def _measure_pck(given: Measurement) -> None:
    _add_pck(given, "pck", given.length, given.thresholds, reference_name(given.length))


def _measure_pckh(given: Measurement) -> None:
    """Add PCKh; relative to a distance of keypoints it has another name, as it is not the published one then."""
    from_boxes = has_head_boxes(given.pairs.instances)
    _add_pck(given, "pckh", "head", PCKH_THRESHOLDS, "" if from_boxes else ":".join(HEAD))
    if not from_boxes:
        given.basis["pckh"] += (
            f": the distance {' to '.join(HEAD)}, as no annotation has a head box (see --head-boxes)"
        )


def _add_pck(
    given: Measurement, metric: str, length: str, thresholds: Sequence[float], reference: str
) -> None:
    relative, rows = given.relative(length)
    labelled = given.pairs.labelled[rows]
    title, suffix = ("PCKh" if length == "head" else "PCK"), f" ({reference})" if reference else ""
    for threshold in thresholds:
        given.add(metric, f"{title}@{threshold:g}{suffix}", pck, relative, labelled, threshold=threshold)
    count = f"{counted(int(labelled.sum()), 'keypoint')} of {counted(len(labelled), 'instance')}"
    given.basis[metric] = f"{count}; divided by the length {length!r}"


def _measure_auc(given: Measurement) -> None:
    given.add("auc", "AUC", auc, given.pairs.distances / AUC_LENGTH_PX, given.pairs.labelled)
    given.basis["auc"] = f"thresholds up to {AUC_LENGTH_PX:g} px"


def _measure_epe(given: Measurement) -> None:
    given.add("epe", "EPE px", mean_distance, given.pairs.distances, given.pairs.labelled)
    given.basis["epe"] = _describe_found(given.pairs.distances, given.pairs.labelled)


def _measure_nme(given: Measurement) -> None:
    relative, rows = given.relative(given.length)
    labelled = given.pairs.labelled[rows]
    given.add("nme", f"NME ({reference_name(given.length)})", mean_distance, relative, labelled)
    given.basis["nme"] = f"{_describe_found(relative, labelled)}; divided by the length {given.length!r}"


def _describe_found(distances: np.ndarray, labelled: np.ndarray) -> str:
    found, total = int((labelled & np.isfinite(distances)).sum()), int(labelled.sum())
    missing = "" if found == total else f" of {total}; the others are of instances without a prediction"
    return f"{counted(found, 'keypoint')}{missing}"


def _has_oks(truth: GroundTruth, rules: EvaluationRules) -> bool:
    """Tell whether OKS applies, and the dataset has no other protocol."""
    return bool(truth.skeleton.sigmas) and not {"wholebody", "pckh"} & set(rules.metrics)


def _is_crowded(truth: GroundTruth) -> bool:
    return any(image.crowd_index is not None for image in truth.images.values())


def _suits_pck(truth: GroundTruth, rules: EvaluationRules) -> bool:
    return "wholebody" not in rules.metrics and (has_torso(truth.skeleton) or not _has_oks(truth, rules))


METRICS: dict[str, Metric] = {
    "coco": Metric(
        _measure_coco,
        lambda truth, rules: _has_oks(truth, rules) and not _is_crowded(truth),
        has_sigmas=True,
    ),
    "coco-keypoints": Metric(_measure_by_keypoint, has_sigmas=True),
    "crowdpose": Metric(
        _measure_crowdpose,
        lambda truth, rules: _has_oks(truth, rules) and _is_crowded(truth),
        has_sigmas=True,
    ),
    "wholebody": Metric(
        _measure_wholebody, lambda truth, rules: "wholebody" in rules.metrics, has_sigmas=True
    ),
    "pckh": Metric(_measure_pckh, lambda truth, rules: has_head_boxes(truth.instances), length="head"),
    "pck": Metric(_measure_pck, _suits_pck, length=""),
    "auc": Metric(_measure_auc),
    "epe": Metric(_measure_epe),
    "nme": Metric(_measure_nme, length=""),
}
"""The metrics by name: COCO's ten, AP by keypoint, CrowdPose's, COCO-WholeBody's, and metrics of distances."""


def fitting_metrics(truth: GroundTruth, rules: EvaluationRules) -> tuple[str, ...]:
    """Choose the metrics that suit a file.

    Args:
        truth: The content of the file.
        rules: Those of the dataset whose keypoints the file has.
    """
    return tuple(name for name, metric in METRICS.items() if metric.suits(truth, rules))
