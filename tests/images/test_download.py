from __future__ import annotations

import http.server
import io
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from vitpose.errors import ImageError
from vitpose.images import download as module
from vitpose.images import read_image

PHOTO = np.add.outer(np.arange(0, 96, 4), np.arange(0, 99, 3))[:, :, None] + np.array([9, 30, 59])
PHOTO = PHOTO.astype(np.uint8)


FILE = io.BytesIO()
Image.fromarray(PHOTO).save(FILE, "PNG")
PNG = FILE.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path
        if path == "/silent.png":
            time.sleep(1)
            return
        if path == "/moved.png":
            self.send_response(302)
            self.send_header("Location", "/photo.png")
            self.end_headers()
            return
        if path not in (
            "/photo.png",
            "/a%20b.png",
            "/%C3%A9.png?q=1",
            "/page.png",
            "/short.png",
            "/endless.png",
        ):
            self.send_error(404)
            return
        body = b"<!doctype html><p>not an image" if path == "/page.png" else PNG
        self.send_response(200)
        if path != "/endless.png":
            self.send_header("Content-Length", str(len(body) + 100 * (path == "/short.png")))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{serving.server_address[1]}"
    serving.shutdown()
    serving.server_close()
    thread.join()


@pytest.mark.parametrize(
    "path", ["photo.png", "moved.png", "a b.png", "a%20b.png", "é.png?q=1", "endless.png"]
)
def test_a_url(server: str, path: str) -> None:
    np.testing.assert_array_equal(read_image(f"{server}/{path}"), PHOTO)
    np.testing.assert_array_equal(read_image(f"{server}/{path}".replace("http", "HTTP")), PHOTO)


def test_a_missing_url_raises(server: str) -> None:
    with pytest.raises(
        ImageError, match=rf"download of {server}/none.png failed: HTTP 404 Not Found; check the URL$"
    ):
        read_image(f"{server}/none.png")


def test_a_url_of_a_web_page_raises(server: str) -> None:
    with pytest.raises(
        ImageError, match=rf"{server}/page.png is not an image: it starts with b'<!doctype html"
    ):
        read_image(f"{server}/page.png")


def test_credentials_are_not_in_messages(server: str) -> None:
    url = server.replace("http://", "http://me:secret@")
    for name, message in (("page", "is not an image"), ("none", "HTTP 404")):
        with pytest.raises(ImageError, match=rf"{server}/{name}.png .*{message}") as caught:
            read_image(f"{url}/{name}.png")
        assert "secret" not in str(caught.value)


def test_an_incomplete_download_raises(server: str) -> None:
    with pytest.raises(
        ImageError, match=r"short.png failed: peer closed connection .*received \d+ bytes, expected \d+"
    ):
        read_image(f"{server}/short.png")


@pytest.mark.parametrize("path", ["photo.png", "endless.png"])
def test_a_download_that_is_too_large_raises(server: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DOWNLOAD_BYTES", 50)
    with pytest.raises(
        ImageError, match=r"is larger than the limit of 50 bytes for downloads; download it to a file"
    ):
        read_image(f"{server}/{path}")


def test_a_timeout_raises(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitpose.files.download.TIMEOUT_S", 0.1)
    with pytest.raises(ImageError, match=r"silent.png failed: no answer within 0.1 s; check the URL"):
        read_image(f"{server}/silent.png")


@pytest.mark.parametrize("url", ["http://", "http://[::1/x.png", "http://127.0.0.1:1/x.png", "https://a:b/c"])
def test_an_invalid_url_raises(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(ImageError, match=r"download of .* failed: .+; check the URL and the network"):
        read_image(url)
