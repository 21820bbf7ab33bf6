"""Downloads from a server on this machine."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import io
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vitpose.errors import CheckpointError, InputError
from vitpose.files import download as module
from vitpose.files.download import check_sha256, download_file, stream_url, without_credentials

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def make_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/network.onnx", CONTENT)
    return buffer.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serves `CONTENT`; fails at the start as often as `failures` says. Records the headers of each request."""

    failures = 0
    other = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append({key.lower(): value for key, value in self.headers.items()})
        name = self.path.strip("/")
        redirects = {
            "moved": "/file",
            "elsewhere": f"{self.server.other}/file",
            "loop": "/loop",
            "local": "file:///etc/passwd",
        }
        if name in redirects:
            self.send_response(302)
            self.send_header("Location", redirects[name])
            self.end_headers()
            return
        if name == "missing":
            self.send_error(404)
            return
        if self.server.failures:
            self.server.failures -= 1
            if name == "busy":
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:1000])
            return
        body = {"zip": make_zip(), "gzip": gzip.compress(CONTENT)}.get(name, CONTENT)
        self.send_response(200)
        if name == "gzip":
            self.send_header("Content-Encoding", "gzip")
        if name != "endless":
            self.send_header("Content-Length", "many" if name == "many" else str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


def serve() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "WAIT_S", 0.0)
    yield from serve()


@pytest.fixture
def other() -> Iterator[Server]:
    yield from serve()


def read(url: str, max_bytes: int = 1_000_000) -> bytes:
    return b"".join(stream_url(url, max_bytes, InputError))


@pytest.mark.parametrize("name", ["file", "moved", "endless"])
def test_a_url_is_read_in_parts(server: Server, name: str) -> None:
    assert read(f"{server.url}/{name}") == CONTENT
    progress: list[tuple[int, int | None]] = []
    list(
        stream_url(f"{server.url}/{name}", len(CONTENT), InputError, lambda *counts: progress.append(counts))
    )
    assert progress[-1] == (len(CONTENT), None if name == "endless" else len(CONTENT))


def test_a_content_encoding_is_not_decoded(server: Server) -> None:
    """Otherwise the limit would not hold for what is decompressed."""
    assert gzip.decompress(read(f"{server.url}/gzip", 100_000)) == CONTENT
    assert server.requests[0]["accept-encoding"] == "identity"


@pytest.mark.parametrize("name", ["file", "endless"])
def test_the_size_is_limited(server: Server, name: str) -> None:
    with pytest.raises(
        InputError, match="larger than the limit of 1000 bytes for downloads; download it to a"
    ):
        read(f"{server.url}/{name}", 1000)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", r"failed: HTTP 404 Not Found; check the URL$"),
        ("loop", r"failed: Exceeded maximum allowed redirects.*; check the URL and the network"),
        ("local", r"failed: .*unsupported protocol 'file://'"),
        ("many", r"failed: .*; check the URL and the network"),
    ],
)
def test_a_failed_request(server: Server, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(f"{server.url}/{name}")
    assert len(server.requests) <= 1 + module.MAX_REDIRECTS


def test_credentials_are_sent_to_their_server_only(server: Server, other: Server) -> None:
    server.other = other.url.replace("127.0.0.1", "localhost")
    url = server.url.replace("http://", "http://me:secret@")
    assert read(f"{url}/elsewhere") == CONTENT
    assert server.requests[0]["authorization"] == f"Basic {base64.b64encode(b'me:secret').decode()}"
    assert "authorization" not in other.requests[0]
    with pytest.raises(InputError, match="failed: HTTP 404") as caught:
        read(f"{url}/missing")
    assert "secret" not in str(caught.value)
    assert without_credentials("https://me:secret@host/a@b?c=d") == "https://host/a@b?c=d"
    assert without_credentials("https://host/a") == "https://host/a"


def test_a_proxy_that_cannot_be_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("all_proxy", "gopher://127.0.0.1:1")
    with pytest.raises(InputError, match=r"failed: .*proxy.*; check the URL and the network"):
        read("http://example.org/file")


def test_a_file_is_downloaded_and_checked(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "new" / "network.onnx"
    download_file(f"{server.url}/file", path, SHA256)
    assert path.read_bytes() == CONTENT
    with pytest.raises(
        CheckpointError, match=rf"/file has the SHA-256 {SHA256}, not 0000: it is damaged or was"
    ):
        download_file(f"{server.url}/file", tmp_path / "other", "0000")
    assert [file.name for file in tmp_path.iterdir()] == ["new"]
    path.write_bytes(b"changed")
    with pytest.raises(
        CheckpointError, match=r"network.onnx has the SHA-256 .* delete the file if there is one"
    ):
        check_sha256(path, SHA256, str(path))
    with pytest.raises(CheckpointError, match="none cannot be read"):
        check_sha256(tmp_path / "none", SHA256, "none")


@pytest.mark.parametrize("name", ["busy", "broken"])
def test_an_interrupted_download_is_repeated(server: Server, tmp_path: Path, name: str) -> None:
    path = tmp_path / "network.onnx"
    server.failures = module.ATTEMPTS - 1
    download_file(f"{server.url}/{name}", path, SHA256)
    assert path.read_bytes() == CONTENT
    server.failures = module.ATTEMPTS
    with pytest.raises(CheckpointError, match=rf"/{name} failed 3 times: .*; check the network"):
        download_file(f"{server.url}/{name}", tmp_path / "other", SHA256)
    assert [file.name for file in tmp_path.iterdir()] == ["network.onnx"]


def test_a_missing_file_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="HTTP 404"):
        download_file(f"{server.url}/missing", tmp_path / "a", SHA256)
    assert len(server.requests) == 1


def test_a_file_of_an_archive(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    download_file(f"{server.url}/zip", path, SHA256, "a/network.onnx")
    assert path.read_bytes() == CONTENT
    download_file(f"{server.url}/zip", path, SHA256, "network.onnx")
    for name, member, reason in (
        ("zip", "work.onnx", "it has no such file"),
        ("file", "a/network.onnx", "File is not a zip file"),
    ):
        message = rf"{member} of the archive .*/{name} cannot be extracted: {reason}; download it again"
        with pytest.raises(CheckpointError, match=message):
            download_file(f"{server.url}/{name}", tmp_path / "other", SHA256, member)
    assert [file.name for file in tmp_path.iterdir()] == ["network.onnx"]


def test_a_file_of_an_archive_has_a_limited_size(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FILE_BYTES", len(make_zip()))
    with pytest.raises(CheckpointError, match=rf"cannot be extracted: it has {len(CONTENT)} bytes;"):
        download_file(f"{server.url}/zip", tmp_path / "a", SHA256, "a/network.onnx")
