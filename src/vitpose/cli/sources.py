"""The arguments of `vitpose predict`: images and videos in files, directories, globs and URLs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ImageError, VitPoseError
from ..files.paths import existing_path, user_path
from ..images import find_images
from ..images.find import find_files, missing_file
from ..video.reading import SUFFIXES, is_missing, is_video


@dataclass(frozen=True)
class Sources:
    """The images and videos of a run, each once.

    Attributes:
        images: Files and URLs.
        videos: Files, cameras and URLs; image sequences.
        failures: Arguments without images and videos, and the reasons.
    """

    images: list[str | Path] = field(default_factory=list)
    videos: list[str] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)


def find_sources(arguments: Sequence[str], out: Path, as_sequences: bool = False) -> Sources:
    """Find the images and videos in files, directories, globs and URLs.

    Args:
        arguments: As given on the command line.
        out: Output directory, which searches skip.
        as_sequences: Each argument is one video: a directory or a glob of images.
    """
    if as_sequences:
        return Sources(videos=list(arguments))
    found, images, videos = Sources(), dict[str, str | Path](), dict[str, str]()
    for argument in arguments:
        try:
            if is_video(argument) and not _is_search(argument):
                videos[_key(_existing(argument))] = argument
                continue
            images_here = _search(argument, out, _find_images)
            videos_here = _search(argument, out, _find_videos)
            if not images_here and not videos_here:
                raise _nothing_found(argument, out)
        except VitPoseError as error:
            found.failures.append((argument, reason_of(argument, error)))
            continue
        videos |= {_key(video): str(video) for video in videos_here}
        images |= {_key(image): image for image in images_here if _key(image) not in images}
    found.images.extend(images.values())
    found.videos.extend(videos.values())
    return found


def reason_of(name: str, error: VitPoseError) -> str:
    """Return the message of an error in one line, without the name that it starts with."""
    return " ".join(str(error).split()).removeprefix(name).lstrip(" :")


def _nothing_found(argument: str, out: Path) -> ImageError:
    if _find_images(argument) or _find_videos(argument):
        return ImageError(
            f"{argument} has no images or videos except those in the output directory {out}; give other sources, or "
            "another --out"
        )
    if user_path(argument, ImageError).is_dir():
        return ImageError(
            f"{argument} has no images or videos, nor do its subdirectories; they are recognised by their suffixes, "
            "such as .jpg, .png and .mp4"
        )
    return ImageError(
        f"no image or video matches {argument}; check the pattern, in which ** matches any depth"
    )


def _existing(video: str) -> str:
    if is_missing(video):
        raise missing_file(user_path(video, ImageError))
    return video


def _is_search(argument: str) -> bool:
    """Return whether an argument is a directory or a glob."""
    path = existing_path(argument)
    return any(sign in argument for sign in "*?[") if path is None else path.is_dir()


def _find_videos(argument: str) -> list[Path]:
    if not _is_search(argument):
        return []
    try:
        return find_files(user_path(argument, ImageError), SUFFIXES)
    except OSError:  # the search for images gives the reason
        return []


def _find_images(argument: str) -> list[str | Path]:
    try:
        return [image for image in find_images(argument) if not is_video(image)]
    except ImageError as error:
        if (
            not _is_search(argument) or error.__cause__ is not None
        ):  # such as a directory that cannot be listed
            raise
        return []  # a directory or glob may have videos only


def _search(argument: str, out: Path, find: Callable[[str], Sequence[str | Path]]) -> list[str | Path]:
    """Return what an argument finds, without what is in the output directory unless the argument itself is there."""
    found, inside = find(argument), out.resolve()
    start = user_path(argument, ImageError)
    if not start.is_dir():
        start = next(parent for parent in start.parents if parent.is_dir())
    if start.resolve() not in inside.parents:
        return list(found)
    return [path for path in found if isinstance(path, str) or not path.resolve().is_relative_to(inside)]


def _key(source: str | Path) -> str:
    """Return the same string for the same file."""
    if isinstance(source, str):
        path = existing_path(source)
        return source if path is None else os.path.normpath(path.absolute())
    return os.path.normpath(source.absolute())
