"""`vitpose evaluate`: its options, and what it leaves behind. The measuring is `vitpose.evaluation`'s."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from ..evaluation import EvaluationReport

_WHAT, _MEASURES, _OUTPUT = "What is evaluated", "Measures", "Output"


def evaluate(
    annotations: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="GroundTruth in COCO's form, with any keypoints; CrowdPose's and COCO-WholeBody's too; MPII's json.",
            rich_help_panel=_WHAT,
        ),
    ],
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the images.", rich_help_panel=_WHAT)
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default="the boxes of the annotated people",
            help="COCO's detections to look for poses in.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    min_score: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out detections that score less.", rich_help_panel=_WHAT)
    ] = 0.0,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Measure COCO's keypoint results in this file, and run no model.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    skeleton: Annotated[
        str | None,
        typer.Option(
            help="Name or .toml file of the annotated keypoints (names and sigmas), where the file's own are "
            "not wanted.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    predicted_skeleton: Annotated[
        str | None,
        typer.Option(
            help="Name or .toml file of the keypoints in --predictions, where they are not the annotated ones.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    head_boxes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="MPII's mpii_gt_val.mat: the boxes of the heads, which pckh needs and its json lacks.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    model: Model = DEFAULT_MODEL,
    flip_test: FlipTest = False,
    dataset: Dataset = None,
    engine: Engine = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = 32,
    trust: Trust = False,
    oks_nms: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            show_default="the dataset's, or 0.9 with --boxes, otherwise all stay",
            help="Of two poses of an image that are more alike than this, by OKS, keep the better.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            show_default="what fits the file",
            help="Separated by commas: coco, coco-keypoints (AP of each alone), crowdpose, wholebody, pck, pckh, "
            "auc, epe, nme.",
            rich_help_panel=_MEASURES,
        ),
    ] = None,
    length: Annotated[
        str | None,
        typer.Option(
            show_default="torso, or box where there is none",
            help="What pck and nme divide by: torso, box, head, two points (left_eye:right_eye), or pixels.",
            rich_help_panel=_MEASURES,
        ),
    ] = None,
    thresholds: Annotated[
        str, typer.Option(help="Of pck, shares of the length.", rich_help_panel=_MEASURES)
    ] = "0.05,0.1,0.2",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default="nothing is written",
            help="Folder for report.json, predictions.json and worst.jpg.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    worst: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Draw the N worst cases into worst.jpg: left predicted, right annotated.",
            rich_help_panel=_OUTPUT,
        ),
    ] = 0,
) -> None:
    """Measure a model, or saved predictions, against annotations.

    What cannot be used is counted and named in the end. If an image failed,
    the exit code is 1.
    """
    out = None if out is None else out.expanduser()
    _refuse_contradictions(images, boxes, predictions, out, worst)
    measures: dict[str, Any] = {
        "metrics": None if metrics is None else [name.strip() for name in metrics.split(",")],
        "skeleton": skeleton,
        "head_boxes": head_boxes,
        "length": length,
        "thresholds": _read_thresholds(thresholds),
    }
    if predictions is not None:
        from ..evaluation import evaluate_predictions

        report = evaluate_predictions(
            predictions, annotations, dataset=dataset, predicted_skeleton=predicted_skeleton, **measures
        )
    else:
        loading: dict[str, Any] = {
            "engine": engine,
            "device": device,
            "dtype": dtype,
            "dataset": read_dataset(dataset),
            "batch_size": batch_size,
            "trust": trust,
        }
        running = {"boxes": boxes, "flip_test": flip_test, "min_score": min_score, "max_oks": oks_nms}
        report = _run(model, loading, annotations, images, running | measures)
    report.print()
    if out is not None:
        _write(report, out, images, worst, with_predictions=predictions is None)
    raise typer.Exit(1 if report.problems.images else 0)


def _refuse_contradictions(
    images: Path | None, boxes: Path | None, predictions: Path | None, out: Path | None, worst: int
) -> None:
    from .output import refuse_unwritable

    if predictions is None and images is None:
        raise InputError(
            "the images' folder is missing; give --images, or --predictions to measure saved ones"
        )
    if predictions is not None and boxes is not None:
        raise InputError(f"both --boxes {boxes} and --predictions {predictions} are given; give one")
    if worst and (out is None or images is None):
        raise InputError(f"--worst {worst} draws images into a file; give --images and --out too")
    if out is not None:
        refuse_unwritable(out)


def _read_thresholds(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--thresholds must be numbers separated by commas, not {text!r}") from error


def _run(
    model: str, loading: dict[str, Any], annotations: Path, images: Path | None, options: dict[str, Any]
) -> EvaluationReport:
    from ..evaluation import evaluate_model
    from ..inference.loading import load
    from .job import say_while, show_progress

    with say_while("loading the model"):
        pipe = load(model, None, **loading)
    with show_progress() as advance:
        report = evaluate_model(pipe, annotations, images or "", advance=advance, **options)
    return replace(report, settings={**report.settings, "model": model})


def _write(
    report: EvaluationReport, out: Path, images: Path | None, worst: int, with_predictions: bool
) -> None:
    from ..evaluation import draw_worst
    from ..images import save_image

    names = ["report.json"]
    report.save(out / "report.json")
    if with_predictions:
        names.append("predictions.json")
        report.save_results(out / "predictions.json")
    if worst and images is not None:
        names.append("worst.jpg")
        save_image(out / "worst.jpg", draw_worst(report, images, worst))
    typer.echo(f"written to {out}: {', '.join(names)}")
