"""`vitpose predict`: what its options mean; the work is in `job` and `table_job`, which are imported on use."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .command import with_options
from .options import RuntimeOptions, given_settings, read_dataset, refuse_given
from .predict_options import (
    DetectionOptions,
    DrawingOptions,
    InputOptions,
    ModelOptions,
    OutputOptions,
    TableOptions,
    VideoOptions,
)


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
    reading: InputOptions,
    model: ModelOptions,
    runtime: RuntimeOptions,
    detection: DetectionOptions,
    output: OutputOptions,
    drawing: DrawingOptions,
    video: VideoOptions,
    table: TableOptions,
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
    limits: dict[str, Any] = {} if reading.max_pixels is None else {"max_pixels": reading.max_pixels}
    if output.out.rstrip("/").endswith(".parquet"):
        refuse_given(context, VideoOptions, "with --out NAME.parquet; omit it")
        refuse_given(context, "rate", "with --out NAME.parquet; omit it")
        reason = (
            f"with --out {output.out}, which is a table only; to draw as well, run again with --out DIRECTORY"
        )
        refuse_given(context, "save", reason)
        refuse_given(context, DrawingOptions, reason)
        from .table_job import TableJob

        options = {"loading": loading, "running": running | limits, **given_settings(table)}
        raise typer.Exit(TableJob(output.out, options).run(sources))
    refuse_given(context, TableOptions, f"with --out {output.out}; give --out NAME.parquet, or omit it")
    streaming = running | {
        "detect_every": video.detect_every,
        "track": video.track,
        "smooth": video.smooth,
        "rate": reading.rate,
        "timeout_s": video.timeout,
        "reconnect": video.reconnect,
    }
    raise typer.Exit(_run_job(context, sources, output, drawing, loading, running | limits, streaming))


def _run_job(
    context: Any,
    arguments: list[str],
    output: OutputOptions,
    drawing: DrawingOptions,
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
    return Job(sources, target, kinds, drawing.read(), loading, running, streaming).run()


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
