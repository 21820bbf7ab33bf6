"""http(s) URLs -> bytes or files, with limits on time, size and redirects.

Credentials in a URL are sent to its server only, and never shown in messages.
"""

from __future__ import annotations

import hashlib
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import CheckpointError, VitPoseError
from .writing import replace_file

TIMEOUT_S = 30.0
"""Timeout of connecting to a server and of each read."""
MAX_REDIRECTS = 5
ATTEMPTS, WAIT_S = 3, 1.0
"""Attempts at the download of a file, if the connection fails or the server is overloaded; pause between them."""

MAX_FILE_BYTES = 256 * 1024**2
"""Limit on the size of a downloaded file: detectors and archives of them have a few megabytes."""

Report = Callable[[int, int | None], None]
"""Called with the number of bytes so far and the total, None if the server does not announce it."""


class _TransferError(Exception):
    """A download that may succeed if it is tried again."""


def stream_url(
    url: str, max_bytes: int, error: type[VitPoseError], report: Report | None = None
) -> Iterator[bytes]:
    """Yields the content of an http(s) URL in parts.

    Args:
        url: The URL; redirects to other http(s) URLs are followed.
        max_bytes: Limit on the size of the content.
        error: Type of the exception to raise.
        report: Called after each part.

    Raises:
        VitPoseError: `error`: the URL is invalid, the server does not answer or reports an error, or the content is
            incomplete or larger than `max_bytes`.
    """
    try:
        yield from _stream(url, max_bytes, error, report)
    except _TransferError as cause:
        raise error(
            f"download of {without_credentials(url)} failed: {cause}; check the URL and the network"
        ) from cause.__cause__


def _stream(url: str, max_bytes: int, error: type[VitPoseError], report: Report | None) -> Iterator[bytes]:
    import httpx

    # Without a content encoding, so that the limit counts what is received and decompression cannot exceed it.
    headers = {"User-Agent": "vitpose", "Accept-Encoding": "identity"}
    try:
        with (
            httpx.Client(
                follow_redirects=True, max_redirects=MAX_REDIRECTS, timeout=TIMEOUT_S, headers=headers
            ) as client,
            client.stream("GET", url) as reply,
        ):
            if reply.is_error:
                reason = f"HTTP {reply.status_code} {reply.reason_phrase}"
                if reply.is_server_error:
                    raise _TransferError(reason)
                raise error(f"download of {without_credentials(url)} failed: {reason}; check the URL")
            total = int(reply.headers["Content-Length"]) if "Content-Length" in reply.headers else None
            _check_size(url, total or 0, max_bytes, error)
            received = 0
            for part in reply.iter_raw():
                received += len(part)
                _check_size(url, received, max_bytes, error)
                yield part
                if report is not None:
                    report(received, total)
    except VitPoseError:  # some are a ValueError or OSError too
        raise
    except httpx.TimeoutException as cause:
        raise _TransferError(f"no answer within {TIMEOUT_S:g} s") from cause
    # ImportError and ValueError: a proxy of the environment that httpx does not support; or a port or length that is
    # not a number.
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ImportError, ValueError) as cause:
        raise _TransferError(str(cause) or type(cause).__name__) from cause


def _check_size(url: str, size: int, max_bytes: int, error: type[VitPoseError]) -> None:
    if size > max_bytes:
        raise error(
            f"{without_credentials(url)} is larger than the limit of {max_bytes} bytes for downloads; download it to a "
            "file and pass its path"
        )


def without_credentials(url: str) -> str:
    """Returns a URL for messages, without the user name and password that it may contain."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def download_file(url: str, path: Path, sha256: str, member: str = "", report: Report | None = None) -> None:
    """Downloads a file, checks it, and moves it to its path; an interrupted download is repeated.

    Args:
        url: URL of the file, or of a ZIP archive that contains it.
        path: Path of the file; nothing is left there unless the download succeeds.
        sha256: SHA-256 of the file in hexadecimal digits.
        member: Name of the file in the archive, or the end of it; empty if the URL is that of the file.
        report: See `stream_url`.

    Raises:
        CheckpointError: The download failed, the archive is damaged, or the file has another SHA-256.
        OutputError: The file cannot be written.
    """
    with replace_file(path) as partial:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with partial.open("wb") as file:
                    for part in _stream(url, MAX_FILE_BYTES, CheckpointError, report):
                        file.write(part)
                break
            except _TransferError as cause:
                if attempt == ATTEMPTS:
                    raise CheckpointError(
                        f"download of {without_credentials(url)} failed {ATTEMPTS} times: {cause}; check the network"
                    ) from cause.__cause__
                time.sleep(WAIT_S)
        if member:
            _extract(partial, member, url)
        check_sha256(partial, sha256, without_credentials(url))


def check_sha256(path: Path, sha256: str, source: str) -> None:
    """Checks the content of a file.

    Args:
        path: The file.
        sha256: Expected SHA-256 in hexadecimal digits.
        source: Where the file is from, for the message.

    Raises:
        CheckpointError: The file has another SHA-256, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as cause:
        raise CheckpointError(f"{path} cannot be read: {cause}; correct its permissions") from cause
    if found != sha256:
        raise CheckpointError(
            f"{source} has the SHA-256 {found}, not {sha256}: it is damaged or was replaced; delete the file if there "
            "is one, and download it again"
        )


def _extract(archive: Path, member: str, url: str) -> None:
    """Replaces a ZIP archive by one of its files."""
    extracted = archive.with_name(archive.name + ".member")
    try:
        with zipfile.ZipFile(archive) as opened:
            # The SHA-256 identifies the file, in whichever directory it is.
            found = next(
                (info for info in opened.infolist() if f"/{info.filename}".endswith(f"/{member}")), None
            )
            if found is None or found.file_size > MAX_FILE_BYTES:
                raise ValueError(
                    "it has no such file" if found is None else f"it has {found.file_size} bytes"
                )
            with opened.open(found) as source, extracted.open("wb") as target:
                shutil.copyfileobj(source, target)
        extracted.replace(archive)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError) as cause:
        raise CheckpointError(
            f"{member} of the archive {without_credentials(url)} cannot be extracted: {cause}; download it again"
        ) from cause
    finally:
        extracted.unlink(missing_ok=True)
