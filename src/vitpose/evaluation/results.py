"""Predictions: made by a pipeline for the images of an annotation file, or read from a file of COCO's results.

Owns what goes into the network and what of its poses stays. Knows no measure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ..data.annotation_file import ImageFinder, ImageRow, is_folder, is_number, read_id, read_json
from ..detectors.given import BoxRow, read_boxes
from ..detectors.protocol import Detections
from ..errors import InputError
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
    """One predicted pose, as COCO's results hold it.

    Attributes:
        image_id: Of the image.
        category_id: What it is.
        points: x, y (px) and score of each keypoint.
        score: Of the pose, which orders the results in COCO's measures.
        xywh: The box it was looked for in, or the extent of its keypoints: left, top, width, height, px.
        box_key: The key of its row that holds `xywh`: "bbox", whose area pycocotools then takes for the pose's, or
            "box_xywh"; empty where no key does. Without "bbox" pycocotools takes the extent of the keypoints; the
            original's rows have none, and so have ours.
    """

    image_id: Any
    category_id: Any
    points: Float[np.ndarray, "k 3"]
    score: float
    xywh: Quad
    box_key: str

    @classmethod
    def from_row(cls, row: Mapping[str, Any], points: Float[np.ndarray, "k 3"]) -> ResultRow:
        """Takes over an entry of COCO's results file, whose points are these."""
        boxes = {key: box for key in ("bbox", BOX_KEY) if (box := _box_of(row.get(key))) is not None}
        key = next(iter(boxes), "")
        score = float(row["score"])
        box = boxes.get(key) or _extent(points)
        return cls(row["image_id"], row.get("category_id", 1), points, score, box, key)

    def to_row(self) -> dict[str, Any]:
        """Returns the entry of COCO's results file."""
        return {
            "image_id": self.image_id,
            "category_id": self.category_id,
            "keypoints": self.points.ravel().tolist(),
            "score": self.score,
            **({self.box_key: list(self.xywh)} if self.box_key else {}),
        }


def _box_of(box: Any) -> Quad | None:
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_number, box)):
        return None
    left, top, width, height = map(float, box)
    return left, top, width, height


def _extent(points: Float[np.ndarray, "k 3"]) -> Quad:
    (left, top), (right, bottom) = points[:, :2].min(axis=0).tolist(), points[:, :2].max(axis=0).tolist()
    return left, top, right - left, bottom - top


def read_results(
    source: str | Path | Sequence[Any], annotations: GroundTruth, problems: Problems
) -> list[ResultRow]:
    """Reads COCO's keypoint results.

    Args:
        source: A file that holds a list of `{image_id, category_id, keypoints, score}`, or such a list.
        annotations: What they are predictions for. Rows of other images and categories are left out and named.
        problems: Takes what cannot be used.

    Raises:
        InputError: The file cannot be read or is no such list, the rows do not have the same number of points, or
            none can be used.
    """
    name = f"{source}" if isinstance(source, str | Path) else "the predictions"
    rows = _read_rows(Path(source)) if isinstance(source, str | Path) else list(source)
    results = [
        result for index, row in enumerate(rows) if (result := _result(index, row, annotations, problems))
    ]
    counts = sorted({len(result.points) for result in results})
    if len(counts) > 1:
        raise InputError(f"{name}: poses have {counts} keypoints; all must have the same number")
    if rows and not results:
        raise _none_fits(name, len(rows), annotations, problems)
    return results


def _none_fits(name: str, count: int, annotations: GroundTruth, problems: Problems) -> InputError:
    kinds = "; ".join(f"{kind}: {len(names)}" for kind, names in problems.names.items())
    return InputError(f"{name}: none of its {count} rows can be used with {annotations.path} ({kinds})")


def _read_rows(path: Path) -> list[Any]:
    content = read_json(path, "a file of COCO's results")
    if not isinstance(content, list):
        raise InputError(
            f"{path} is no list; COCO's keypoint results are a list of {{image_id, category_id, keypoints, score}}"
        )
    return content


def _result(index: int, row: Any, annotations: GroundTruth, problems: Problems) -> ResultRow | None:
    """Returns a row that can be used; names one that cannot."""
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
    elif (points := _points(row.get("keypoints"))) is None or not is_number(row.get("score")):
        problems.add("predictions without finite keypoints and score", name)
    else:
        return ResultRow.from_row(row, points)
    return None


def _points(values: Any) -> Float[np.ndarray, "k 3"] | None:
    try:
        points = np.array(values, np.float64).reshape(-1, 3)
    except (TypeError, ValueError, OverflowError):
        return None
    return points if len(points) and np.isfinite(points).all() else None


@dataclass(frozen=True)
class _Box:
    """A place to look for a pose."""

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
    """Finds the poses in the images of an annotation file.

    Args:
        pipeline: Its detector is not asked.
        annotations: Whose images, and whose people's boxes if there are no others.
        images: Folder of the images.
        boxes: COCO's detections, which are used as they stand: not cut at the image's borders.
        problems: Takes what cannot be used.
        flip_test: Average with the mirrored crops.
        min_score: Detections that score less are left out.
        max_oks: Of two poses that are more alike the worse is left out; 1 keeps all.
        advance: Called after each image with how many are done and how many there are.

    Raises:
        InputError: The folder is none, or the boxes cannot be read or fit nothing that is annotated.
    """
    folder = image_folder(images, annotations)
    places = _given(annotations) if boxes is None else _detected(boxes, annotations, min_score, problems)
    wanted = {id: own for id, own in _inside(places, annotations.images, problems).items() if own}
    finder = ImageFinder(annotations.images.values(), folder)
    paths = [finder.find(annotations.images[id]) for id in wanted]
    found: list[ResultRow] = []
    predictions = pipeline.each(paths, [_detections(own) for own in wanted.values()], flip_test=flip_test)
    for done, (id, prediction) in enumerate(zip(wanted, predictions, strict=True), start=1):
        found += _kept(pipeline, annotations.images[id], wanted[id], prediction, max_oks, problems)
        if advance is not None:
            advance(done, len(wanted))
    return found


def image_folder(images: str | Path, annotations: GroundTruth) -> Path:
    """Returns the folder of the images.

    Raises:
        InputError: There is none.
    """
    folder = Path(images).expanduser()
    if not is_folder(folder):
        raise InputError(
            f"there is no folder {folder}; give the folder of the images that {annotations.path} names"
        )
    return folder


def _given(annotations: GroundTruth) -> dict[Any, list[_Box]]:
    places: dict[Any, list[_Box]] = {}
    for person in annotations.people:
        if person.wanted:
            places.setdefault(person.image_id, []).append(_Box(person.xywh, 1.0, person.category_id))
    return places


def _detected(
    path: str | Path, annotations: GroundTruth, min_score: float, problems: Problems
) -> dict[Any, list[_Box]]:
    rows, faults = read_boxes(path)
    for fault in faults:
        problems.add("boxes that cannot be read", str(fault))
    fitting = [row for row in rows if _fits(row, annotations, problems)]
    if not fitting and (rows or faults):
        raise _none_fits(str(path), len(rows) + len(faults), annotations, problems)
    places: dict[Any, list[_Box]] = {}
    for row in fitting:
        if row.score >= min_score:
            left, top, width, height = row.xywh
            own = _Box((left, top, width, height), row.score, row.category_id)
            places.setdefault(row.image_id, []).append(own)
    return places


def _fits(row: BoxRow, annotations: GroundTruth, problems: Problems) -> bool:
    if row.image_id not in annotations.images:
        problems.add("boxes for an image that is not annotated", f"row {row.number}, image {row.image_id!r}")
        return False
    if row.category_id not in annotations.categories:
        problems.add("boxes of a category that is not annotated", f"row {row.number}, {row.label}")
        return False
    return True


def _inside(
    places: Mapping[Any, Sequence[_Box]], images: Mapping[Any, ImageRow], problems: Problems
) -> dict[Any, list[_Box]]:
    """Leaves out the boxes in which nothing can be found, and names them."""
    kept: dict[Any, list[_Box]] = {}
    for id, own in places.items():
        kept[id] = []
        for box in own:
            if kind := _flaw(box.xywh, images[id].size):
                problems.add(kind, f"{images[id]}, box {list(box.xywh)}")
            else:
                kept[id].append(box)
    return kept


def _flaw(xywh: Quad, size: Size | None) -> str:
    if min(xywh[2:]) <= 0:
        return "boxes without area"
    return "boxes wholly outside their image" if are_outside(xyxy_from_xywh([xywh]), size).any() else ""


def _detections(places: Sequence[_Box]) -> Detections:
    boxes = xyxy_from_xywh(np.array([box.xywh for box in places], np.float32))
    scores = np.array([box.score for box in places], np.float32)
    return Detections(boxes, scores, ("",) * len(places))


def _kept(
    pipeline: Pipeline,
    image: ImageRow,
    places: Sequence[_Box],
    prediction: ImagePrediction,
    max_oks: float,
    problems: Problems,
) -> Iterator[ResultRow]:
    """Yields the results of one image, less those that repeat a better one."""
    poses, pixels = prediction.poses, prediction.image
    if not isinstance(poses, Poses) or pixels is None:
        problems.images[str(image)] = str(prediction.error)
        return
    if image.size not in (None, Size.of(pixels)):
        problems.add(
            "images of another size than the file says", f"{image}: {Size.of(pixels)}, not {image.size}"
        )
    kinds = [box.category_id for box in places]
    rows = range(len(poses)) if max_oks == 1 else sorted(_unrepeated(pipeline, poses, kinds, max_oks))
    for row, entry in enumerate(poses.to_coco(image.id)):
        if row in rows:
            points = np.array(entry["keypoints"]).reshape(-1, 3)
            yield ResultRow.from_row(entry | {"category_id": kinds[row]}, points)


def _unrepeated(pipeline: Pipeline, poses: Poses, kinds: Sequence[Any], max_oks: float) -> Iterable[int]:
    if not poses.skeleton.sigmas:
        raise InputError(
            f"the skeleton {poses.skeleton.name!r} has no sigmas, so poses that repeat each other cannot be told; "
            "add [sigmas] to its .toml file, or keep all with --oks-nms 1, or max_oks=1"
        )
    # The area of the crop stands for the person's, as in the original's evaluation.
    areas = pipeline.estimator.processor.warp_boxes(poses.boxes).extents.prod(axis=1)
    sigmas, xy = np.array(poses.skeleton.sigmas), poses.xy.astype(np.float64)
    for kind in set(kinds):
        own = np.array([row for row, other in enumerate(kinds) if other == kind])
        yield from own[
            suppress_repeated(xy[own], poses.pose_scores[own], areas[own], sigmas, max_oks)
        ].tolist()
