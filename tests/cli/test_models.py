"""`vitpose models` and `vitpose download`."""

from __future__ import annotations

import functools
import hashlib
import http.server
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import vitpose
from vitpose.cli import app
from vitpose.files.registry import DEFAULT_DETECTOR, DetectorCard, list_detectors

CONTENT = bytes(2_000_000)
CARD = DetectorCard(
    name="mine",
    kind="onnx",
    source="",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    size_bytes=len(CONTENT),
    parameters=1.0,
    input="8x8",
    classes="person",
    licence="MIT",
    note="",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of files, and no network."""
    monkeypatch.setenv("VITPOSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nothing listens on the discard port
    monkeypatch.setattr("vitpose.files.download.WAIT_S", 0.0)
    return tmp_path / "cache"


@pytest.mark.parametrize("columns", [80, 200])
def test_every_model_and_detector_is_listed_with_its_facts(columns: int) -> None:
    result = CliRunner().invoke(app, ["models"], env={"COLUMNS": str(columns)})
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert max(map(len, lines)) <= columns
    text = " ".join(result.output.split())
    for name, card in {**vitpose.list_models(), **list_detectors()}.items():
        (line,) = [line for line in lines if line.split()[:1] == [name] and line.endswith(card.licence)]
        facts = card.classes.split() if isinstance(card, DetectorCard) else [card.skeleton, str(card.experts)]
        assert line.split()[1:] == [f"{card.parameters:.1f}", "M", card.input, *facts, card.licence]
        assert f": {card.note}" in text
    assert f"Default: {vitpose.files.registry.DEFAULT_MODEL} and {DEFAULT_DETECTOR}." in lines


def test_cells_align_with_their_headings() -> None:
    head, *lines = CliRunner().invoke(app, ["models"], env={"COLUMNS": "100"}).output.splitlines()
    for line in lines[: lines.index("") : 2]:
        assert line.index(" coco ") + 1 == head.index("skeleton")
        assert line.index("Apache") == head.index("licence")


def locations() -> dict[str, str]:
    """Returns where each model and detector is, by name."""
    lines = CliRunner().invoke(app, ["models"], env={"COLUMNS": "200"}).output.splitlines()
    return {
        line.split()[0]: below.strip().partition(":")[0] for line, below in itertools.pairwise(lines) if line
    }


def test_the_location_of_files_is_listed(cache: Path) -> None:
    found = locations()
    assert found["vitpose-tiny"] == "in the package"
    assert found["yolox-nano"] == "not downloaded, 4 MB"
    (cache / "detectors").mkdir(parents=True)
    (cache / "detectors" / "yolox-nano.onnx").write_bytes(CONTENT)
    assert locations()["yolox-nano"] == "in the cache, 2 MB"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A detector "mine" whose file is on a server of this machine, and "lost", whose file is not."""
    (tmp_path / "mine.onnx").write_bytes(CONTENT)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    url = f"http://127.0.0.1:{server.server_port}"
    cards = {
        name: CARD.model_copy(update={"name": name, "source": f"{url}/{name}.onnx"})
        for name in ("mine", "lost")
    }
    monkeypatch.setattr("vitpose.cli.models.list_detectors", lambda: cards)
    yield
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.usefixtures("served")
def test_detectors_are_downloaded_into_the_cache(cache: Path) -> None:
    path = cache / "detectors" / "mine.onnx"
    result = CliRunner().invoke(app, ["download", "mine", "vitpose-tiny"])
    assert result.exit_code == 0
    first, second = result.output.splitlines()
    assert first == f"mine: downloaded, 2 MB: {path}"
    assert second.startswith("vitpose-tiny: in the package: ")
    assert path.read_bytes() == CONTENT
    assert CliRunner().invoke(app, ["download", "mine"]).output == f"mine: in the cache, 2 MB: {path}\n"
    assert locations()["mine"] == "in the cache, 2 MB"


@pytest.mark.usefixtures("served")
def test_a_failed_download_does_not_stop_the_others(cache: Path) -> None:
    result = CliRunner().invoke(app, ["download", "lost", "mine"], env={"COLUMNS": "400"})
    assert result.exit_code == 1
    assert f"mine: downloaded, 2 MB: {cache / 'detectors' / 'mine.onnx'}" in result.stdout
    assert "HTTP 404" in result.stderr
    assert "run: vitpose download lost. Or copy http://127.0.0.1" in result.stderr


def test_an_unknown_name_is_reported_before_any_download(cache: Path) -> None:
    result = CliRunner().invoke(app, ["download", "yolox-nano", "yolox-nan"])
    assert result.exit_code == 1
    assert "unknown model or detector 'yolox-nan'; did you mean yolox-nano" in " ".join(result.stderr.split())
    assert not cache.exists()


def test_a_detector_may_be_copied_into_the_cache(cache: Path, shared_data: Path) -> None:
    (cache / "detectors").mkdir(parents=True)
    file = shared_data / "detectors" / "rtmdet_nano_person_end2end.onnx"
    (cache / "detectors" / "rtmdet-nano.onnx").write_bytes(file.read_bytes())
    assert CliRunner().invoke(app, ["download", "rtmdet-nano"]).exit_code == 0
    pipe = vitpose.load("vitpose-tiny", "rtmdet-nano", device="cpu")
    assert len(pipe(vitpose.samples.person())) == 1
