"""http(s) URLs -> bytes, with a limit on time and size. Knows no image format."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, TypeGuard

from ..errors import ImageError

MAX_DOWNLOAD_BYTES = 256 * 1024**2
"""Downloads and streams that are larger are refused: more than any JPEG of `MAX_PIXELS` takes."""

URL_TIMEOUT_S = 30.0
"""A server that says nothing for this long is given up."""


def is_url(source: Any) -> TypeGuard[str]:
    """Tells whether a source is an http(s) URL."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def download(url: str) -> bytes:
    """Returns what lies at an http(s) URL.

    Raises:
        ImageError: It cannot be fetched, is larger than `MAX_DOWNLOAD_BYTES`, or breaks off.
    """
    # Addresses are often pasted with spaces and accents; what is already escaped stays as it is.
    quoted = urllib.parse.quote(url, safe="%/:=&?~#+!$,;'@()*[]", errors="replace")
    try:
        request = urllib.request.Request(quoted, headers={"User-Agent": "vitpose"})
        with urllib.request.urlopen(request, timeout=URL_TIMEOUT_S) as reply:
            announced = int(reply.headers.get("Content-Length", 0))
            data = reply.read(MAX_DOWNLOAD_BYTES + 1) if announced <= MAX_DOWNLOAD_BYTES else b""
    except urllib.error.HTTPError as error:
        error.close()
        raise ImageError(f"{url} cannot be fetched: the server answers {error}; check the address") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ImageError(f"{url} cannot be fetched: {reason}; check the address and the network") from error
    if max(announced, len(data)) > MAX_DOWNLOAD_BYTES:
        raise ImageError(
            f"{url} is larger than the limit of {MAX_DOWNLOAD_BYTES} bytes for downloads; "
            "fetch it yourself and pass the file"
        )
    if len(data) < announced:
        raise ImageError(f"{url} broke off after {len(data)} of {announced} bytes; try again")
    return data
