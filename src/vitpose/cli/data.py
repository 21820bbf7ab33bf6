"""`vitpose data`: check and pack training data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError, counted
from ..files.paths import user_path
from .command import Command

if TYPE_CHECKING:
    from ..data.annotations import TrainingAnnotations

data = typer.Typer(no_args_is_help=True, help="Check and pack training data.")

_Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        show_default=False,
        help="Annotations in COCO's or MPII's form: FILE, or FILE=DIR with the directory of the images (default: the "
        "directory 'images' beside the file if there is one, otherwise that of the file).",
    ),
]
_Skeleton = Annotated[
    str | None,
    typer.Option(
        show_default="the sources', which must be the same",
        help="Skeleton that the keypoints of all sources are mapped to, by name: a shipped name or a .toml file.",
    ),
]


@data.command(cls=Command)
def check(
    sources: _Sources,
    skeleton: _Skeleton = None,
    images: Annotated[
        bool, typer.Option("--images", help="Also decode every image and check its size.")
    ] = False,
) -> None:
    """Check annotations: print counts, and every broken row by name.

    The exit code is 1 if a source has no usable annotation.

    Raises:
        InputError: A source is missing or invalid, or has no usable annotation.
    """
    from ..data.annotations import check_images

    any_empty = False
    for source in sources:
        instances = _read(source, skeleton)
        report = check_images(instances) if images else instances.report
        typer.echo(str(report))
        names = instances.skeleton.keypoints
        counts = instances.labelled.sum(axis=0)
        labels = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))
        typer.echo(f"  labels: {labels}")
        any_empty |= not report.instances
    if any_empty:
        raise InputError("a source has no annotation that can be used for training; see the reasons above")


@data.command(cls=Command)
def pack(
    sources: _Sources,
    out: Annotated[Path, typer.Option(metavar="DIR", show_default=False, help="Output directory.")],
    skeleton: _Skeleton = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            show_default="boxes keep their aspect ratio",
            help="Dataset of the training recipe, which defines how boxes fill their crops: a shipped name or a .toml "
            "file.",
        ),
    ] = None,
    side: Annotated[
        int | None,
        typer.Option(min=16, show_default="384", help="Maximum side of a packed crop, px."),
    ] = None,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, show_default="95", help="JPEG quality of the crops.")
    ] = None,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Store the crops as PNG: exact, four times as large.")
    ] = False,
) -> None:
    """Decode images once and store crops with a margin for training.

    A training run requires only the pack. Broken annotations are left out and
    printed by name. The files of a pack have at most 50 MB.

    Raises:
        InputError: Options exclude each other, or a source is missing or invalid.
        OutputError: The pack cannot be written.
    """
    if lossless and quality is not None:
        raise InputError(f"both --lossless and --quality {quality} are given; give one")
    from ..data.pack import QUALITY, SIDE_PX, read_pack, write_pack
    from ..keypoints.dataset_spec import DatasetSpec
    from .target import refuse_unwritable
    from .terminal import show_progress

    out = user_path(out)
    refuse_unwritable(out)
    instances = [_read(source, skeleton) for source in sources]
    with show_progress("instances") as advance:
        reports = write_pack(
            instances,
            out,
            aspect="keep" if dataset is None else DatasetSpec.load(dataset).aspect,
            side=SIDE_PX if side is None else side,
            quality=None if lossless else QUALITY if quality is None else quality,
            advance=advance,
        )
    for report in reports:
        typer.echo(str(report))
    packed = read_pack(out)
    megabytes = sum(part.stat().st_size for part in packed.images) / 1e6
    count = f"{counted(len(packed), 'instance')}, {counted(len(packed.images), 'part')}"
    typer.echo(f"{count}, {megabytes:.1f} MB; written to {out}")


def _read(source: str, skeleton: str | None) -> TrainingAnnotations:
    from ..data.annotations import read_training_annotations, split_source
    from ..keypoints.skeleton import Skeleton

    instances = read_training_annotations(*split_source(source))
    return instances if skeleton is None else instances.map_to(Skeleton.load(skeleton))
