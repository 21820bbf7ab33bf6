"""The files of models and detectors with short names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from vitpose.errors import CheckpointError, InputError, OutputError
from vitpose.files.cache import cache_folder, download, find_detector_file, find_local_files
from vitpose.files.registry import DEFAULT_MODEL, DetectorCard, list_detectors, list_models


def test_the_files_of_the_packaged_model_are_on_this_machine() -> None:
    paths = find_local_files(list_models()[DEFAULT_MODEL])
    assert [path.name for path in paths] == ["config.json", "preprocessor_config.json", "model.safetensors"]
    assert download(list_models()[DEFAULT_MODEL]) == paths


def test_every_detector_has_what_its_source_requires() -> None:
    for card in list_detectors().values():
        assert card.in_package or card.in_repository or card.source.startswith("https://")
        assert (len(card.sha256) == 64 and card.size_bytes > 0) == ("://" in card.source)
        assert bool(card.file) == (card.in_package or card.source.endswith(".zip"))


CARD = DetectorCard(
    name="mine",
    kind="onnx",
    source="https://127.0.0.1:9/mine.onnx",  # nothing listens on the discard port
    sha256=hashlib.sha256(b"network").hexdigest(),
    size_bytes=7,
    parameters=1.0,
    input="8x8",
    classes="person",
    licence="MIT",
    note="",
)


def test_a_detector_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITPOSE_CACHE", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("vitpose.files.download.WAIT_S", 0.0)
    assert find_local_files(CARD) == []
    path = tmp_path / "detectors" / "mine.onnx"
    with pytest.raises(
        CheckpointError,
        match=r"download of https://127.0.0.1:9/mine.onnx failed 3 times: .*refused; check the network\. With a "
        rf"network connection, run: vitpose download mine\. Or copy https://127.0.0.1:9/mine.onnx to {path}$",
    ):
        download(CARD)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"network")
    assert download(CARD) == find_local_files(CARD) == [path]
    path.write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"mine.onnx has the SHA-256 .* it is damaged or was replaced"):
        find_detector_file(CARD)


def test_the_file_of_an_archive_is_named_in_the_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITPOSE_CACHE", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("vitpose.files.download.WAIT_S", 0.0)
    card = CARD.model_copy(update={"source": "https://127.0.0.1:9/all.zip", "file": "a/mine.onnx"})
    with pytest.raises(
        CheckpointError, match=r"Or copy a/mine.onnx of https://127.0.0.1:9/all.zip to .*mine.onnx"
    ):
        download(card)


def test_the_cache_is_in_the_users_cache_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VITPOSE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "vitpose"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "vitpose"


def test_a_cache_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VITPOSE_CACHE", "~nobody-of-that-name")
    with pytest.raises(
        InputError, match=r"variable VITPOSE_CACHE is wrong: '~nobody-of-that-name' cannot be a path"
    ):
        find_local_files(CARD)
    (tmp_path / "file").touch()
    monkeypatch.setenv("VITPOSE_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        OutputError, match=r"mine.onnx cannot be written: .* variable VITPOSE_CACHE names another directory"
    ):
        download(CARD)


def test_a_detector_in_the_package() -> None:
    card = CARD.model_copy(update={"source": "package", "file": "config.json"})
    assert find_local_files(card) == download(card)
    assert download(card)[0].parent.name == "weights"
