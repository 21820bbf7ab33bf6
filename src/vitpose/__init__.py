"""ViTPose and ViTPose++: the keypoints of people and animals with plain vision transformers.

    import vitpose

    pipe = vitpose.load("vitpose-tiny", detector="whole-image")
    poses = pipe("person.jpg")
    vitpose.draw(vitpose.read_image("person.jpg"), poses)

Names are loaded when they are first used: importing vitpose imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .detectors.protocol import Detections
    from .errors import (
        BoxError,
        CheckpointError,
        ImageError,
        InputError,
        MissingDependencyError,
        OutputError,
        SkeletonError,
        UnknownNameError,
        VideoError,
        VitPoseError,
        WorkerError,
    )
    from .evaluation import evaluate_model, evaluate_predictions
    from .files.hub import list_models
    from .geometry.boxes import Size, xywh_from_xyxy, xyxy_from_cxcywh, xyxy_from_xywh
    from .images import find_images, read_image, save_image
    from .inference.loading import export, load
    from .inference.pipeline import Pipeline, Prediction
    from .keypoints.dataset_spec import DatasetSpec
    from .keypoints.skeleton import Skeleton
    from .model.backbone import VitPoseBackbone
    from .model.config import VitPoseBackboneConfig, VitPoseConfig
    from .model.outputs import VitPoseEstimatorOutput
    from .model.pose import VitPoseForPoseEstimation
    from .model.quantisation import TorchAoConfig
    from .processing.image_processor import VitPoseImageProcessor
    from .results.drawing import draw, draw_heatmaps
    from .results.mixed_poses import MixedPoses
    from .results.poses import Poses
    from .training.loop import train

__version__ = "0.1.0"

_HOMES = {
    "geometry.boxes": ("Size", "xywh_from_xyxy", "xyxy_from_cxcywh", "xyxy_from_xywh"),
    "keypoints.dataset_spec": ("DatasetSpec",),
    "detectors.protocol": ("Detections",),
    "results.drawing": ("draw", "draw_heatmaps"),
    "errors": (
        "BoxError", "CheckpointError", "ImageError", "InputError", "MissingDependencyError", "OutputError",
        "SkeletonError", "UnknownNameError", "VideoError", "VitPoseError",
        "WorkerError",
    ),
    "evaluation": ("evaluate_model", "evaluate_predictions"),
    "files.hub": ("list_models",),
    "images": ("find_images", "read_image", "save_image"),
    "inference.loading": ("export", "load"),
    "results.mixed_poses": ("MixedPoses",),
    "model.backbone": ("VitPoseBackbone",),
    "model.config": ("VitPoseBackboneConfig", "VitPoseConfig"),
    "model.outputs": ("VitPoseEstimatorOutput",),
    "model.pose": ("VitPoseForPoseEstimation",),
    "model.quantisation": ("TorchAoConfig",),
    "inference.pipeline": ("Pipeline", "Prediction"),
    "results.poses": ("Poses",),
    "processing.image_processor": ("VitPoseImageProcessor",),
    "keypoints.skeleton": ("Skeleton",),
    "training.loop": ("train",),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BoxError", "CheckpointError", "DatasetSpec", "Detections", "ImageError", "InputError",
    "MissingDependencyError", "MixedPoses", "OutputError", "Pipeline", "Poses", "Prediction", "Size",
    "Skeleton", "SkeletonError", "TorchAoConfig", "UnknownNameError", "VideoError", "VitPoseBackbone",
    "VitPoseBackboneConfig", "VitPoseConfig", "VitPoseError", "VitPoseEstimatorOutput",
    "VitPoseForPoseEstimation", "VitPoseImageProcessor", "WorkerError", "draw", "draw_heatmaps",
    "evaluate_model", "evaluate_predictions", "export", "find_images", "list_models", "load", "read_image",
    "save_image", "train", "xywh_from_xyxy", "xyxy_from_cxcywh", "xyxy_from_xywh",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'vitpose' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
