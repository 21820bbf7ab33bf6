"""http(s) URLs of images -> bytes."""

from __future__ import annotations

from typing import Any, TypeGuard

from ..errors import ImageError
from ..files.download import stream_url

MAX_DOWNLOAD_BYTES = 256 * 1024**2
"""Largest download or stream: more than any JPEG of `MAX_PIXELS` takes."""


def is_url(source: Any) -> TypeGuard[str]:
    """Returns whether a source is an http(s) URL."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def download(url: str) -> bytes:
    """Returns the content of an http(s) URL.

    Raises:
        ImageError: The download failed, is incomplete, or is larger than `MAX_DOWNLOAD_BYTES`.
    """
    return b"".join(stream_url(url, MAX_DOWNLOAD_BYTES, ImageError))
