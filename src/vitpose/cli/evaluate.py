"""`vitpose evaluate`: options and output files; the metrics are in `vitpose.evaluation`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..files.paths import user_path
from ..files.registry import DEFAULT_MODEL
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

if TYPE_CHECKING:
    from ..evaluation import EvaluationReport

_INPUT, _METRICS, _OUTPUT = "Input", "Metrics", "Output"


def evaluate(
    annotations: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Annotations in COCO's form with any keypoints, including CrowdPose's and COCO-WholeBody's, or MPII's "
            "JSON.",
            rich_help_panel=_INPUT,
        ),
    ],
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory of the images.", rich_help_panel=_INPUT)
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default="the boxes of the annotations",
            help="File of COCO's detections to predict poses in.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    min_score: Annotated[
        float,
        typer.Option(min=0, max=1, help="Leave out detections with a lower score.", rich_help_panel=_INPUT),
    ] = 0.0,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Evaluate the keypoint results in this file, in COCO's form, instead of running a model.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    skeleton: Annotated[
        str | None,
        typer.Option(
            show_default="the file's",
            help="Skeleton of the annotated keypoints (names and sigmas): a shipped name or a .toml file.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    predicted_skeleton: Annotated[
        str | None,
        typer.Option(
            show_default="that of the annotated keypoints",
            help="Skeleton of the keypoints in --predictions: a shipped name or a .toml file.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    head_boxes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="MPII's mpii_gt_val.mat: the head boxes for pckh, which MPII's JSON does not contain.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            show_default="all",
            help="Evaluate on the first N images of the annotations.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    model: Model = DEFAULT_MODEL,
    flip_test: FlipTest = False,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="the model's first, COCO",
            help="Dataset (coco, aic, mpii, ap10k, apt36k, coco-wholebody), by name or number: selects expert, head, "
            "skeleton and crops of a ViTPose++ model, and the rules of evaluation (metrics, areas, keypoints that "
            "count). With --predictions, selects the rules only.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
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
            show_default="the dataset's; otherwise 0.9 with --boxes, 1 without",
            help="Of two poses of an image with a higher OKS, keep the better; 1 keeps all.",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            show_default="those of the dataset, or those that fit the file",
            help="Metrics, separated by commas: coco, coco-keypoints (AP by keypoint), crowdpose, wholebody, pck, "
            "pckh, auc, epe, nme.",
            rich_help_panel=_METRICS,
        ),
    ] = None,
    length: Annotated[
        str | None,
        typer.Option(
            show_default="torso, or box for skeletons without a torso",
            help="Length that distances of pck and nme are divided by, named in PCK@0.2 (torso): torso, box, head, two "
            "keypoints (left_eye:right_eye), or a number of pixels.",
            rich_help_panel=_METRICS,
        ),
    ] = None,
    thresholds: Annotated[
        str,
        typer.Option(help="Thresholds of pck, as fractions of the length.", rich_help_panel=_METRICS),
    ] = "0.05,0.1,0.2",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            show_default="no files are written",
            help="Output directory for report.json, predictions.json and worst.jpg.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    worst: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Draw the N worst cases to worst.jpg: prediction on the left, ground truth on the right.",
            rich_help_panel=_OUTPUT,
        ),
    ] = 0,
) -> None:
    """Evaluate a model, or saved predictions, on annotations.

    Input that could not be used is counted and named at the end. The exit code is
    1 if an image failed.

    Raises:
        InputError: Options are missing or exclude each other, or the annotations are invalid.
        OutputError: Files cannot be written to the output directory.
        Exit: An image failed.
    """
    out = None if out is None else user_path(out)
    _check_options(images, boxes, predictions, out, worst)
    options: dict[str, Any] = {
        "metrics": None if metrics is None else [name.strip() for name in metrics.split(",")],
        "skeleton": skeleton,
        "head_boxes": head_boxes,
        "limit": limit,
        "length": length,
        "thresholds": _read_thresholds(thresholds),
    }
    if predictions is not None:
        from ..evaluation import evaluate_predictions

        report = evaluate_predictions(
            predictions, annotations, dataset=dataset, predicted_skeleton=predicted_skeleton, **options
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
        report = _run(model, loading, annotations, images, running | options)
    report.print()
    if out is not None:
        _write(report, out, images, worst, with_predictions=predictions is None)
    raise typer.Exit(1 if report.problems.images else 0)


def _check_options(
    images: Path | None, boxes: Path | None, predictions: Path | None, out: Path | None, worst: int
) -> None:
    """Refuse contradicting options before any work.

    Raises:
        InputError: An option is missing, or two exclude each other.
        OutputError: Files cannot be written to the output directory.
    """
    from .target import refuse_unwritable

    if predictions is None and images is None:
        raise InputError(
            "--images is required to evaluate a model; give the directory of the images, or --predictions to evaluate "
            "saved predictions"
        )
    if predictions is not None and boxes is not None:
        raise InputError(f"both --boxes {boxes} and --predictions {predictions} are given; give one")
    if worst and (out is None or images is None):
        raise InputError(f"--worst {worst} requires --images and --out; give both")
    if out is not None:
        refuse_unwritable(out)


def _read_thresholds(value: str) -> list[float]:
    """Read numbers separated by commas.

    Raises:
        InputError: A part is not a number.
    """
    try:
        return [float(part) for part in value.split(",")]
    except ValueError as error:
        raise InputError(
            f"--thresholds must be numbers separated by commas, such as 0.1,0.2, not {value!r}"
        ) from error


def _run(
    model: str, loading: dict[str, Any], annotations: Path, images: Path | None, options: dict[str, Any]
) -> EvaluationReport:
    from ..evaluation import evaluate_model
    from ..inference.loading import load
    from .terminal import show_progress, show_status

    with show_status("loading the model"):
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
    typer.echo(f"{', '.join(names)} written to {out}")
