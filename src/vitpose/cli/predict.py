"""`vitpose predict`: its options. The work is in `job`, which is imported when it is called for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from ..hub import DEFAULT_MODEL
from .options import MODEL_PANEL, BatchSize, Dataset, Device, Dtype, FlipTest, Model, read_dataset

DEFAULT_DETECTOR = "rtdetr"
_PEOPLE, _OUTPUT = "Finding people", "Output"


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            show_default=False,
            help="Files, folders (with the folders in them), globs such as 'photos/**/*.jpg', http(s) "
            "addresses. After -- names may begin with a dash.",
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
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = 32,
    detector: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            show_default=DEFAULT_DETECTOR,
            help="rtdetr, rtdetr:NAME (hub or folder), onnx:FILE (YOLOX, RTMDet), boxes:FILE, or "
            "whole-picture (one person a picture).",
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
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder for all results. A search that comes across it passes over the pictures in it.",
            rich_help_panel=_OUTPUT,
        ),
    ] = Path("predictions"),
    save: Annotated[
        str,
        typer.Option(
            metavar="KINDS",
            help="What to write, separated by commas: pictures (drawn), json (poses.json), coco (coco.json "
            "and coco_images.json), csv (poses.csv).",
            rich_help_panel=_OUTPUT,
        ),
    ] = "pictures,json",
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
        int | None, typer.Option(min=1, show_default="200 million", help="Refuse larger pictures.")
    ] = None,
) -> None:
    """Find poses in pictures, draw them, and write them to files.

    A drawn picture keeps its name, and its place below the folder that all
    sources share; of two with one name, the second gets a number.

    A picture that fails does not stop the others: in the end a table says
    what failed and why, and the exit code is 1.
    """
    if boxes is not None and detector is not None:
        raise InputError(f"both --boxes {boxes} and --detector {detector} are given; give one")
    from .job import Job

    job = Job(
        out=out.expanduser(),
        save=save,
        threshold=threshold,
        loading={
            "model": model,
            "detector": f"boxes:{boxes}" if boxes is not None else detector or DEFAULT_DETECTOR,
            "device": device,
            "dtype": dtype,
            "skeleton": skeleton,
            "dataset": _read_datasets(dataset),
            "labels": {"all": None, "own": "own"}.get(labels, [label.strip() for label in labels.split(",")]),
            "min_score": min_score,
            "batch_size": batch_size,
        },
        running={"flip_test": flip_test} | ({} if max_pixels is None else {"max_pixels": max_pixels}),
    )
    raise typer.Exit(job.run(sources))


def _read_datasets(text: str | None) -> Any:
    """Several data sets are separated by commas: people and animals in one go."""
    if text is None or "," not in text:
        return read_dataset(text)
    return [read_dataset(name.strip()) for name in text.split(",")]
