"""Files of torch.export can run code when they are loaded: none is loaded without trust."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import vitpose
from vitpose.cli import app
from vitpose.engines import open_engine
from vitpose.errors import InputError, VitPoseError

Export = Callable[[str], Path]
Files = dict[str, bytes]
SAMPLES, WEIGHTS, PROGRAM = (
    "small/data/sample_inputs/model.pt",
    "small/data/weights/model_weights_config.json",
    "small/models/model.json",
)


class Evil:
    """Creates a marker file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.marker,)


def write(path: Path, entries: list[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries:
            archive.writestr(name, data)


def with_a_pickle(files: Files, path: Path, marker: Path) -> None:
    write(path, list({**files, SAMPLES: pickle.dumps(Evil(marker))}.items()))


def with_an_entry_twice(files: Files, path: Path, marker: Path) -> None:
    """Readers differ in which of several entries with one name they use."""
    evil = (SAMPLES, pickle.dumps(Evil(marker)))
    rest = [entry for entry in files.items() if entry[0] != SAMPLES]
    # torch uses one in the middle, Python the last
    write(path, [*[evil] * 40, *rest, (SAMPLES, files[SAMPLES])])


def with_a_flag_as_a_string(files: Files, path: Path, marker: Path) -> None:
    """The string "False" is true."""
    table = json.loads(files[WEIGHTS])
    first = next(iter(table["config"].values()))
    first["use_pickle"] = "False"
    weights = {WEIGHTS: json.dumps(table).encode()}
    weights[f"small/data/weights/{first['path_name']}"] = pickle.dumps(Evil(marker))
    write(path, list({**files, **weights}.items()))


def with_two_directories(files: Files, path: Path, marker: Path) -> None:
    """Readers differ in whether they use the offset of the directory, or search for it before the end record."""
    evil, clean = path.with_suffix(".evil"), path.with_suffix(".clean")
    harm = pickle.dumps(Evil(marker)).ljust(len(files[SAMPLES]) + 64, b".")
    write(evil, list({**files, SAMPLES: harm}.items()))
    write(clean, list(files.items()))
    parts = []
    for content in (evil.read_bytes(), clean.read_bytes()):
        size, start = struct.unpack("<II", content[-10:-2])
        parts.append((content[:start], content[start : start + size], content[start + size :]))
    (harmful, first, _), (harmless, second, end) = parts
    shift = len(harmful) - len(harmless)
    moved, at = bytearray(second), 0
    while at < len(moved):
        names, extra, comment = struct.unpack("<HHH", moved[at + 28 : at + 34])
        (offset,) = struct.unpack("<I", moved[at + 42 : at + 46])
        moved[at + 42 : at + 46] = struct.pack("<I", offset + shift)
        at += 46 + names + extra + comment
    end = end[:12] + struct.pack("<II", len(first), len(harmful)) + end[20:]
    path.write_bytes(harmful + first + harmless + bytes(moved) + end)


def with_a_factory(files: Files, path: Path, marker: Path) -> None:
    """The factory of a dictionary is imported by its name."""
    folder = path.parent / "modules"
    folder.mkdir()
    (folder / f"{path.stem}_factory.py").write_text(f"open({str(marker)!r}, 'w').close()\nmade = dict\n")
    table = json.loads(files[PROGRAM])
    context = {
        "default_factory_module": f"{path.stem}_factory",
        "default_factory_name": "made",
        "dict_context": [],
    }
    kind = {"type": "collections.defaultdict", "context": context, "children_spec": []}
    signature = table["graph_module"]["module_call_graph"][0]["signature"]
    form = json.loads(signature["in_spec"])
    form[1]["children_spec"][1] = kind
    signature["in_spec"] = json.dumps(form)
    write(path, list({**files, PROGRAM: json.dumps(table).encode()}.items()))


EXPLOITS = [with_a_pickle, with_an_entry_twice, with_a_flag_as_a_string, with_two_directories, with_a_factory]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", EXPLOITS)
def test_no_code_of_a_file_runs_without_trust(
    make: Callable[[Files, Path, Path], None],
    exported: Export,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, marker = tmp_path / f"{make.__name__}.pt2", tmp_path / "marker"
    with zipfile.ZipFile(exported("torch-export")) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    if not {SAMPLES, WEIGHTS, PROGRAM} <= set(files):
        pytest.skip("this torch writes its programs in another format")
    make(files, path, marker)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    with pytest.raises(
        InputError,
        match=r"runs any code contained in it; .* pass trust=True \(--trust\)\. ONNX files run no code",
    ):
        vitpose.load(path, None, device="cpu")
    assert not marker.exists()
    with suppress(VitPoseError):
        vitpose.load(path, None, device="cpu", trust=True)
    assert marker.exists(), (
        "the file is not an exploit with this version of torch, so the test proves nothing"
    )


def test_trust_is_for_programs_only(checkpoint: Path, exported: Export) -> None:
    for model in (checkpoint, exported("onnx"), "vitpose-tiny"):
        with pytest.raises(InputError, match=r"trust=True is for \.pt2 files, .* is not one; leave it out"):
            vitpose.load(model, None, trust=True)
    with pytest.raises(InputError, match=r"trust=True is for \.pt2 files"):
        open_engine(exported("openvino"), trust=True)


def test_the_command_line_requires_trust(exported: Export, tmp_path: Path) -> None:
    path, image = tmp_path / "small.pt2", tmp_path / "a.png"
    shutil.copy(exported("torch-export"), path)
    vitpose.save_image(image, np.zeros((60, 50, 3), np.uint8))
    common = ["predict", str(image), "--model", str(path), "--detector", "whole-image", "--device", "cpu"]
    common += ["--out", str(tmp_path / "out"), "--save", "json"]
    refused = CliRunner().invoke(app, common, env={"COLUMNS": "250"})
    assert refused.exit_code == 1
    assert "pass trust=True (--trust)" in refused.stderr
    done = CliRunner().invoke(app, [*common, "--trust"], env={"COLUMNS": "250"})
    assert (done.exit_code, done.stderr) == (0, "")
    assert "(torch.export, cpu, float32)" in done.stdout
