"""`vitpose benchmark`: how fast models, engines and types are on the user's own machine."""

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

from ..errors import InputError, MissingDependencyError, UnknownNameError, WorkerError
from ..files.hub import DEFAULT_MODEL
from .options import MODEL_PANEL, BatchSize, Dataset, Device, Trust, read_dataset

if TYPE_CHECKING:
    from ..inference.benchmark import Lap, Scene

RIVALS = ("transformers",)
_MEASURING = "Measuring"


@dataclass(frozen=True)
class Entry:
    """One line of the table.

    Attributes:
        name: The model and what runs it.
        run: One lap.
        peak_bytes: The most memory of a process that does nothing but load it and run it once.
    """

    name: str
    run: Callable[[], Lap]
    peak_bytes: int


_Loaded = tuple[str, Callable[[], "Lap"]]
"""The name of a line, and one lap."""
_Loader = Callable[[], _Loaded]
"""What can be sent to another process: no lambda."""


def benchmark(
    image: Annotated[
        Path | None, typer.Argument(show_default="a made-up one of 1280x720", help="ImageRow to run on.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="As in 'vitpose predict'; may be repeated.",
            show_default=DEFAULT_MODEL,
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="What runs the network; may be repeated.", show_default="auto", rich_help_panel=MODEL_PANEL
        ),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(
            help="auto, float32, bfloat16, float16; may be repeated.",
            show_default="auto",
            rich_help_panel=MODEL_PANEL,
        ),
    ] = None,
    dataset: Dataset = None,
    device: Device = "auto",
    batch_size: BatchSize = 32,
    trust: Trust = False,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the network first.", rich_help_panel=MODEL_PANEL)
    ] = False,
    people: Annotated[int, typer.Option(min=1, help="People in the image.", rich_help_panel=_MEASURING)] = 8,
    rounds: Annotated[
        int, typer.Option(min=1, help="How often each is run; medians are shown.", rich_help_panel=_MEASURING)
    ] = 7,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(RIVALS),
            help="Run that library's documented way in turn with ours, on the same weights.",
            rich_help_panel=_MEASURING,
        ),
    ] = None,
) -> None:
    """Measure models, engines and types on this machine.

    Each is run once a round, in turn, so that all meet the same machine. What does not go together is left out, and
    the reason said.
    """
    from ..engines import runs_code
    from ..geometry.boxes import Size
    from ..inference.benchmark import Scene, take_turns
    from .job import counted, say_while

    if against not in (None, *RIVALS):
        raise UnknownNameError("library to run against", against, RIVALS)
    scene = Scene.make(Size(width=1280, height=720), people, image)
    options = {
        "device": device,
        "dataset": read_dataset(dataset),
        "batch_size": batch_size,
        "compile": compile,
    }
    models = model or [DEFAULT_MODEL]
    to_trust = [
        name for name in models if runs_code(name)
    ] or models  # refused where there is nothing to trust
    wanted: list[tuple[str, _Loader]] = []
    for name, runner, kind in itertools.product(models, engine or ["auto"], dtype or ["auto"]):
        loading = {
            "model": name,
            "engine": runner,
            "dtype": kind,
            "trust": trust and name in to_trust,
            **options,
        }
        wanted.append((f"{name}, engine {runner}, dtype {kind}", partial(_load, scene, loading)))
    for name in dict.fromkeys(models if against is not None else []):
        rival = partial(_load_rival, scene, name, device, read_dataset(dataset))
        wanted.append((f"{name}, transformers", rival))
    entries, left_out = _load_all(wanted)
    with say_while(counted(rounds, "round")):
        laps = take_turns({str(row): entry.run for row, entry in enumerate(entries)}, rounds, warm_up=1)
    size = f"{scene.image.shape[1]}x{scene.image.shape[0]}"
    _print_table(
        entries,
        list(laps.values()),
        people,
        f"{counted(people, 'person', 'people')} in an image of {size}, medians of {counted(rounds, 'round')}",
    )
    for reason in left_out:
        typer.echo(f"left out: {' '.join(reason.split())}")


def _load_all(wanted: list[tuple[str, _Loader]]) -> tuple[list[Entry], list[str]]:
    """Returns the lines of the table, and why the others cannot be.

    Raises:
        InputError: There would be no line at all.
    """
    from .job import say_while

    entries, left_out = [], []
    for label, loader in wanted:
        try:
            with say_while(f"loading {label}"):
                entries.append(Entry(*loader(), _peak_alone(loader)))
        except (InputError, MissingDependencyError, WorkerError) as error:
            left_out.append(f"{label}: {error}")
    if not entries:
        raise InputError(f"nothing of this can be measured: {'; '.join(left_out)}")
    return entries, left_out


def _peak_alone(loader: _Loader) -> int:
    """Returns the most memory that a way needs in a process of its own, where nothing else lies about.

    Raises:
        WorkerError: That process was killed.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as alone:
        try:
            return alone.submit(_peak_here, loader).result()
        except BrokenProcessPool as error:
            raise WorkerError(
                "the process that measures its memory was killed; there may be too little of it: measure this one "
                "alone, or with fewer --people"
            ) from error


def _peak_here(loader: _Loader) -> int:
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


def _load_rival(scene: Scene, model: str, device: str, dataset: str | int | None) -> _Loaded:
    from ..engines import is_exported
    from ..hardware.devices import choose_device
    from ..inference.benchmark import TransformersWay
    from ..inference.loading import load_network, load_processor

    if is_exported(model):
        raise InputError(f"transformers does not run {model}; give the checkpoint that it was exported from")
    place = choose_device(device)
    network = load_network(model, "float32", "cpu", dataset)
    way = TransformersWay(network, load_processor(model, network), place)
    return f"{model}\ntransformers, {place}, float32", lambda: way.run(scene)


def _print_table(entries: list[Entry], laps: list[list[Lap]], people: int, title: str) -> None:
    import numpy as np
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..inference.benchmark import STAGES

    shown = [stage for stage in STAGES if any(stage in own[0].seconds for own in laps)]
    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="", padding=(0, 1, 0, 0)
    )
    table.add_column("model\nwhat runs it", min_width=24, overflow="fold")
    for heading in ("people\n/s", *(f"{stage}\nms" for stage in shown), "all ms\nspread", "peak\nMB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry, own in zip(entries, laps, strict=True):
        totals = np.array([lap.total_s for lap in own])
        low, high = np.percentile(totals, [25, 75])
        stages = [
            _ms(np.median([lap.seconds[stage] for lap in own])) if stage in own[0].seconds else "-"
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
        "spread: the middle half of the rounds; peak: a process of its own that loads that one and runs it once"
    )


def _ms(seconds: Any) -> str:
    return f"{1e3 * seconds:.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.1f}"
