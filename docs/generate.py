"""Generate the reference pages of the site from the package; a hook of mkdocs.

Python: the public names of `vitpose`, by package, and those of MORE. Command line: the options of the Typer app.
Recipes: the keys of the recipe's classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from typer import Context
from typer.main import get_command

import vitpose
from vitpose.cli import app

MORE = {
    "batch": ["batch.job.predict_many"],
    "data": [
        "data.annotations.read_training_annotations",
        "data.annotations.TrainingAnnotations",
        "data.augment.Augmentation",
        "data.dataset.PoseDataset",
        "data.dataset.MixSampler",
        "data.pack.write_pack",
        "data.pack.read_pack",
        "data.device_samples.DeviceLoader",
    ],
    "detectors": [
        "detectors.protocol.Detector",
        "detectors.load_detector",
        "detectors.person.PersonDetector",
    ],
    "evaluation": ["evaluation.EvaluationReport", "evaluation.draw_worst"],
    "inference": ["inference.estimator.Estimator"],
    "video": [
        "video.stream.PoseStream",
        "video.stream.PoseFrame",
        "video.smoothing.OneEuro",
        "video.writing.VideoWriter",
        "video.recording.Recording",
        "video.run_ahead.RunAhead",
    ],
}
"""Documented names that are not imported into `vitpose` itself, by package."""

FIRST = ("load", "Poses")
TITLES = {"batch": "Batches", "exporters": "Export", "model": "Models", "processing": "Image processor"}


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for path, text in generate_pages():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Append the list of keys to the page on recipes."""
    from vitpose.training.recipe_keys import list_keys

    return f"{markdown}\n{list_keys()}" if page.file.src_uri == "reference/recipes.md" else markdown


def generate_pages() -> Iterator[tuple[str, str]]:
    """Yield path and Markdown of every generated page."""
    yield "reference/command-line.md", "\n\n".join(["# Command line", *describe_command(root(), [])])
    for package, names in sorted(names_by_package().items()):
        title = f"# {TITLES.get(package, package.capitalize())}"
        parts = [title, describe_package(package), *(f"::: {name}" for name in names)]
        yield f"reference/python/{package}.md", "\n\n".join(parts)


def describe_package(package: str) -> str:
    """Return the summary of a package, or the docstring of a module."""
    module = import_module(f"vitpose.{package}")
    text = module.__doc__ or ""
    return text.split("\n\n")[0] if hasattr(module, "__path__") else text


def names_by_package() -> dict[str, list[str]]:
    """Return the documented names of every package: classes first, then functions."""
    pages: dict[str, list[str]] = {}
    for name in sorted(vitpose.__all__, key=lambda name: name not in FIRST):
        value = getattr(vitpose, name)
        module = getattr(value, "__module__", None) or value.__name__
        pages.setdefault(module.split(".")[1], []).append(f"vitpose.{name}")
    for package, names in MORE.items():
        pages.setdefault(package, []).extend(f"vitpose.{name}" for name in names)
    return pages


def root() -> Any:
    """Return the command `vitpose`."""
    return get_command(app)


def describe_command(command: Any, parents: list[str]) -> Iterator[str]:
    """Yield the sections of a command and of the commands below it."""
    context = Context(command, info_name=command.name)
    words = [*parents, command.name or "vitpose"]
    if parents:
        yield f"## {' '.join(words)}"
    yield (command.help or "").strip()
    yield f"```console\n$ {' '.join([*words, *command.collect_usage_pieces(context)])}\n```"
    yield from describe_options(command, context)
    for inner in getattr(command, "commands", {}).values():
        yield from describe_command(inner, words)


def describe_options(command: Any, context: Any) -> Iterator[str]:
    """Yield a table of the options for each panel of the help."""
    panels: dict[str, list[str]] = {}
    for option in command.get_params(context):
        record = option.get_help_record(context)
        if record is None or "--help" in option.opts:
            continue
        flags, meaning = record
        panel = getattr(option, "rich_help_panel", None) or ""
        panels.setdefault(panel, []).append(f"| `{flags}` | {escape(meaning)} |")
    for panel, rows in panels.items():
        heading = f"**{panel}**\n\n" if panel else ""
        yield f"{heading}| option | meaning |\n|---|---|\n" + "\n".join(rows)


def escape(text: str) -> str:
    """Return text for a cell of a Markdown table."""
    return re.sub(r"([|*_])", r"\\\1", " ".join(text.split())).replace("<", "&lt;")
