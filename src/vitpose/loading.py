"""From names to a pipeline: the only file that knows every engine and every detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .boxes import Size
from .conventions import Conventions
from .detect import load_detector
from .detect.labels import Labels
from .device import choose_device
from .errors import CheckpointError, InputError
from .estimator import Estimator, MixedEstimator
from .hub import DEFAULT_MODEL
from .pipeline import Pipeline
from .processing import PROCESSOR_FILE, VitPoseImageProcessor
from .skeleton import Skeleton

if TYPE_CHECKING:
    from .model.pose import VitPoseForPoseEstimation

OWN_LABELS = "own"
"""Of a detector's classes those that the data set is for."""

_PEOPLE = ("person",)


def load(
    model: str | Path = DEFAULT_MODEL,
    detector: Any = "rtdetr",
    *,
    dataset: str | int | Sequence[str | int] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    skeleton: str | Path | Skeleton | None = None,
    labels: Labels = OWN_LABELS,
    min_score: float | None = None,
    batch_size: int = 32,
    **hub: Any,
) -> Pipeline:
    """Puts a model and a detector together.

    Args:
        model: A short name (`vitpose models` lists them), a folder, a hub repository, or an original `.pth` file.
        detector: What finds the boxes: "rtdetr", "rtdetr:NAME", "onnx:FILE", "boxes:FILE" (COCO detections or
            annotations), "whole-picture" (one person a picture), an object with `detect`, or None if
            boxes are always given.
        dataset: Of a ViTPose++ model, whose expert, head, skeleton and conventions to take: a name ("ap10k") or
            number; the first, COCO, without it. Several, such as ["coco", "ap10k"], find people and animals in
            one call: each box goes to the first data set that has its class. Of a file with one head that
            does not say what it was trained on (an original `.pth`), the name says it.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto" (bfloat16 on a GPU that has it, else float32) or the name of a type.
        skeleton: Names and limbs of the keypoints, where the checkpoint's own are not wanted.
        labels: Classes of the detector to take, by COCO's names; "own" takes those of the data set ("person"
            where it names none), None all.
        min_score: Boxes that score less are dropped; the detector's own default without it.
        batch_size: At most this many crops at a time.
        **hub: revision, token, cache_dir, local_files_only, for the model.

    Raises:
        UnknownNameError: A name is not known.
        InputError: The model has no such data set, or options contradict each other.
        CheckpointError: Files are missing, damaged, or do not fit, or lack the data set's head.
    """
    from .engine.torch import TorchEngine, choose_dtype
    from .model.pose import VitPoseForPoseEstimation

    bones = None if skeleton is None else Skeleton.load(skeleton)
    place = choose_device(device)
    kind = choose_dtype(dtype, place)
    estimators = {}
    for part in _read_parts(model, dataset, hub):
        network = VitPoseForPoseEstimation.from_checkpoint(part, dtype=kind, device=place)
        processor = load_processor(model, network, **hub)
        own = _with_skeleton(network.config.heads[0], bones, model)
        engine = TorchEngine(network, *processor.scale_and_offset)
        estimators[own.name] = Estimator(engine, processor, own.skeleton, batch_size, own)
    if bones is not None and len(estimators) > 1:
        raise InputError(f"the skeleton {bones.name!r} was given for several data sets; leave it out")
    several = dataset is not None and not isinstance(dataset, str | int)
    estimator = MixedEstimator(estimators) if several else next(iter(estimators.values()))
    if labels == OWN_LABELS:
        found = [label for own in estimators.values() if own.conventions for label in own.conventions.classes]
        labels = tuple(dict.fromkeys(found)) or _PEOPLE
    # The detector last: it may be a download, and whatever is misspelt has been said by now.
    finder = (
        None
        if detector is None
        else load_detector(detector, device=device, labels=labels, min_score=min_score)
    )
    return Pipeline(finder, estimator)


def _read_parts(
    model: str | Path, dataset: str | int | Sequence[str | int] | None, hub: dict[str, Any]
) -> list[Any]:
    """Returns one dense checkpoint for each data set; they share the tensors that are the same."""
    from .model.checkpoint import read_checkpoint

    if isinstance(dataset, str | int):
        return [read_checkpoint(model, dataset=dataset, **hub)]
    whole = read_checkpoint(model, **hub)
    if dataset is not None:
        return [whole.for_dataset(own) for own in dataset]
    several = whole.config.num_experts > 1 or len(whole.config.datasets) > 1
    return [whole.for_dataset(0) if several else whole]


def _with_skeleton(own: Conventions, bones: Skeleton | None, model: str | Path) -> Conventions:
    if bones is not None and len(bones) != len(own.skeleton):
        raise CheckpointError(
            f"the skeleton {bones.name!r} has {len(bones)} keypoints, the model {str(model)!r} has "
            f"{len(own.skeleton)}; pass the skeleton the model was trained on"
        )
    return own if bones is None else replace(own, skeleton=bones)


def load_processor(model: str | Path, network: VitPoseForPoseEstimation, **hub: Any) -> VitPoseImageProcessor:
    """Returns the processor of a model; where there is none, that of its data set for the network's size.

    Original files have none, nor has a folder that only the network was saved to. Where the checkpoint declares its
    data sets, warp, decoding and flip shift are those of the network's.

    Args:
        model: As in `load`.
        network: The network that was loaded from it.
        **hub: As in `load`.

    Raises:
        CheckpointError: The file is missing or damaged, or contradicts the declared data set.
    """
    from .model.checkpoint import is_original
    from .model.config import VitPoseConfig

    declared = network.config.datasets
    folder = Path(model).expanduser()
    if is_original(model) or (folder.is_dir() and not (folder / PROCESSOR_FILE).is_file()):
        height, width = network.config.backbone_config.image_size
        processor = VitPoseImageProcessor(size=Size(width=width, height=height))
    else:
        processor = VitPoseImageProcessor.from_pretrained(model, **hub)
        first = VitPoseConfig.from_pretrained(model, **hub).datasets[:1]
        if first and processor != processor.with_conventions(first[0]):
            raise CheckpointError(
                f"{PROCESSOR_FILE} of {str(model)!r} has warp {processor.warp!r}, decode {processor.decode!r} and "
                f"shift_heatmap {processor.shift_heatmap}, and its data set {first[0].name!r} has {first[0].warp!r}, "
                f"{first[0].decode!r} and {first[0].shift_heatmap}; correct one of the two files"
            )
    return processor.with_conventions(declared[0]) if declared else processor
