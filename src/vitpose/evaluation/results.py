"""Predictions: made by a pipeline for the images of an annotation file, or read from a file of COCO's results.

Owns the choice of boxes to predict in and of predicted poses to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ..data.annotation_file import ImageFinder, ImageRow, is_number, read_id, read_json
from ..detectors.given import BoxRow, read_boxes
from ..detectors.protocol import Detections
from ..errors import InputError, counted
from ..files.paths import user_path
from ..geometry.boxes import Size, are_outside, xyxy_from_xywh
from ..inference.pipeline import Pipeline
from ..inference.pipeline import Prediction as ImagePrediction
from ..keypoints.similarity import suppress_repeated
from ..results.poses import BOX_KEY, Poses
from .ground_truth import GroundTruth
from .problems import Problems

Quad = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class ResultRow:
    """One predicted pose, a row of COCO's results.

    Attributes:
        image_id: ID of the image.
        category_id: ID of the category.
        keypoints: x, y (px) and score of each keypoint.
        score: Score of the pose, by which COCO's metrics rank predictions.
        xywh: The box it was predicted in, or the extent of its keypoints: left, top, width, height, px.
        box_key: The key of `xywh` in the row, "bbox" or "box_xywh"; empty if the row has no box. The area of a pose
            is that of "bbox" in pycocotools, and otherwise the extent of the keypoints. The original's rows have no
            "bbox", and neither have those of `vitpose`.
    """

    image_id: Any
    category_id: Any
    keypoints: Float[np.ndarray, "k 3"]
    score: float
    xywh: Quad
    box_key: str

    @classmethod
    def from_row(cls, row: Mapping[str, Any], keypoints: Float[np.ndarray, "k 3"]) -> ResultRow:
        """Convert a row of COCO's results, with its keypoints as an array."""
        boxes = {key: box for key in ("bbox", BOX_KEY) if (box := _box_of(row.get(key))) is not None}
        key = next(iter(boxes), "")
        score = float(row["score"])
        box = boxes.get(key) or _extent(keypoints)
        return cls(row["image_id"], row.get("category_id", 1), keypoints, score, box, key)

    def to_row(self) -> dict[str, Any]:
        """Return the row of COCO's results."""
        return {
            "image_id": self.image_id,
            "category_id": self.category_id,
            "keypoints": self.keypoints.ravel().tolist(),
            "score": self.score,
            **({self.box_key: list(self.xywh)} if self.box_key else {}),
        }


def _box_of(box: Any) -> Quad | None:
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_number, box)):
        return None
    left, top, width, height = map(float, box)
    return left, top, width, height


def _extent(keypoints: Float[np.ndarray, "k 3"]) -> Quad:
    xy = keypoints[:, :2]
    (left, top), (right, bottom) = xy.min(axis=0).tolist(), xy.max(axis=0).tolist()
    return left, top, right - left, bottom - top


def read_results(
    source: str | Path | Sequence[Any], annotations: GroundTruth, problems: Problems
) -> list[ResultRow]:
    """Read COCO's keypoint results.

    Args:
        source: A file with a list of `{image_id, category_id, keypoints, score}`, or such a list.
        annotations: The ground truth. Rows of other images and categories are left out and added to the problems.
        problems: Receives the rows that cannot be used.

    Raises:
        InputError: The file cannot be read or is not such a list, the rows have different numbers of keypoints, or
            none can be used.
    """
    name = f"{source}" if isinstance(source, str | Path) else "the predictions"
    rows = _read_rows(user_path(source)) if isinstance(source, str | Path) else list(source)
    within = [(index, row) for index, row in enumerate(rows) if not _is_beyond_limit(row, annotations)]
    results = [result for index, row in within if (result := _result(index, row, annotations, problems))]
    counts = sorted({len(result.keypoints) for result in results})
    if len(counts) > 1:
        raise InputError(f"{name}: poses have {counts} keypoints; give poses of the same number of keypoints")
    if within and not results:
        raise _no_usable_rows(name, len(within), annotations, problems)
    return results


def _no_usable_rows(name: str, count: int, annotations: GroundTruth, problems: Problems) -> InputError:
    kinds = "; ".join(f"{kind}: {len(names)}" for kind, names in problems.names.items())
    return InputError(
        f"{name}: {counted(count, 'row')}, none of which can be used with {annotations.path} ({kinds}); give two files "
        "of the same images and categories"
    )


def _read_rows(path: Path) -> list[Any]:
    content = read_json(path, "a file of COCO's results")
    if not isinstance(content, list):
        raise InputError(
            f"{path} is not a list; give COCO's keypoint results, a list of "
            "{image_id, category_id, keypoints, score}"
        )
    return content


def _is_beyond_limit(row: Any, annotations: GroundTruth) -> bool:
    image_id = read_id(row.get("image_id")) if isinstance(row, Mapping) else None
    return image_id is not None and image_id in annotations.beyond_limit


def _result(index: int, row: Any, annotations: GroundTruth, problems: Problems) -> ResultRow | None:
    """Convert a row; None, with an entry in the problems, if it cannot be used."""
    name = f"row {index}"
    image_id = read_id(row.get("image_id")) if isinstance(row, Mapping) else None
    if image_id is None:
        problems.add("predictions without an image_id", name)
    elif image_id not in annotations.images:
        problems.add("predictions for an image that is not annotated", f"{name}, image {image_id!r}")
    elif read_id(row.get("category_id", 1)) not in annotations.categories:
        problems.add(
            "predictions of a category that is not annotated",
            f"{name}, category {row.get('category_id', 1)!r}",
        )
    elif (keypoints := _read_keypoints(row.get("keypoints"))) is None or not is_number(row.get("score")):
        problems.add("predictions without finite keypoints and score", name)
    else:
        return ResultRow.from_row(row, keypoints)
    return None


def _read_keypoints(values: Any) -> Float[np.ndarray, "k 3"] | None:
    try:
        keypoints = np.array(values, np.float64).reshape(-1, 3)
    except (TypeError, ValueError, OverflowError):
        return None
    return keypoints if len(keypoints) and np.isfinite(keypoints).all() else None


@dataclass(frozen=True)
class _Box:
    """A box to predict a pose in."""

    xywh: Quad
    score: float
    category_id: Any


def predict(
    pipeline: Pipeline,
    annotations: GroundTruth,
    images: str | Path,
    boxes: str | Path | None,
    problems: Problems,
    *,
    flip_test: bool = False,
    min_score: float = 0.0,
    max_oks: float = 1.0,
    advance: Callable[[int, int], None] | None = None,
) -> list[ResultRow]:
    """Predict the poses in the images of an annotation file.

    Args:
        pipeline: The model; its detector is not run.
        annotations: The ground truth: the images, and the boxes of its instances if `boxes` is None.
        images: Directory of the images.
        boxes: COCO's detections, used unchanged: not clipped to the image.
        problems: Receives the input that cannot be used.
        flip_test: Average with the mirrored crops.
        min_score: Detections with a lower score are left out.
        max_oks: Of two poses with a higher OKS the worse is left out; 1 keeps all.
        advance: Called after each image with the number of finished images and their total number.

    Raises:
        InputError: There is no such directory; the boxes cannot be read or fit no annotated image and category; or
            poses are compared by OKS and the model's skeleton has no sigmas.
    """
    directory = image_directory(images, annotations)
    if boxes is None:
        candidates = _annotated_boxes(annotations)
    else:
        candidates = _detected_boxes(boxes, annotations, min_score, problems)
    usable = _drop_unusable(candidates, annotations.images, problems)
    finder = ImageFinder(annotations.images.values(), directory)
    paths = [finder.find(annotations.images[id]) for id in usable]
    results: list[ResultRow] = []
    predictions = pipeline.each(paths, [_detections(one) for one in usable.values()], flip_test=flip_test)
    for done, (id, prediction) in enumerate(zip(usable, predictions, strict=True), start=1):
        results += _rows(pipeline, annotations.images[id], usable[id], prediction, max_oks, problems)
        if advance is not None:
            advance(done, len(usable))
    return results


def image_directory(images: str | Path, annotations: GroundTruth) -> Path:
    """Return the directory of the images.

    Raises:
        InputError: It does not exist.
    """
    directory = user_path(images)
    if not directory.is_dir():
        raise InputError(
            f"there is no directory {directory}; give the directory of the images that {annotations.path} lists"
        )
    return directory


def _annotated_boxes(annotations: GroundTruth) -> dict[Any, list[_Box]]:
    boxes: dict[Any, list[_Box]] = {}
    for instance in annotations.instances:
        if instance.usable:
            boxes.setdefault(instance.image_id, []).append(_Box(instance.xywh, 1.0, instance.category_id))
    return boxes


def _detected_boxes(
    path: str | Path, annotations: GroundTruth, min_score: float, problems: Problems
) -> dict[Any, list[_Box]]:
    rows, faults = read_boxes(path)
    rows = [row for row in rows if row.image_id not in annotations.beyond_limit]
    for fault in faults:
        problems.add("boxes that cannot be read", str(fault))
    fitting = [row for row in rows if _fits(row, annotations, problems)]
    if not fitting and (rows or faults):
        raise _no_usable_rows(str(path), len(rows) + len(faults), annotations, problems)
    boxes: dict[Any, list[_Box]] = {}
    for row in fitting:
        if row.score >= min_score:
            left, top, width, height = row.xywh
            box = _Box((left, top, width, height), row.score, row.category_id)
            boxes.setdefault(row.image_id, []).append(box)
    return boxes


def _fits(row: BoxRow, annotations: GroundTruth, problems: Problems) -> bool:
    if row.image_id not in annotations.images:
        problems.add("boxes for an image that is not annotated", f"row {row.number}, image {row.image_id!r}")
        return False
    if row.category_id not in annotations.categories:
        problems.add("boxes of a category that is not annotated", f"row {row.number}, {row.label}")
        return False
    return True


def _drop_unusable(
    boxes: Mapping[Any, Sequence[_Box]], images: Mapping[Any, ImageRow], problems: Problems
) -> dict[Any, list[_Box]]:
    """Return the boxes without those that no pose can be predicted in, and only images that have boxes left."""
    kept: dict[Any, list[_Box]] = {}
    for id, candidates in boxes.items():
        for box in candidates:
            if problem := _box_problem(box.xywh, images[id].size):
                problems.add(problem, f"{images[id]}, box {list(box.xywh)}")
            else:
                kept.setdefault(id, []).append(box)
    return kept


def _box_problem(xywh: Quad, size: Size | None) -> str:
    if min(xywh[2:]) <= 0:
        return "boxes without area"
    return "boxes entirely outside their image" if are_outside(xyxy_from_xywh([xywh]), size).any() else ""


def _detections(boxes: Sequence[_Box]) -> Detections:
    xyxy = xyxy_from_xywh(np.array([box.xywh for box in boxes], np.float32))
    scores = np.array([box.score for box in boxes], np.float32)
    return Detections(xyxy, scores, ("",) * len(boxes))


def _rows(
    pipeline: Pipeline,
    image: ImageRow,
    boxes: Sequence[_Box],
    prediction: ImagePrediction,
    max_oks: float,
    problems: Problems,
) -> Iterator[ResultRow]:
    """Yield the results of one image, without poses that repeat a better one."""
    poses, pixels = prediction.poses, prediction.image
    if not isinstance(poses, Poses) or pixels is None:
        problems.images[str(image)] = str(prediction.error)
        return
    if image.size not in (None, Size.of(pixels)):
        problems.add(
            "images of another size than in the file", f"{image}: {Size.of(pixels)}, not {image.size}"
        )
    categories = [box.category_id for box in boxes]
    kept = range(len(poses)) if max_oks == 1 else sorted(_unrepeated(pipeline, poses, categories, max_oks))
    for index, row in enumerate(poses.to_coco(image.id)):
        if index in kept:
            keypoints = np.array(row["keypoints"]).reshape(-1, 3)
            yield ResultRow.from_row(row | {"category_id": categories[index]}, keypoints)


def _unrepeated(pipeline: Pipeline, poses: Poses, categories: Sequence[Any], max_oks: float) -> Iterable[int]:
    """Yield the indices of the poses that are kept, category by category."""
    if not poses.skeleton.sigmas:
        raise InputError(
            f"the skeleton {poses.skeleton.name!r} has no sigmas, which OKS requires; add [sigmas] to its .toml file, "
            "or keep all poses with --oks-nms 1 (max_oks=1)"
        )
    # The area of the crop is used for the instance's, as in the original's evaluation.
    areas = pipeline.estimator.spec.warp_boxes(poses.boxes).extents.prod(axis=1)
    sigmas, xy = np.array(poses.skeleton.sigmas), poses.xy.astype(np.float64)
    for category in set(categories):
        rows = np.array([row for row, other in enumerate(categories) if other == category])
        kept = suppress_repeated(xy[rows], poses.pose_scores[rows], areas[rows], sigmas, max_oks)
        yield from rows[kept].tolist()
