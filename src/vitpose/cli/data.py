"""`vitpose data`: look through annotations, pack them for training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError

if TYPE_CHECKING:
    from ..data.annotations import TrainingAnnotations

data = typer.Typer(no_args_is_help=True, help="Training data: check annotations, pack them.")

_Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        show_default=False,
        help="TrainingAnnotations of COCO's or MPII's form: FILE, or FILE=FOLDER with the folder of the images (the "
        "folder 'images' beside the file, or the file's own).",
    ),
]
_Skeleton = Annotated[
    str | None,
    typer.Option(
        help="Name or .toml file of the keypoints that all sources are brought to, by name. Without it they must have "
        "the same.",
    ),
]


@data.command()
def check(
    sources: _Sources,
    skeleton: _Skeleton = None,
    images: Annotated[
        bool, typer.Option("--images", help="Decode every image too, and compare its size.")
    ] = False,
) -> None:
    """Read annotations and say what is in them, and what is broken, by name.

    The exit code is 1 if a source has nobody that can be trained on.
    """
    from ..data.annotations import check_images

    nobody = False
    for source in sources:
        people = _read(source, skeleton)
        report = check_images(people) if images else people.report
        typer.echo(str(report))
        names = people.skeleton.keypoints
        counts = people.labelled.sum(axis=0)
        typer.echo("  labels: " + ", ".join(f"{name} {n}" for name, n in zip(names, counts, strict=True)))
        nobody |= not report.people
    if nobody:
        raise InputError("a source has nobody that can be trained on; see above why")


@data.command()
def pack(
    sources: _Sources,
    out: Annotated[Path, typer.Option(metavar="DIR", show_default=False, help="Folder of the pack.")],
    skeleton: _Skeleton = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Dataset (shipped name or .toml file) by whose declaration will be trained: how its boxes fill their "
            "crops. Default: they keep their aspect.",
        ),
    ] = None,
    side: Annotated[
        int | None,
        typer.Option(min=16, show_default="384", help="Longest side of a packed crop, px."),
    ] = None,
    quality: Annotated[int | None, typer.Option(min=1, max=100, show_default="95", help="Of JPEG.")] = None,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="PNG instead of JPEG: exact, four times as large.")
    ] = False,
) -> None:
    """Decode images once into crops with margin, from which a training runs alone.

    Broken rows are left out and named. Parts have at most 50 MB.
    """
    if lossless and quality is not None:
        raise InputError(f"both --lossless and --quality {quality} are given; give one")
    from ..data.pack import QUALITY, SIDE_PX, read_pack, write_pack
    from ..keypoints.dataset_spec import DatasetSpec
    from .job import show_progress
    from .output import refuse_unwritable

    out = out.expanduser()
    refuse_unwritable(out)
    people = [_read(source, skeleton) for source in sources]
    with show_progress("people") as advance:
        reports = write_pack(
            people,
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
    typer.echo(f"{len(packed)} people, {len(packed.images)} parts, {megabytes:.1f} MB; written to {out}")


def _read(source: str, skeleton: str | None) -> TrainingAnnotations:
    from ..data.annotations import read_training_annotations, split_source
    from ..keypoints.skeleton import Skeleton

    people = read_training_annotations(*split_source(source))
    return people if skeleton is None else people.map_to(Skeleton.load(skeleton))
