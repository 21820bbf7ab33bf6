"""From names to a pipeline: the only file that knows every engine and every detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .boxes import Size
from .detect import load_detector
from .device import choose_device
from .errors import CheckpointError, InputError
from .estimator import Estimator
from .hub import DEFAULT_MODEL
from .pipeline import Pipeline
from .processing import PROCESSOR_FILE, VitPoseImageProcessor
from .skeleton import Skeleton

if TYPE_CHECKING:
    from .model.pose import VitPoseForPoseEstimation


def load(
    model: str | Path = DEFAULT_MODEL,
    detector: Any = "rtdetr",
    *,
    device: str = "auto",
    dtype: str = "auto",
    skeleton: str | Path | Skeleton | None = None,
    dataset_index: int = 0,
    labels: Sequence[str] | None = ("person",),
    min_score: float | None = None,
    batch_size: int = 32,
    compile: bool = False,
    **hub: Any,
) -> Pipeline:
    """Puts a model and a detector together.

    Args:
        model: A short name (`vitpose models` lists them), a folder, a hub repository, or an original `.pth` file.
        detector: What finds the boxes: "rtdetr", "rtdetr:NAME", "onnx:FILE", "boxes:FILE" (COCO detections or
            annotations), "whole-picture" (one person a picture), an object with `detect`, or None if
            boxes are always given.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto" (bfloat16 on a GPU that has it, and on a CPU that has it and is measured to be faster with it,
            else float32) or the name of a type. What was chosen is in the engine's description.
        skeleton: Names and limbs of the keypoints, where the checkpoint's own are not wanted.
        dataset_index: Which expert of a ViTPose++ model; 0 is COCO. The head stays the one in the file: the
            released files of the hub have COCO's alone, which gives noise behind another expert.
        labels: Classes of the detector to take, by COCO's names; None takes all.
        min_score: Boxes that score less are dropped; the detector's own default without it.
        batch_size: At most this many crops at a time.
        compile: Compile the network: the first batch of each size takes a minute, later ones are faster.
        **hub: revision, token, cache_dir, local_files_only, for the model.

    Raises:
        UnknownNameError: A name is not known.
        InputError: The model has no such expert, or no experts.
        CheckpointError: Files are missing, damaged, or do not fit.
    """
    from .engine.device import DeviceEngine
    from .engine.torch import TorchEngine, choose_dtype
    from .model.pose import VitPoseForPoseEstimation

    bones = None if skeleton is None else Skeleton.load(skeleton)
    place = choose_device(device)
    network = VitPoseForPoseEstimation.from_pretrained(
        model, dtype=choose_dtype(dtype, place), device=place, **hub
    )
    if getattr(network.config.backbone_config, "num_experts", 1) > 1:
        network = network.fold_expert(dataset_index)
    elif dataset_index:
        raise InputError(
            f"dataset_index {dataset_index} was given, but {str(model)!r} has no experts; leave it out"
        )
    processor = load_processor(model, network, **hub)
    bones = bones or network.config.skeleton
    if len(bones) != network.config.num_labels:
        raise CheckpointError(
            f"the skeleton {bones.name!r} has {len(bones)} keypoints, the model {str(model)!r} has "
            f"{network.config.num_labels}; pass the skeleton the model was trained on"
        )
    # The detector last: it may be a download, and whatever is misspelt has been said by now.
    finder = (
        None
        if detector is None
        else load_detector(detector, device=device, labels=labels, min_score=min_score)
    )
    engine = (TorchEngine if place.type == "cpu" else DeviceEngine)(
        network, *processor.scale_and_offset, compiled=compile
    )
    return Pipeline(finder, Estimator(engine, processor, bones, batch_size))


def load_processor(model: str | Path, network: VitPoseForPoseEstimation, **hub: Any) -> VitPoseImageProcessor:
    """Returns the processor of a model; where there is none, COCO's for the network's size.

    Original files have none, nor has a folder that only the network was saved to.

    Args:
        model: As in `load`.
        network: The network that was loaded from it.
        **hub: As in `load`.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    from .model.checkpoint import is_original

    folder = Path(model).expanduser()
    bare = is_original(model) or (folder.is_dir() and not (folder / PROCESSOR_FILE).is_file())
    if not bare:
        return VitPoseImageProcessor.from_pretrained(model, **hub)
    height, width = network.config.backbone_config.image_size
    return VitPoseImageProcessor(size=Size(width=width, height=height))
