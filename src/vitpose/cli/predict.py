"""`vitpose predict`: options; the work is in `job`, `video_job` and `many_job`, which are imported on use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from ..files.registry import DEFAULT_DETECTOR, DEFAULT_MODEL
from .options import (
    MODEL_PANEL,
    BatchSize,
    Device,
    Dtype,
    Engine,
    FlipTest,
    Model,
    Trust,
    read_dataset,
)

_DETECTION, _OUTPUT, _VIDEO, _TABLE = "Detection", "Output", "Videos", "Large runs (--out NAME.parquet)"


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            show_default=False,
            help="Images: files, directories (searched recursively), globs such as 'photos/**/*.jpg', http(s) URLs. "
            "Or videos: files, webcam, webcam:1, rtsp:// URLs. After --, names may start with a dash.",
        ),
    ],
    model: Model = DEFAULT_MODEL,
    flip_test: FlipTest = False,
    skeleton: Annotated[
        str | None,
        typer.Option(
            show_default="the model's",
            help="Skeleton of the keypoints: a shipped name or a .toml file.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            show_default="the model's first, COCO",
            help="Dataset of a ViTPose++ model (coco, aic, mpii, ap10k, apt36k, coco-wholebody), by name or number: "
            "selects expert, head, skeleton and crops. Several, separated by commas, predict people and animals in one "
            "run.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    engine: Engine = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = 32,
    trust: Trust = False,
    detector: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            show_default=DEFAULT_DETECTOR,
            help="Detector: a short name (rtdetr, rtmdet-nano, yolox-nano; see 'vitpose models'), rtdetr:NAME (hub "
            "repository or directory), onnx:FILE (YOLOX, RTMDet), boxes:FILE, or whole-image (one person in each "
            "image).",
            rich_help_panel=_DETECTION,
        ),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File of boxes: COCO's detections or annotations. Short for --detector boxes:FILE.",
            rich_help_panel=_DETECTION,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            show_default="dataset",
            help="Classes to detect: names of the detector's classes, separated by commas; dataset: those of the "
            "model's dataset, usually person; all: every class.",
            rich_help_panel=_DETECTION,
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            show_default="the detector's",
            help="Leave out boxes with a lower score.",
            rich_help_panel=_DETECTION,
        ),
    ] = None,
    oks_nms: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            show_default="0.9; 1 with --boxes",
            help="Of two poses of an image with a higher OKS, keep the better; 1 keeps all.",
            rich_help_panel=_DETECTION,
        ),
    ] = None,
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Output directory; searches for images skip it. With the suffix .parquet: directory of one table of "
            "all results; the same command resumes an interrupted run.",
            rich_help_panel=_OUTPUT,
        ),
    ] = "predictions",
    save: Annotated[
        str | None,
        typer.Option(
            metavar="KINDS",
            show_default="images,json; for videos video,jsonl",
            help="Kinds of output, separated by commas. Images: images (drawn poses, labelled with pose scores: box "
            "score x mean keypoint score), json (poses.json), coco (coco.json and coco_images.json), csv (poses.csv). "
            "Videos: video (drawn poses, MP4), jsonl, csv, parquet, coco, posetrack, dlc and dlc-h5 (DeepLabCut).",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Draw only keypoints with at least this score. Data files contain all keypoints.",
            rich_help_panel=_OUTPUT,
        ),
    ] = 0.3,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            min=1, show_default="200 million", help="Maximum number of pixels of an image; larger ones fail."
        ),
    ] = None,
    detect_every: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Run the detector every N-th frame; boxes in between are propagated from the poses.",
            rich_help_panel=_VIDEO,
        ),
    ] = 1,
    track: Annotated[
        bool, typer.Option(help="Assign track IDs to instances.", rich_help_panel=_VIDEO)
    ] = True,
    smooth: Annotated[
        bool, typer.Option("--smooth", help="Smooth the keypoints of each track.", rich_help_panel=_VIDEO)
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="FPS",
            help="Frame rate, to read a directory or glob of images as one video.",
            rich_help_panel=_VIDEO,
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="Timeout of a live stream that sends no data.",
            rich_help_panel=_VIDEO,
        ),
    ] = 10,
    reconnect: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Number of attempts to reconnect to a live stream.",
            rich_help_panel=_VIDEO,
        ),
    ] = 0,
    workers: Annotated[
        int,
        typer.Option(
            min=0,
            help="Number of worker processes, each with a copy of the model; 0 runs in the main process.",
            rich_help_panel=_TABLE,
        ),
    ] = 1,
    shard_size: Annotated[
        int,
        typer.Option(
            min=1,
            help="Number of images in a shard, the unit of work and of resuming.",
            rich_help_panel=_TABLE,
        ),
    ] = 256,
    engine_cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ray",
            help="Run on a Ray cluster: ray (the one at RAY_ADDRESS, or a local one), or ray:ADDRESS.",
            rich_help_panel=_TABLE,
        ),
    ] = None,
) -> None:
    """Predict poses in images or videos, draw them, and write them to files.

    Drawn images keep their names and their paths relative to the common directory
    of all sources. Of two with the same name, the second gets a number.

    An image that fails does not stop the run: failures are listed with their
    reasons at the end, and the exit code is 1.
    """
    if boxes is not None and detector is not None:
        raise InputError(f"both --boxes {boxes} and --detector {detector} are given; give one")
    loading = {
        "model": model,
        "detector": f"boxes:{boxes}" if boxes is not None else detector or DEFAULT_DETECTOR,
        "engine": engine,
        "device": device,
        "dtype": dtype,
        "skeleton": skeleton,
        "dataset": _read_datasets(dataset),
        "labels": _read_labels(labels),
        "min_score": min_score,
        "batch_size": batch_size,
        "trust": trust,
    }
    running: dict[str, Any] = {"flip_test": flip_test} | ({} if oks_nms is None else {"max_oks": oks_nms})
    limits: dict[str, Any] = {} if max_pixels is None else {"max_pixels": max_pixels}
    for_videos = {"--detect-every": detect_every != 1, "--no-track": not track, "--smooth": smooth}
    for_videos |= {"--timeout": timeout != 10, "--reconnect": reconnect != 0}
    for_tables: dict[str, Any] = {"--workers": workers != 1, "--shard-size": shard_size != 256}
    for_tables |= {"--engine-cluster": engine_cluster}
    if out.rstrip("/").endswith(".parquet"):
        others = {"--rate": rate is not None, "--save": save, "--threshold": threshold != 0.3}
        _refuse_unused(for_videos | others, "with --out NAME.parquet; omit it")
        options = {"loading": loading, "running": running | limits, "workers": workers}
        options |= {"cluster": engine_cluster, "shard_size": shard_size}
        raise typer.Exit(_predict_many(sources, out, options))
    _refuse_unused(for_tables, f"with --out {out}; give --out NAME.parquet, or omit it")
    shared: dict[str, Any] = {"threshold": threshold, "loading": loading, "out": Path(out).expanduser()}
    if _are_videos(sources, rate):
        _refuse_unused({"--max-pixels": limits}, "for videos; omit it")
        streaming: dict[str, Any] = {"detect_every": detect_every, "track": track, "smooth": smooth}
        streaming |= {"rate": rate, "timeout_s": timeout, "reconnect": reconnect} | running
        raise typer.Exit(_predict_videos(sources, save=save or "video,jsonl", streaming=streaming, **shared))
    _refuse_unused(for_videos, "for images; omit it")
    raise typer.Exit(_predict_images(sources, save=save or "images,json", running=running | limits, **shared))


def _predict_many(sources: list[str], out: str, options: dict[str, Any]) -> int:
    from .many_job import ManyJob

    return ManyJob(out, options).run(sources)


def _predict_videos(sources: list[str], **options: Any) -> int:
    from .video_job import VideoJob

    return VideoJob(**options).run(sources)


def _predict_images(sources: list[str], **options: Any) -> int:
    from .job import Job

    return Job(**options).run(sources)


def _refuse_unused(given: dict[str, Any], reason: str) -> None:
    """Refuse options that would have no effect.

    Args:
        given: For the name of each option, whether its value differs from the default.
        reason: When the option has no effect, and what to do.

    Raises:
        InputError: Such an option is given.
    """
    for name in (name for name, value in given.items() if value):
        raise InputError(f"{name} has no effect {reason}")


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


def _are_videos(sources: list[str], rate: float | None) -> bool:
    """Tell whether the sources are videos; all or none of them must be.

    Raises:
        InputError: Some are and some are not.
    """
    from ..video.reading import is_video

    videos = [source for source in sources if rate is not None or is_video(source)]
    if videos and len(videos) < len(sources):
        others = [source for source in sources if source not in videos]
        raise InputError(f"{videos[0]} is a video and {others[0]} is not; use two runs")
    return bool(videos)
