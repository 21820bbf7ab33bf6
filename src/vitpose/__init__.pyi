from . import samples
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
from .exporters.export import export
from .files.registry import list_detectors, list_models
from .geometry.boxes import Size, xywh_from_xyxy, xyxy_from_cxcywh, xyxy_from_xywh
from .images import find_images, read_image, save_image
from .inference.loading import load
from .inference.pipeline import Pipeline, Prediction
from .keypoints.dataset_spec import DatasetSpec
from .keypoints.model_spec import ModelSpec
from .keypoints.skeleton import Skeleton
from .model.backbone import VitPoseBackbone
from .model.config import VitPoseBackboneConfig, VitPoseConfig
from .model.outputs import VitPoseEstimatorOutput
from .model.pose import VitPoseForPoseEstimation
from .model.quantisation import TorchAoConfig
from .processing.image_processor import VitPoseImageProcessor
from .results.drawing import draw
from .results.heatmap_overlay import draw_heatmaps
from .results.mixed_poses import MixedPoses
from .results.poses import Poses
from .training.loop import train

__version__: str

__all__ = [
    "BoxError", "CheckpointError", "DatasetSpec", "Detections", "ImageError", "InputError",
    "MissingDependencyError", "MixedPoses", "ModelSpec", "OutputError", "Pipeline", "Poses", "Prediction",
    "Size", "Skeleton", "SkeletonError", "TorchAoConfig", "UnknownNameError", "VideoError", "VitPoseBackbone",
    "VitPoseBackboneConfig", "VitPoseConfig", "VitPoseError", "VitPoseEstimatorOutput",
    "VitPoseForPoseEstimation", "VitPoseImageProcessor", "WorkerError", "draw", "draw_heatmaps",
    "evaluate_model", "evaluate_predictions", "export", "find_images", "list_detectors", "list_models", "load",
    "read_image", "samples", "save_image", "train", "xywh_from_xyxy", "xyxy_from_cxcywh", "xyxy_from_xywh",
]  # fmt: skip
