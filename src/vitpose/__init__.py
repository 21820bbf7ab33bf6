"""ViTPose and ViTPose++: keypoint estimation for people and animals with plain vision transformers.

    import vitpose

    pipe = vitpose.load("vitpose-tiny", detector="whole-image")
    poses = pipe("person.jpg")
    vitpose.draw(vitpose.read_image("person.jpg"), poses)

Names are imported on first use, so `import vitpose` does not import torch.
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

_NAMES_BY_MODULE = {
    "detectors.protocol": ("Detections",),
    "errors": (
        "BoxError", "CheckpointError", "ImageError", "InputError", "MissingDependencyError", "OutputError",
        "SkeletonError", "UnknownNameError", "VideoError", "VitPoseError", "WorkerError",
    ),
    "evaluation": ("evaluate_model", "evaluate_predictions"),
    "files.hub": ("list_models",),
    "geometry.boxes": ("Size", "xywh_from_xyxy", "xyxy_from_cxcywh", "xyxy_from_xywh"),
    "images": ("find_images", "read_image", "save_image"),
    "inference.loading": ("export", "load"),
    "inference.pipeline": ("Pipeline", "Prediction"),
    "keypoints.dataset_spec": ("DatasetSpec",),
    "keypoints.skeleton": ("Skeleton",),
    "model.backbone": ("VitPoseBackbone",),
    "model.config": ("VitPoseBackboneConfig", "VitPoseConfig"),
    "model.outputs": ("VitPoseEstimatorOutput",),
    "model.pose": ("VitPoseForPoseEstimation",),
    "model.quantisation": ("TorchAoConfig",),
    "processing.image_processor": ("VitPoseImageProcessor",),
    "results.drawing": ("draw", "draw_heatmaps"),
    "results.mixed_poses": ("MixedPoses",),
    "results.poses": ("Poses",),
    "training.loop": ("train",),
}  # fmt: skip
_MODULES = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}

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
    if name not in _MODULES:
        raise AttributeError(f"module 'vitpose' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
