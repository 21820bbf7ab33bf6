"""From names to files: directories, the package, and a small hub served on this machine."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

import vitpose
from vitpose.errors import CheckpointError, UnknownNameError
from vitpose.files.hub import resolve, upload_folder
from vitpose.files.registry import DEFAULT_MODEL, list_models

COMMIT = "0123456789abcdef0123456789abcdef01234567"


# ------------------------------------------------------------------ names


def test_short_names_of_the_released_and_the_packaged_models() -> None:
    repositories = {card.source for card in list_models().values() if not card.in_package}
    assert repositories == {
        "usyd-community/vitpose-base-simple",
        "usyd-community/vitpose-base",
        "usyd-community/vitpose-base-coco-aic-mpii",
        "usyd-community/vitpose-plus-small",
        "usyd-community/vitpose-plus-base",
        "usyd-community/vitpose-plus-large",
        "usyd-community/vitpose-plus-huge",
    }
    assert all(
        card.source.endswith(f"/{card.name}") for card in list_models().values() if not card.in_package
    )
    assert [name for name, card in list_models().items() if card.in_package] == [DEFAULT_MODEL]


def test_the_model_in_the_package_is_found_without_a_hub() -> None:
    inside = Path(str(resources.files("vitpose"))) / "weights"
    assert resolve(DEFAULT_MODEL).find("config.json") == inside / "config.json"


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown model 'vitpose-plus-bsae'; did you mean vitpose-plus-b"
    ):
        resolve("vitpose-plus-bsae").find("config.json")
    with pytest.raises(UnknownNameError, match=r"hub repository \('owner/name'\) works too"):
        resolve("/no/such/folder").find("config.json")


@pytest.mark.parametrize(
    "name", ["~nobody-of-that-name/model", "a" * 5000, "nul\0", f"owner/{'a' * 5000}", "/" + "a" * 5000]
)
def test_a_name_that_no_file_can_have_is_unknown(name: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown model") as caught:
        resolve(name).find("config.json")
    assert len(str(caught.value)) < 1500


# ------------------------------------------------------------------ directories


def test_files_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert resolve(tmp_path).find("config.json") == tmp_path / "config.json"
    assert resolve(str(tmp_path)).read_json("config.json") == {"a": 1}
    with pytest.raises(
        CheckpointError, match=r"the directory .* has no model.safetensors; give the directory of a"
    ):
        resolve(tmp_path).find("model.safetensors")


@pytest.mark.parametrize("filename", ["../secret.json", "sub/secret.json", "..", ".", "", "sub\\secret.json"])
def test_a_file_name_cannot_leave_the_directory(tmp_path: Path, filename: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for directory in (tmp_path, folder / "sub"):
        (directory / "secret.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is not a plain file name"):
        resolve(folder).find(filename)


def test_an_absolute_file_name_raises(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    with pytest.raises(CheckpointError, match="is not a plain file name"):
        resolve(tmp_path).find(str(secret))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{'a': 1}", "is not valid JSON"),
        (b"\xff\xfe\x00", "is not valid JSON"),
        (b"[1, 2]", "contains a list, not a JSON object; give the directory of a checkpoint"),
        (b'{"a": "\xe9"}', "is not valid JSON: 'utf-8' codec can't decode"),
        (b"[" * 200_000, "is not valid JSON: it is nested too deeply"),
        (b'{"a": ' * 200_000, "is not valid JSON: it is nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not valid JSON: .*digits"),
        (b'{"a": NaN}', "is not valid JSON: NaN is not a JSON number"),
        (b"", "is not valid JSON"),
        (b" " * (2**26 + 2), r"has 67108865 bytes; a file of this kind may have 67108864 at most"),
    ],
)
def test_damaged_json_raises(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        resolve(tmp_path).read_json("config.json")


def test_unreadable_json_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")

    def fail(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", fail)  # root, which may run the tests, can read every file
    with pytest.raises(
        CheckpointError, match=r"config.json cannot be read: .*Permission denied; correct its per"
    ):
        resolve(tmp_path).read_json("config.json")


@pytest.mark.parametrize("name", ["model.safetensors", "last.ckpt", "config.json"])
def test_a_file_instead_of_its_directory_raises(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    message = rf"{name} is a file; give its directory, '{tmp_path}', with all files of the model"
    with pytest.raises(CheckpointError, match=message):
        resolve(tmp_path / name).find("config.json")
    with pytest.raises(CheckpointError, match=message):
        vitpose.load(tmp_path / name, detector=None)


def test_subfolder_is_inside_the_directory(tmp_path: Path) -> None:
    (tmp_path / "a" / "b-1").mkdir(parents=True)
    (tmp_path / "a" / "b-1" / "config.json").write_text("{}")
    expected = tmp_path / "a" / "b-1" / "config.json"
    assert resolve(tmp_path, subfolder="a/b-1").find("config.json") == expected
    assert resolve(tmp_path / "a", subfolder="b-1/").find("config.json") == expected
    for wrong in ("..", "a/..", "/etc", "a/../..", "x" * 5000, "~", ".git"):
        with pytest.raises(CheckpointError, match="must be a directory inside the model's directory"):
            resolve(tmp_path, subfolder=wrong).find("config.json")


# ------------------------------------------------------------------ a hub on this machine


class FakeHub(http.server.ThreadingHTTPServer):
    """Serves files like the hub and records the requests."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files = files
        self.requests: list[tuple[str, str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(http.server.BaseHTTPRequestHandler):
    server: FakeHub

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        self.server.requests.append((self.command, self.path, self.headers.get("Authorization")))
        body = self.server.files.get(self.path)
        self.send_response(404 if body is None else 200)
        if body is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if with_body and body is not None:
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def fake_hub() -> Iterator[FakeHub]:
    config = b'{"model_type": "vitpose"}'
    names = ["/usyd-community/vitpose-base/resolve/main/config.json", "/me/mine/resolve/v2/config.json"]
    hub = FakeHub(dict.fromkeys(names, config))
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    yield hub
    hub.shutdown()
    thread.join()
    hub.server_close()


def find_through(url: str, home: Path, name: str, filename: str, **options: Any) -> str:
    """Runs `resolve`; returns the path, or the type and message of the error."""
    code = (
        "import sys, json\n"
        "from vitpose.files.hub import resolve\n"
        "name, filename, options = json.loads(sys.argv[1])\n"
        "try:\n    print(resolve(name, **options).find(filename))\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    return run_with_hub(url, home, code, json.dumps([name, filename, options]))


def run_with_hub(url: str, home: Path, code: str, *arguments: str) -> str:
    """Runs code in a subprocess, because the URL of the hub is fixed when its client is imported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    source = str(Path(__file__).resolve().parents[2] / "src")
    environment = kept | {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        "PYTHONPATH": source,
    }
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_a_short_name_is_downloaded_once_and_then_read_from_the_cache(
    tmp_path: Path, fake_hub: FakeHub
) -> None:
    found = find_through(fake_hub.url, tmp_path, "vitpose-base", "config.json")
    assert Path(found).read_bytes() == b'{"model_type": "vitpose"}'
    assert Path(found).is_relative_to(tmp_path)
    assert ("GET", "/usyd-community/vitpose-base/resolve/main/config.json", None) in fake_hub.requests
    before = len(fake_hub.requests)
    again = find_through(fake_hub.url, tmp_path, "vitpose-base", "config.json", local_files_only=True)
    assert again == found
    assert len(fake_hub.requests) == before


def test_subfolder_is_passed_to_the_hub(tmp_path: Path, fake_hub: FakeHub) -> None:
    fake_hub.files["/me/mine/resolve/main/a/b/config.json"] = b"{}"
    found = find_through(fake_hub.url, tmp_path, "me/mine", "config.json", subfolder="a/b")
    assert found.endswith("a/b/config.json")
    assert Path(found).read_bytes() == b"{}"


def test_revision_token_and_cache_are_passed_to_the_hub(tmp_path: Path, fake_hub: FakeHub) -> None:
    options = {"revision": "v2", "token": "hf_secret", "cache_dir": str(tmp_path / "cache")}
    found = find_through(fake_hub.url, tmp_path / "home", "me/mine", "config.json", **options)
    assert Path(found).is_relative_to(tmp_path / "cache")
    assert {request[1:] for request in fake_hub.requests} == {
        ("/me/mine/resolve/v2/config.json", "Bearer hf_secret")
    }


def test_a_file_missing_in_the_repository_raises(tmp_path: Path, fake_hub: FakeHub) -> None:
    answer = find_through(fake_hub.url, tmp_path, "vitpose-base", "model.safetensors")
    assert answer.startswith(
        "CheckpointError download of model.safetensors of 'usyd-community/vitpose-base' failed: "
    )
    assert "404" in answer


def test_a_disabled_hub_raises(tmp_path: Path, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    answer = find_through(fake_hub.url, tmp_path, "vitpose-base", "config.json")
    assert answer.startswith(
        "CheckpointError download of config.json of 'usyd-community/vitpose-base' failed: "
    )
    assert fake_hub.requests == []


def test_an_unreachable_hub_raises_at_once(tmp_path: Path, fake_hub: FakeHub) -> None:
    closed = fake_hub.url.replace(str(fake_hub.server_port), "9")  # nothing listens on the discard port
    answer = find_through(closed, tmp_path, "vitpose-base", "config.json")
    assert answer.startswith(
        "CheckpointError download of config.json of 'usyd-community/vitpose-base' failed: "
    )
    assert answer.endswith(
        "refused. With a network connection, run: vitpose download vitpose-base. Or put config.json, "
        "preprocessor_config.json, model.safetensors of https://huggingface.co/usyd-community/vitpose-base into a "
        "directory and give its path instead of the name; 'vitpose-tiny' is included in the package"
    )
    assert "Retrying" not in answer  # a warning of the hub's client, which waits longer and longer
    own = find_through(closed, tmp_path, "me/mine", "config.json")
    assert "refused. Check the name and the network. Or put config.json" in own


def test_offline_with_an_empty_cache_raises(tmp_path: Path) -> None:
    message = (
        r"download of config.json of 'usyd-community/vitpose-base' failed: .*"
        r"With a network connection, run: vitpose download vitpose-base\. Or put config.json, "
    )
    with pytest.raises(CheckpointError, match=message):
        resolve("vitpose-base", cache_dir=tmp_path, local_files_only=True).find("config.json")


def test_an_invalid_repository_name_raises(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"of 'bad name/with spaces' failed: "):
        resolve("bad name/with spaces", cache_dir=tmp_path, local_files_only=True).find("config.json")


def test_a_failed_upload_raises(tmp_path: Path) -> None:
    """The client rejects the name before any request."""
    message = r"upload to 'bad name/with spaces' failed: .*Check the name, the network and the token"
    with pytest.raises(CheckpointError, match=message):
        upload_folder(tmp_path, "bad name/with spaces", token="hf_none")


def test_a_model_of_the_hub_is_downloaded_once(tmp_path: Path, fake_hub: FakeHub) -> None:
    code = (
        "from vitpose.files.cache import download, find_local_files\n"
        "from vitpose.files.registry import list_models\n"
        "card = list_models()['vitpose-base']\n"
        "print(len(find_local_files(card)))\n"
        "print(len(download(card)), len(find_local_files(card)))\n"
    )
    folder = "/usyd-community/vitpose-base/resolve/main/"
    fake_hub.files |= {folder + "preprocessor_config.json": b"{}", folder + "model.safetensors": b"weights"}
    assert run_with_hub(fake_hub.url, tmp_path, code).split() == ["0", "3", "3"]
    assert run_with_hub(fake_hub.url, tmp_path, code).split() == ["3", "3", "3"]
