"""Where ONNX files may take their tensors from, with onnx's own description of the format as the judge."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from vitpose.detectors import load_detector
from vitpose.engines import open_engine
from vitpose.errors import CheckpointError
from vitpose.files.external_data import _FIELDS, refuse_foreign_data

Export = Callable[[str], Path]
MARKER = "*/_ORT_MEM_ADDR_/*"


def tensor(location: str, name: str = "w") -> TensorProto:
    made = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        made.external_data.add(key=key, value=value)
    return made


def graph(**parts: object) -> onnx.GraphProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    return onnx.GraphProto(name="g", input=[value], output=[value], **parts)


def in_an_initializer(location: str) -> onnx.ModelProto:
    return onnx.ModelProto(ir_version=8, graph=graph(initializer=[tensor(location)]))


def in_a_sparse_initializer(location: str) -> onnx.ModelProto:
    return onnx.ModelProto(graph=graph(sparse_initializer=[onnx.SparseTensorProto(indices=tensor(location))]))


def with_attribute(**content: object) -> onnx.ModelProto:
    return onnx.ModelProto(graph=graph(node=[onnx.NodeProto(attribute=[onnx.AttributeProto(**content)])]))


def in_a_constant(location: str) -> onnx.ModelProto:
    return with_attribute(t=tensor(location))


def in_constants(location: str) -> onnx.ModelProto:
    return with_attribute(tensors=[tensor("good"), tensor(location)])


def in_a_branch(location: str) -> onnx.ModelProto:
    return with_attribute(g=graph(node=[onnx.NodeProto(attribute=[onnx.AttributeProto(graphs=[graph(
        initializer=[tensor(location)])])])]))  # fmt: skip


def in_a_sparse_constant(location: str) -> onnx.ModelProto:
    return with_attribute(sparse_tensor=onnx.SparseTensorProto(values=tensor(location)))


def in_a_function(location: str) -> onnx.ModelProto:
    node = onnx.NodeProto(attribute=[onnx.AttributeProto(t=tensor(location))])
    return onnx.ModelProto(graph=graph(), functions=[onnx.FunctionProto(node=[node])])


def in_training(location: str) -> onnx.ModelProto:
    part = onnx.TrainingInfoProto(algorithm=graph(initializer=[tensor(location)]))
    return onnx.ModelProto(graph=graph(), training_info=[part])


def after_a_good_one(location: str) -> onnx.ModelProto:
    """Two entries of one key; readers take the first or the last."""
    made = in_an_initializer("good")
    made.graph.initializer[0].external_data.add(key="location", value=location)
    return made


PLACES = [
    in_an_initializer, in_a_sparse_initializer, in_a_constant, in_constants, in_a_branch, in_a_sparse_constant,
    in_a_function, in_training, after_a_good_one,
]  # fmt: skip


def saved(model: onnx.ModelProto, folder: Path, tail: bytes = b"") -> Path:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString() + tail)
    return path


@pytest.mark.parametrize("place", PLACES)
def test_foreign_names_are_found_wherever_a_tensor_can_be(
    place: Callable[[str], onnx.ModelProto], tmp_path: Path
) -> None:
    refuse_foreign_data(saved(place("m.onnx.data"), tmp_path))
    for location in (
        MARKER,
        "/etc/passwd",
        "../weights",
        "sub/weights",
        "sub\\weights",
        "C:weights",
        "..",
        "",
    ):
        with pytest.raises(CheckpointError, match=r"m\.onnx wants to read weights from .* no file beside it"):
            refuse_foreign_data(saved(place(location), tmp_path))


def test_a_message_in_two_parts_is_one(tmp_path: Path) -> None:
    """Fields that stand twice are merged by readers: the second part of the graph counts too."""
    path = saved(in_an_initializer("good"), tmp_path, in_a_constant(MARKER).SerializeToString())
    with pytest.raises(CheckpointError, match="wants to read weights from"):
        refuse_foreign_data(path)


def test_the_way_to_every_tensor_of_the_format_is_known() -> None:
    """In onnx's own description, whatever leads to an entry of external data."""
    names = {
        "ModelProto": "model", "GraphProto": "graph", "TrainingInfoProto": "training", "FunctionProto": "function",
        "NodeProto": "node", "AttributeProto": "attribute", "SparseTensorProto": "sparse", "TensorProto": "tensor",
    }  # fmt: skip
    found: dict[str, dict[int, str]] = {"tensor": {13: "entry"}, "entry": {2: "value"}}
    waiting, seen = [onnx.ModelProto.DESCRIPTOR], set()
    leading: dict[str, set[str]] = {}
    while waiting:
        message = waiting.pop()
        if message.name in seen:
            continue
        seen.add(message.name)
        for field in message.fields:
            if field.message_type is not None:
                leading.setdefault(field.message_type.name, set()).add(message.name)
                waiting.append(field.message_type)
                if field.message_type.name in names and message.name in names:
                    own = found.setdefault(names[message.name], {})
                    own[field.number] = names[field.message_type.name]
    reaching, grown = {"TensorProto"}, True
    while grown:
        more = {parent for child in reaching for parent in leading.get(child, ())}
        grown, reaching = not more <= reaching, reaching | more
    assert reaching == set(names)
    assert found == _FIELDS
    entry = TensorProto.DESCRIPTOR.fields_by_name["external_data"]
    assert (entry.number, entry.message_type.fields_by_name["value"].number) == (13, 2)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x0b\x0c", "uses groups"),
        (b"\x3a\x05ab", "a field ends beyond its message"),
        (b"\x39ab", "a field ends beyond its message"),
        (b"\x3a", "it ends within a number"),
        (b"\x00\x00", "it is damaged at byte 1"),
        (b"\x08" + b"\xff" * 11, "the number before byte 11 is too long"),
        (b"\x3a\x08\x2a\x06\x6a\x04\x12\x02\xff\xfe", "invalid start byte"),
    ],
)
def test_what_readers_could_take_in_two_ways_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"m\.onnx cannot be loaded as ONNX: .*{reason}"):
        refuse_foreign_data(path)


def test_links_lead_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(16))
    home = tmp_path / "model"
    home.mkdir()
    path = saved(in_an_initializer("w.data"), home)
    (home / "w.data").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"from 'w\.data', which is a link to .*secret and leads out"):
        refuse_foreign_data(path)
    (home / "w.data").unlink()
    (home / "blob").write_bytes(bytes(16))
    (home / "w.data").symlink_to("blob")
    refuse_foreign_data(path)


def test_a_cache_that_links_whole_models_is_understood(tmp_path: Path) -> None:
    """The hub's: a folder of links to files that lie together elsewhere."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    saved(in_an_initializer("w.data"), blobs).rename(blobs / "abc")
    (blobs / "def").write_bytes(bytes(16))
    (snapshot / "m.onnx").symlink_to(blobs / "abc")
    (snapshot / "w.data").symlink_to(blobs / "def")
    refuse_foreign_data(snapshot / "m.onnx")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_no_runtime_reads_an_address(engine: str, exported: Export, tmp_path: Path) -> None:
    """In a process of its own, which a runtime that does would take down."""
    path = tmp_path / "m.onnx"
    model = onnx.load(exported("onnx"))
    large = max(model.graph.initializer, key=lambda own: len(own.raw_data))
    length = len(large.raw_data)
    large.ClearField("raw_data")
    large.data_location = TensorProto.EXTERNAL
    for key, value in (("location", MARKER), ("offset", "4096"), ("length", str(length))):
        large.external_data.add(key=key, value=value)
    onnx.save(model, path)
    code = f"""
import vitpose
try:
    vitpose.load({str(path)!r}, None, engine={engine!r}, device="cpu")
except vitpose.CheckpointError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "wants to read weights from '*/_ORT_MEM_ADDR_/*'" in done.stdout


def test_models_and_detectors_are_checked(exported: Export, tmp_path: Path) -> None:
    path = saved(in_an_initializer("/etc/passwd"), tmp_path)
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(CheckpointError, match="wants to read weights from '/etc/passwd'"):
            open_engine(path, engine, device="cpu")
    with pytest.raises(CheckpointError, match="wants to read weights from '/etc/passwd'"):
        load_detector(f"onnx:{path}", device="cpu")
    onnx.save_model(onnx.load(exported("onnx")), tmp_path / "big.onnx", save_as_external_data=True,
                    location="big.onnx.data")  # fmt: skip
    crops = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), np.uint8)
    wanted = open_engine(exported("onnx"), device="cpu").heatmaps(crops)
    for engine in ("onnxruntime", "openvino"):
        found = open_engine(tmp_path / "big.onnx", engine, device="cpu", dtype="float32").heatmaps(crops)
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
