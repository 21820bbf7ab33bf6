"""`vitpose benchmark`: speed and memory of models, engines and data types on this machine."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, MissingDependencyError, UnknownNameError, WorkerError, counted
from ..files.registry import DEFAULT_MODEL
from .options import MODEL_PANEL, BatchSize, Dataset, Device, Trust, read_dataset
from .terminal import silence_libraries

if TYPE_CHECKING:
    from ..inference.benchmark import Scene, Timing

BASELINES = ("transformers",)
_MEASUREMENT = "Measurement"


@dataclass(frozen=True)
class Entry:
    """One row of the table.

    Attributes:
        name: The model and its engine.
        run: Runs one round.
        peak_bytes: Peak memory of a process that only loads the model and runs one round.
    """

    name: str
    run: Callable[[], Timing]
    peak_bytes: int


_Loaded = tuple[str, Callable[[], "Timing"]]
"""The name of a row, and a function that runs one round."""
_Loader = Callable[[], _Loaded]
"""Loads a model; can be sent to another process, so it is not a lambda."""


def benchmark(
    image: Annotated[
        Path | None,
        typer.Argument(metavar="IMAGE", show_default="a synthetic one, 1280x720", help="Image to run on."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Model, as in 'vitpose predict'; may be repeated.",
            show_default=DEFAULT_MODEL,
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Engine, as in 'vitpose predict'; may be repeated.",
            show_default="auto",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Data type: auto, float32, bfloat16, float16; may be repeated.",
            show_default="auto",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    dataset: Dataset = None,
    device: Device = "auto",
    batch_size: BatchSize = 32,
    trust: Trust = False,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile the network with torch.compile.", rich_help_panel=MODEL_PANEL
        ),
    ] = False,
    people: Annotated[
        int, typer.Option(min=1, help="Number of people in the image.", rich_help_panel=_MEASUREMENT)
    ] = 8,
    rounds: Annotated[
        int,
        typer.Option(min=1, help="Number of rounds; the table shows medians.", rich_help_panel=_MEASUREMENT),
    ] = 7,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(BASELINES),
            help="Baseline: also run this library as its documentation describes, with the same weights.",
            rich_help_panel=_MEASUREMENT,
        ),
    ] = None,
) -> None:
    """Measure speed and memory of models, engines and data types.

    All combinations run in turn, once in each round, so that they are measured
    under the same load. Unsupported combinations are left out, and the reason is
    printed.

    Raises:
        InputError: None of the combinations can be measured.
        UnknownNameError: There is no such baseline.
        ImageError: The image cannot be read.
        VitPoseError: A model cannot be loaded or fails.
    """
    from ..geometry.boxes import Size
    from ..inference.benchmark import Scene, run_alternately
    from .terminal import show_status

    if against not in (None, *BASELINES):
        raise UnknownNameError("library to run against", against, BASELINES)
    scene = Scene.make(Size(width=1280, height=720), people, image)
    options = {
        "device": device,
        "dataset": read_dataset(dataset),
        "batch_size": batch_size,
        "compile": compile,
    }
    models = model or [DEFAULT_MODEL]
    loaders = _make_loaders(scene, models, engine or ["auto"], dtype or ["auto"], options, trust)
    for name in dict.fromkeys(models if against is not None else []):
        baseline = partial(_load_baseline, scene, name, device, read_dataset(dataset))
        loaders.append((f"{name}, transformers", baseline))
    entries, left_out = _load_all(loaders)
    with show_status(f"measuring {counted(rounds, 'round')}"):
        timings = run_alternately(
            {str(row): entry.run for row, entry in enumerate(entries)}, rounds, warm_up=1
        )
    size = f"{scene.image.shape[1]}x{scene.image.shape[0]}"
    _print_table(
        entries,
        list(timings.values()),
        people,
        f"{counted(people, 'person', 'people')} in an image of {size}, medians of {counted(rounds, 'round')}",
    )
    for reason in left_out:
        typer.echo(f"left out: {' '.join(reason.split())}")


def _make_loaders(
    scene: Scene,
    models: list[str],
    engines: list[str],
    dtypes: list[str],
    options: dict[str, Any],
    trust: bool,
) -> list[tuple[str, _Loader]]:
    """Return a label and a loader for every combination of model, engine and dtype."""
    from ..engines import runs_code

    # `load` refuses trust for files that do not require it: pass it to those that do, or to all for its error.
    trusted = ([name for name in models if runs_code(name)] or models) if trust else []
    return [
        (
            f"{name}, engine {engine}, dtype {dtype}",
            partial(
                _load,
                scene,
                {"model": name, "engine": engine, "dtype": dtype, "trust": name in trusted, **options},
            ),
        )
        for name, engine, dtype in itertools.product(models, engines, dtypes)
    ]


def _load_all(loaders: list[tuple[str, _Loader]]) -> tuple[list[Entry], list[str]]:
    """Return the rows of the table, and the reasons for combinations that are left out.

    Raises:
        InputError: All combinations are left out.
    """
    from .terminal import show_status

    entries, left_out = [], []
    for label, loader in loaders:
        try:
            with show_status(f"loading {label}"):
                entries.append(Entry(*loader(), _measure_peak(loader)))
        except (InputError, MissingDependencyError, WorkerError) as error:
            left_out.append(f"{label}: {error}")
    if not entries:
        raise InputError(f"none of the combinations can be measured: {'; '.join(left_out)}")
    return entries, left_out


def _measure_peak(loader: _Loader) -> int:
    """Return the peak memory of a new process that loads a model and runs one round.

    Raises:
        WorkerError: That process was killed.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), silence_libraries) as executor:
        try:
            return executor.submit(_peak_here, loader).result()
        except BrokenProcessPool as error:
            raise WorkerError(
                "the process that measures the memory was killed, probably for lack of memory; measure this "
                "combination alone, or with fewer --people"
            ) from error


def _peak_here(loader: _Loader) -> int:
    """Return the peak memory of this process while it loads a model and runs one round."""
    from ..inference.benchmark import MemoryWatch

    with MemoryWatch() as memory:
        _, run = loader()
        run()
    return memory.peak_bytes


def _load(scene: Scene, loading: dict[str, Any]) -> _Loaded:
    from ..inference.benchmark import run_vitpose
    from ..inference.loading import load

    pipe = load(detector=None, **loading)
    return f"{loading['model']}\n{pipe.estimator.runs_on}", lambda: run_vitpose(pipe, scene)


def _load_baseline(scene: Scene, model: str, device: str, dataset: str | int | None) -> _Loaded:
    from ..engines import is_exported
    from ..files.hub import resolve
    from ..hardware.devices import choose_device
    from ..inference.benchmark import TransformersBaseline
    from ..model.checkpoint import read_parts, read_spec
    from ..model.pose import VitPoseForPoseEstimation

    if is_exported(model):
        raise InputError(f"transformers does not run {model}; give the checkpoint that it was exported from")
    chosen = choose_device(device)
    files = resolve(model)
    (part,) = read_parts(files, dataset)
    network = VitPoseForPoseEstimation.from_checkpoint(part)
    baseline = TransformersBaseline(network, read_spec(files, network.config), chosen)
    return f"{model}\ntransformers, {chosen}, float32", lambda: baseline.run(scene)


def _print_table(entries: list[Entry], timings: list[list[Timing]], people: int, title: str) -> None:
    import numpy as np
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..inference.benchmark import STAGES

    shown = [stage for stage in STAGES if any(stage in rounds[0].seconds for rounds in timings)]
    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="", padding=(0, 1, 0, 0)
    )
    table.add_column("model\nengine", min_width=24, overflow="fold")
    for heading in ("people\n/s", *(f"{stage}\nms" for stage in shown), "total ms\nspread", "peak\nMB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry, rounds in zip(entries, timings, strict=True):
        totals = np.array([lap.total_s for lap in rounds])
        low, high = np.percentile(totals, [25, 75])
        stages = [
            _ms(np.median([lap.seconds[stage] for lap in rounds])) if stage in rounds[0].seconds else "-"
            for stage in shown
        ]
        table.add_row(
            Text(entry.name),
            f"{people / np.median(totals):.1f}",
            *stages,
            f"{_ms(np.median(totals))}\n{_ms(low)}-{_ms(high)}",
            f"{entry.peak_bytes / 1e6:.0f}",
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "spread: the middle half of the rounds; peak: memory of a process that loads the model and runs one round"
    )


def _ms(seconds: Any) -> str:
    return f"{1e3 * seconds:.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.1f}"
