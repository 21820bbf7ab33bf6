"""The options of `vitpose predict`, grouped as in its help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UnknownNameError
from ..files.registry import DEFAULT_DETECTOR, DEFAULT_MODEL
from .options import MODEL_PANEL, FlipTest, Model, Skeleton, given_settings

_INPUT, _DETECTION, _OUTPUT, _DRAWING, _VIDEO = "Input", "Detection", "Output", "Drawing", "Videos"
_DRAWN = ("boxes", "scores", "ids", "names")
_TABLE = "Tables of many images (--out NAME.parquet)"


@dataclass(frozen=True)
class InputOptions:
    """How images are read."""

    rate: Annotated[
        float | None,
        typer.Option(
            metavar="FPS",
            help="Read each directory or glob of images as one video with this frame rate.",
            rich_help_panel=_INPUT,
        ),
    ] = None
    max_pixels: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default="200 million",
            help="Maximum number of pixels of an image; larger ones fail.",
            rich_help_panel=_INPUT,
        ),
    ] = None


@dataclass(frozen=True)
class ModelOptions:
    """The model, and how it is used."""

    model: Model = DEFAULT_MODEL
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            show_default="the model's first, COCO",
            help="Dataset of a ViTPose++ model (coco, aic, mpii, ap10k, apt36k, coco-wholebody), by name or number: "
            "selects expert, head, skeleton and crops. Several, separated by commas, predict people and animals in "
            "one run.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None
    skeleton: Skeleton = None
    flip_test: FlipTest = False


@dataclass(frozen=True)
class DetectionOptions:
    """Which boxes poses are estimated in, and which of them are kept."""

    detector: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Detector: a short name (person, rtdetr, rtmdet-nano; see 'vitpose models'), rtdetr:NAME (hub "
            "repository or directory), onnx:FILE (YOLOX, RTMDet), boxes:FILE, or whole-image (one person in each "
            "image).",
            rich_help_panel=_DETECTION,
        ),
    ] = DEFAULT_DETECTOR
    boxes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Boxes to use instead of a detector: COCO's detections or annotations.",
            rich_help_panel=_DETECTION,
        ),
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            show_default="dataset",
            help="Classes to detect: names of the detector's classes, separated by commas; dataset: those of the "
            "model's dataset, usually person; all: every class.",
            rich_help_panel=_DETECTION,
        ),
    ] = None
    min_score: Annotated[
        float | None,
        typer.Option(
            metavar="SCORE",
            min=0,
            max=1,
            show_default="0.3; 0 for boxes from a file",
            help="Drop boxes with a lower detector score before poses are estimated. For the scores of keypoints, see "
            "--threshold.",
            rich_help_panel=_DETECTION,
        ),
    ] = None
    oks_nms: Annotated[
        float | None,
        typer.Option(
            metavar="OKS",
            min=0,
            max=1,
            show_default="0.9; 1 for boxes from a file",
            help="Of two poses of an image with a higher OKS (similarity), keep the better; 1 keeps all.",
            rich_help_panel=_DETECTION,
        ),
    ] = None


@dataclass(frozen=True)
class OutputOptions:
    """What is written, and where."""

    out: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Output directory, which searches for sources skip. For one image or video also a file: the drawn "
            "image (x.jpg, x.png, ...) or video (x.mp4). NAME.parquet: a directory with a table of the instances in "
            "all images; the same command resumes an interrupted run.",
            rich_help_panel=_OUTPUT,
        ),
    ] = "predictions"
    save: Annotated[
        str | None,
        typer.Option(
            metavar="KINDS",
            show_default="images,json for images; video,jsonl for videos",
            help="Kinds of output, separated by commas. Images: images (drawn poses), json (poses.json), coco "
            "(coco.json and coco_images.json), csv (poses.csv). Videos: video (drawn poses, MP4), jsonl, csv, "
            "parquet, coco, posetrack, dlc and dlc-h5 (DeepLabCut).",
            rich_help_panel=_OUTPUT,
        ),
    ] = None


@dataclass(frozen=True)
class DrawingOptions:
    """How poses are drawn on images and videos."""

    threshold: Annotated[
        float,
        typer.Option(
            metavar="SCORE",
            min=0,
            max=1,
            help="Draw only keypoints with at least this score. Data files contain all keypoints.",
            rich_help_panel=_DRAWING,
        ),
    ] = 0.3
    colours: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Colours: skeleton (by keypoint and edge), instance (one for each instance), or one for all, such as "
            "'#ff8800'.",
            rich_help_panel=_DRAWING,
        ),
    ] = "skeleton"
    thickness: Annotated[
        float | None,
        typer.Option(
            metavar="PX",
            show_default="by the sizes of image and instance",
            help="Width of edges.",
            rich_help_panel=_DRAWING,
        ),
    ] = None
    radius: Annotated[
        float | None,
        typer.Option(
            metavar="PX",
            show_default="the width of edges",
            help="Radius of keypoints.",
            rich_help_panel=_DRAWING,
        ),
    ] = None
    draw: Annotated[
        str,
        typer.Option(
            metavar="KINDS",
            help="What is drawn besides keypoints and edges, separated by commas: boxes, scores (box score x mean "
            "keypoint score), ids (track IDs), names (of keypoints); none.",
            rich_help_panel=_DRAWING,
        ),
    ] = "boxes,scores,ids"
    opacity_by_score: Annotated[
        bool,
        typer.Option(
            "--opacity-by-score",
            help="Draw keypoints and edges with low scores fainter.",
            rich_help_panel=_DRAWING,
        ),
    ] = False

    def read(self) -> dict[str, Any]:
        """Return the keyword arguments of `vitpose.draw`.

        Raises:
            InputError: A number is out of range.
            UnknownNameError: A kind or the choice of colours is unknown.
        """
        import numpy as np

        import vitpose

        kinds = [kind.strip() for kind in self.draw.split(",") if kind.strip() not in ("", "none")]
        for kind in kinds:
            if kind not in _DRAWN:
                raise UnknownNameError(
                    "kind of drawing", kind, [*_DRAWN, "none"], "Separate several with commas."
                )
        options = given_settings(self) | {kind: kind in kinds for kind in _DRAWN}
        del options["draw"]
        nothing = vitpose.Poses.empty(vitpose.Skeleton.load("coco"))
        vitpose.draw(np.zeros((1, 1, 3), np.uint8), nothing, **options)  # checks the options
        return options


@dataclass(frozen=True)
class VideoOptions:
    """How videos are read and tracked."""

    detect_every: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Run the detector every N-th frame; boxes in between are propagated from the poses.",
            rich_help_panel=_VIDEO,
        ),
    ] = 1
    track: Annotated[bool, typer.Option(help="Assign track IDs to instances.", rich_help_panel=_VIDEO)] = True
    smooth: Annotated[
        bool, typer.Option("--smooth", help="Smooth the keypoints of each track.", rich_help_panel=_VIDEO)
    ] = False
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="Timeout of a live stream that sends no data.",
            rich_help_panel=_VIDEO,
        ),
    ] = 10
    reconnect: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Number of attempts to reconnect to a live stream.",
            rich_help_panel=_VIDEO,
        ),
    ] = 0


@dataclass(frozen=True)
class TableOptions:
    """How the work on very many images is divided."""

    workers: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Number of worker processes, each with a copy of the model; 0 runs in the main process.",
            rich_help_panel=_TABLE,
        ),
    ] = 1
    shard_size: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Number of images in a shard, the unit of work and of resuming.",
            rich_help_panel=_TABLE,
        ),
    ] = 256
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ray",
            help="Run on a Ray cluster: ray (the one at RAY_ADDRESS, or a local one), or ray:ADDRESS.",
            rich_help_panel=_TABLE,
        ),
    ] = None
