"""http(s) URLs -> bytes, with limits on time and size."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, TypeGuard

from ..errors import ImageError

MAX_DOWNLOAD_BYTES = 256 * 1024**2
"""Largest download or stream: more than any JPEG of `MAX_PIXELS` takes."""

URL_TIMEOUT_S = 30.0
"""Timeout of connecting to a server and of each read."""


def is_url(source: Any) -> TypeGuard[str]:
    """Returns whether a source is an http(s) URL."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def download(url: str) -> bytes:
    """Returns the content of an http(s) URL.

    Raises:
        ImageError: The download failed, is incomplete, or is larger than `MAX_DOWNLOAD_BYTES`.
    """
    # Pasted URLs often have spaces and accents; existing escapes ("%20") are kept.
    quoted = urllib.parse.quote(url, safe="%/:=&?~#+!$,;'@()*[]", errors="replace")
    try:
        request = urllib.request.Request(quoted, headers={"User-Agent": "vitpose"})
        with urllib.request.urlopen(request, timeout=URL_TIMEOUT_S) as reply:
            announced = int(reply.headers.get("Content-Length", 0))
            data = reply.read(MAX_DOWNLOAD_BYTES + 1) if announced <= MAX_DOWNLOAD_BYTES else b""
    except urllib.error.HTTPError as error:
        error.close()
        raise ImageError(f"download of {url} failed: {error}; check the URL") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ImageError(f"download of {url} failed: {reason}; check the URL and the network") from error
    if max(announced, len(data)) > MAX_DOWNLOAD_BYTES:
        raise ImageError(
            f"{url} is larger than the limit of {MAX_DOWNLOAD_BYTES} bytes for downloads; "
            "download it to a file and pass its path"
        )
    if len(data) < announced:
        raise ImageError(f"download of {url} stopped after {len(data)} of {announced} bytes; try again")
    return data
