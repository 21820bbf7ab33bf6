"""`vitpose predict`: options; the work is in `job` and `table_job`, which are imported on use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..files.registry import DEFAULT_DETECTOR, DEFAULT_MODEL
from .command import with_options
from .options import (
    MODEL_PANEL,
    FlipTest,
    Model,
    RuntimeOptions,
    Skeleton,
    given_settings,
    read_dataset,
    refuse_given,
)

_INPUT, _DETECTION, _OUTPUT, _VIDEO = "Input", "Detection", "Output", "Videos"
_TABLE = "Tables of many images (--out NAME.parquet)"


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
            help="Detector: a short name (rtdetr, rtmdet-nano, yolox-nano; see 'vitpose models'), rtdetr:NAME (hub "
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
            help="Drop boxes with a lower score of the detector, before poses are estimated. Scores of keypoints have "
            "no effect here; see --threshold.",
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
    threshold: Annotated[
        float,
        typer.Option(
            metavar="SCORE",
            min=0,
            max=1,
            help="Draw only keypoints with at least this score. Data files contain all keypoints.",
            rich_help_panel=_OUTPUT,
        ),
    ] = 0.3


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


@with_options
def predict(
    context: Any,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            show_default=False,
            help="Images and videos: files, directories (searched recursively), globs such as 'photos/**/*.jpg', "
            "http(s) URLs, webcam, webcam:1, rtsp:// URLs. After --, names may start with a dash.",
        ),
    ],
    model: ModelOptions,
    runtime: RuntimeOptions,
    detection: DetectionOptions,
    output: OutputOptions,
    video: VideoOptions,
    table: TableOptions,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="FPS",
            help="Read each directory or glob of images as one video with this frame rate.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default="200 million",
            help="Maximum number of pixels of an image; larger ones fail.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
) -> None:
    """Predict poses in images and videos, draw them, and write them to files.

    Drawn images keep their names and their paths relative to the common directory of all sources. Of two with the same
    name, the second gets a number.

    An image that fails does not stop the run: failures are listed with their reasons at the end, and the exit code is
    1.

    Raises:
        Exit: Always, with the exit code.
        VitPoseError: An option is invalid, the model cannot be loaded, or files cannot be written.
    """
    loading = _read_loading(context, model, runtime, detection)
    running: dict[str, Any] = {"flip_test": model.flip_test}
    if detection.oks_nms is not None:
        running["max_oks"] = detection.oks_nms
    limits: dict[str, Any] = {} if max_pixels is None else {"max_pixels": max_pixels}
    if output.out.rstrip("/").endswith(".parquet"):
        refuse_given(context, VideoOptions, "with --out NAME.parquet; omit it")
        refuse_given(context, "rate", "with --out NAME.parquet; omit it")
        for name in ("save", "threshold"):
            reason = f"with --out {output.out}, which is a table only; to draw as well, run again with --out DIRECTORY"
            refuse_given(context, name, reason)
        from .table_job import TableJob

        options = {"loading": loading, "running": running | limits, **given_settings(table)}
        raise typer.Exit(TableJob(output.out, options).run(sources))
    refuse_given(context, TableOptions, f"with --out {output.out}; give --out NAME.parquet, or omit it")
    streaming = running | {
        "detect_every": video.detect_every,
        "track": video.track,
        "smooth": video.smooth,
        "rate": rate,
        "timeout_s": video.timeout,
        "reconnect": video.reconnect,
    }
    raise typer.Exit(_run_job(context, sources, output, loading, running | limits, streaming))


def _run_job(
    context: Any,
    arguments: list[str],
    output: OutputOptions,
    loading: dict[str, Any],
    running: dict[str, Any],
    streaming: dict[str, Any],
) -> int:
    from .job import Job
    from .sources import find_sources
    from .target import Kinds, Target, refuse_unwritable

    target = Target.read(output.out)
    refuse_unwritable(target.directory)
    sources = find_sources(arguments, target.directory, as_sequences=streaming["rate"] is not None)
    if sources.images and not sources.videos:
        refuse_given(context, VideoOptions, "for images; omit it")
    if sources.videos and not sources.images:
        refuse_given(context, "max_pixels", "for videos; omit it")
    target.check(sources.images, sources.videos)
    kinds = Kinds.choose(output.save, sources.images, sources.videos, drawn_only=target.file is not None)
    return Job(sources, target, kinds, output.threshold, loading, running, streaming).run()


def _read_loading(
    context: Any, model: ModelOptions, runtime: RuntimeOptions, detection: DetectionOptions
) -> dict[str, Any]:
    """Return the arguments of `vitpose.load`.

    Raises:
        InputError: Both a detector and a file of boxes are given.
    """
    if detection.boxes is not None:
        advice = f"with --boxes {detection.boxes}, whose boxes are used; give one of the two"
        refuse_given(context, "detector", advice)
    return {
        "model": model.model,
        "detector": detection.detector if detection.boxes is None else detection.boxes,
        "dataset": _read_datasets(model.dataset),
        "skeleton": model.skeleton,
        "labels": _read_labels(detection.labels),
        "min_score": detection.min_score,
        **given_settings(runtime),
    }


def _read_labels(value: str | None) -> Any:
    """Return `load`'s labels: None for the default, "all", "dataset", or a list of names."""
    if value in (None, "all", "dataset"):
        return value
    return [label.strip() for label in value.split(",")]


def _read_datasets(value: str | None) -> Any:
    """Return a dataset's name or number, or a list of them if there are commas: people and animals in one run."""
    if value is None or "," not in value:
        return read_dataset(value)
    return [read_dataset(name.strip()) for name in value.split(",")]
