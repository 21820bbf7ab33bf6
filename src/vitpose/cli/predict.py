"""`vitpose predict`: its options. The work is in `job`, which is imported when it is called for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from ..files.hub import DEFAULT_MODEL
from .options import (
    MODEL_PANEL,
    BatchSize,
    Dataset,
    Device,
    Dtype,
    Engine,
    FlipTest,
    Model,
    Trust,
    read_dataset,
)

DEFAULT_DETECTOR = "rtdetr"
_PEOPLE, _OUTPUT, _VIDEO, _MANY = "Finding people", "Output", "Videos", "Very many images"


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            show_default=False,
            help="Files, folders (with the folders in them), globs such as 'photos/**/*.jpg', http(s) "
            "addresses; or videos, webcam, webcam:1, rtsp:// addresses. After -- names may begin with a dash.",
        ),
    ],
    model: Model = DEFAULT_MODEL,
    flip_test: FlipTest = False,
    skeleton: Annotated[
        str | None,
        typer.Option(
            help="Name or .toml file of the keypoints, where the model's own are not wanted.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    dataset: Dataset = None,
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
            help="rtdetr, rtdetr:NAME (hub or folder), onnx:FILE (YOLOX, RTMDet), boxes:FILE, or "
            "whole-image (one person an image).",
            rich_help_panel=_PEOPLE,
        ),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Take boxes from a COCO file of detections or annotations; short for --detector boxes:FILE.",
            rich_help_panel=_PEOPLE,
        ),
    ] = None,
    labels: Annotated[
        str,
        typer.Option(
            help="What to look for: the detector's class names, separated by commas; own (those of the model's data "
            "set, mostly person), or all.",
            rich_help_panel=_PEOPLE,
        ),
    ] = "own",
    min_score: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            show_default="the detector's own",
            help="Leave out boxes that score less.",
            rich_help_panel=_PEOPLE,
        ),
    ] = None,
    oks_nms: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            show_default="0.9 for a detector's boxes, 1 for --boxes",
            help="Of two poses of an image that are more alike than this, by OKS, keep the better; 1 keeps all.",
            rich_help_panel=_PEOPLE,
        ),
    ] = None,
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Folder for all results. A search that comes across it passes over the images in it. With "
            "the suffix .parquet: the folder of one table of all images, which an interrupted run goes on with.",
            rich_help_panel=_OUTPUT,
        ),
    ] = "predictions",
    save: Annotated[
        str | None,
        typer.Option(
            metavar="KINDS",
            show_default="images,json; for videos video,jsonl",
            help="What to write, separated by commas. For images: images (drawn, each person with the score of the "
            "pose: box score x mean keypoint score), json (poses.json), coco "
            "(coco.json and coco_images.json), csv (poses.csv). For videos: video (drawn, mp4), jsonl, csv, "
            "parquet, coco, posetrack, dlc and dlc-h5 (DeepLabCut).",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Keypoints that score less are not drawn. The data always has all of them.",
            rich_help_panel=_OUTPUT,
        ),
    ] = 0.3,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, show_default="200 million", help="Refuse larger images.")
    ] = None,
    detect_every: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Look for people in every Nth frame; in between, boxes follow from the poses.",
            rich_help_panel=_VIDEO,
        ),
    ] = 1,
    track: Annotated[
        bool, typer.Option(help="Give people identities over time.", rich_help_panel=_VIDEO)
    ] = True,
    smooth: Annotated[
        bool, typer.Option("--smooth", help="Smooth each identity's points.", rich_help_panel=_VIDEO)
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Take a folder or glob of images as one video of so many frames a second.",
            rich_help_panel=_VIDEO,
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="An address that says nothing for so long has stalled.",
            rich_help_panel=_VIDEO,
        ),
    ] = 10,
    reconnect: Annotated[
        int,
        typer.Option(min=0, help="Open a live stream so many times again.", rich_help_panel=_VIDEO),
    ] = 0,
    workers: Annotated[
        int,
        typer.Option(
            min=0,
            help="Processes, each with a model of its own (with --out NAME.parquet); 0 is this process.",
            rich_help_panel=_MANY,
        ),
    ] = 1,
    shard_size: Annotated[
        int, typer.Option(min=1, help="Images that are done, and kept, together.", rich_help_panel=_MANY)
    ] = 256,
    engine_cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ray",
            help="Work on a Ray cluster: ray (a local one, or that of RAY_ADDRESS), or ray:ADDRESS.",
            rich_help_panel=_MANY,
        ),
    ] = None,
) -> None:
    """Find poses in images and videos, draw them, and write them to files.

    A drawn image keeps its name, and its place below the folder that all
    sources share; of two with one name, the second gets a number.

    An image that fails does not stop the others: in the end a table says
    what failed and why, and the exit code is 1.
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
        "labels": {"all": None, "own": "own"}.get(labels, [label.strip() for label in labels.split(",")]),
        "min_score": min_score,
        "batch_size": batch_size,
        "trust": trust,
    }
    running: dict[str, Any] = {"flip_test": flip_test} | ({} if oks_nms is None else {"max_oks": oks_nms})
    limits: dict[str, Any] = {} if max_pixels is None else {"max_pixels": max_pixels}
    of_videos = {"--detect-every": detect_every != 1, "--no-track": not track, "--smooth": smooth}
    of_videos |= {"--timeout": timeout != 10, "--reconnect": reconnect != 0}
    of_tables = {
        "--workers": workers != 1,
        "--shard-size": shard_size != 256,
        "--engine-cluster": engine_cluster,
    }
    if out.rstrip("/").endswith(".parquet"):
        others = {"--rate": rate is not None, "--save": save, "--threshold": threshold != 0.3}
        _refuse_unused(of_videos | others, "a table of very many images; leave it out")
        options = {"loading": loading, "running": running | limits, "workers": workers}
        raise typer.Exit(
            _predict_many(sources, out, options | {"cluster": engine_cluster, "shard_size": shard_size})
        )
    _refuse_unused(of_tables, f"the files in {out}, but for one table; give --out NAME.parquet")
    shared: dict[str, Any] = {"threshold": threshold, "loading": loading, "out": Path(out).expanduser()}
    if _are_videos(sources, rate):
        _refuse_unused({"--max-pixels": limits}, "videos; leave it out")
        streaming: dict[str, Any] = {"detect_every": detect_every, "track": track, "smooth": smooth}
        streaming |= {"rate": rate, "timeout_s": timeout, "reconnect": reconnect} | running
        raise typer.Exit(_predict_videos(sources, save=save or "video,jsonl", streaming=streaming, **shared))
    _refuse_unused(of_videos, "images; leave it out")
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


def _refuse_unused(given: dict[str, Any], what: str) -> None:
    """Refuses options that would not be used.

    Args:
        given: By the name of each option, whether it was given another value than its default.
        what: What it is not for, and what to do.

    Raises:
        InputError: There is one.
    """
    for name in (name for name, value in given.items() if value):
        raise InputError(f"{name} is not for {what}")


def _read_datasets(text: str | None) -> Any:
    """Several datasets are separated by commas: people and animals in one go."""
    if text is None or "," not in text:
        return read_dataset(text)
    return [read_dataset(name.strip()) for name in text.split(",")]


def _are_videos(sources: list[str], rate: float | None) -> bool:
    """Tells whether the sources are videos; all or none of them must be.

    Raises:
        InputError: Some are and some are not.
    """
    from ..video.reading import is_video

    videos = [source for source in sources if rate is not None or is_video(source)]
    if videos and len(videos) < len(sources):
        others = [source for source in sources if source not in videos]
        raise InputError(f"{videos[0]} is a video and {others[0]} is not; predict them in two runs")
    return bool(videos)
