"""Where the results of `vitpose predict` go, and which kinds of files they are."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, OutputError, UnknownNameError, counted
from ..files.paths import existing_path, user_path
from ..images.write import SAVED_SUFFIXES
from ..video.reading import SUFFIXES as VIDEO_SUFFIXES
from ..video.recording import KINDS as RECORDED_KINDS

KINDS = ("images", "json", "coco", "csv")
"""Kinds of output for images: drawn images, poses.json, coco.json (with coco_images.json), poses.csv."""
DRAWN = "video"
"""The kind of output for videos that is drawn; all others are recorded data."""
VIDEO_KINDS = (DRAWN, *RECORDED_KINDS)
"""Kinds of output for videos."""

_DRAWN_VIDEO = ".mp4"
_DATA_SUFFIXES = frozenset([".json", ".jsonl", ".csv", ".h5", ".txt"])


@dataclass(frozen=True)
class Target:
    """Where the results go.

    Attributes:
        directory: Output directory.
        file: Name of the only file in it that is written, a drawn image or video; None: any files.
    """

    directory: Path
    file: str | None = None

    @property
    def name(self) -> str:
        """The path, for messages."""
        return str(self.directory if self.file is None else self.directory / self.file)

    @classmethod
    def read(cls, out: str) -> Target:
        """Read the value of --out: a directory, or a file with the suffix of an image or .mp4.

        Raises:
            InputError: The suffix is that of data or of another form of video.
            OutputError: No file can have this name.
        """
        path = user_path(out, OutputError)
        suffix = path.suffix.lower()
        if path.is_dir():
            return cls(path)
        if suffix in _DATA_SUFFIXES or (suffix in VIDEO_SUFFIXES and suffix != _DRAWN_VIDEO):
            raise InputError(
                f"--out {out} is neither a directory nor a drawn image or video ({_DRAWN_VIDEO}); give a directory, "
                "and choose its files with --save"
            )
        is_file = suffix == _DRAWN_VIDEO or suffix in SAVED_SUFFIXES
        return cls(path.parent, path.name) if is_file else cls(path)

    def check(self, images: Sequence[str | Path], videos: Sequence[str]) -> None:
        """Check that a file is the drawing of the only source, and not the source itself.

        Raises:
            InputError: There are several sources, one of the other kind, or the file is the source.
        """
        if self.file is None or not (images or videos):
            return
        kind = "video" if self.file.lower().endswith(_DRAWN_VIDEO) else "image"
        found = [
            counted(len(several), noun) for several, noun in ((images, "image"), (videos, "video")) if several
        ]
        if found != [f"1 {kind}"]:
            raise InputError(
                f"--out {self.name} is one drawn {kind}, but the sources are {' and '.join(found)}; give a directory"
            )
        source = [*images, *videos][0]
        if existing_path(source) is not None and Path(source).resolve() == Path(self.name).resolve():
            raise InputError(f"--out {self.name} is the source and would be replaced; choose another name")


@dataclass(frozen=True)
class Kinds:
    """The kinds of output of a run, for images and for videos; none without such sources."""

    images: frozenset[str] = frozenset()
    videos: tuple[str, ...] = ()

    @classmethod
    def choose(
        cls, save: str | None, images: Sequence[Any], videos: Sequence[Any], drawn_only: bool = False
    ) -> Kinds:
        """Choose the kinds of output.

        Args:
            save: Kinds separated by commas, such as "images,json"; None: the defaults.
            images: The images of the run.
            videos: The videos of the run.
            drawn_only: Whether the output is one drawn file.

        Raises:
            UnknownNameError: A name is not a kind for these sources.
            InputError: There is no kind for the images or the videos, or another one than drawing for a drawn file.
        """
        for_images, for_videos = KINDS if images else (), VIDEO_KINDS if videos else ()
        default = ["images", DRAWN] if drawn_only else ["images", "json", DRAWN, "jsonl"]
        names = default if save is None else [name.strip() for name in save.split(",") if name.strip()]
        chosen = cls(
            frozenset(names).intersection(for_images),
            tuple(dict.fromkeys(name for name in names if name in for_videos)),
        )
        if save is None or not (images or videos):
            return chosen
        for name in names or [save]:
            if name not in for_images and name not in for_videos:
                nouns = " and ".join(["images"] * bool(images) + ["videos"] * bool(videos))
                hint = "Separate several with commas."
                raise UnknownNameError(f"kind of output for {nouns}", name, {*for_images, *for_videos}, hint)
        if drawn_only and set(names) - {"images", DRAWN}:
            raise InputError(f"--save {save} does not fit --out, which is one drawn file; give a directory")
        for noun, known, kinds in (
            ("images", for_images, chosen.images),
            ("videos", for_videos, chosen.videos),
        ):
            if known and not kinds:
                raise InputError(
                    f"--save {save} has no kind of output for the {noun}; add one of: {', '.join(known)}"
                )
        return chosen


def refuse_unwritable(directory: Path) -> None:
    """Check, without leaving a file, that files can be written to a directory or that it can be created.

    Raises:
        OutputError: Neither is possible.
    """
    try:
        existing = next(
            path for path in (directory.absolute(), *directory.absolute().parents) if path.exists()
        )
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write to {directory}: {reason}; choose another directory") from error
