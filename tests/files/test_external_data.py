"""The check of external data in ONNX files, compared with onnx's description of the format."""

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
    """Two entries with one key; parsers use the first or the last."""
    made = in_an_initializer("good")
    made.graph.initializer[0].external_data.add(key="location", value=location)
    return made


POSITIONS = [
    in_an_initializer, in_a_sparse_initializer, in_a_constant, in_constants, in_a_branch, in_a_sparse_constant,
    in_a_function, in_training, after_a_good_one,
]  # fmt: skip


def saved(model: onnx.ModelProto, folder: Path, tail: bytes = b"") -> Path:
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString() + tail)
    return path


@pytest.mark.parametrize("position", POSITIONS)
def test_invalid_names_are_found_wherever_a_tensor_can_be(
    position: Callable[[str], onnx.ModelProto], tmp_path: Path
) -> None:
    refuse_foreign_data(saved(position("m.onnx.data"), tmp_path))
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
        with pytest.raises(
            CheckpointError,
            match=r"m\.onnx refers to external weights .*, which is not the name of a file beside",
        ):
            refuse_foreign_data(saved(position(location), tmp_path))


def test_repeated_fields_are_all_checked(tmp_path: Path) -> None:
    """Parsers merge repeated messages: the second part of the graph counts too."""
    path = saved(in_an_initializer("good"), tmp_path, in_a_constant(MARKER).SerializeToString())
    with pytest.raises(CheckpointError, match="refers to external weights"):
        refuse_foreign_data(path)


def test_the_fields_are_all_paths_to_a_tensor_in_the_format() -> None:
    """According to onnx's description, for every message that can contain external data."""
    names = {
        "ModelProto": "model", "GraphProto": "graph", "TrainingInfoProto": "training", "FunctionProto": "function",
        "NodeProto": "node", "AttributeProto": "attribute", "SparseTensorProto": "sparse", "TensorProto": "tensor",
    }  # fmt: skip
    found: dict[str, dict[int, str]] = {"tensor": {13: "entry"}, "entry": {2: "value"}}
    pending, seen = [onnx.ModelProto.DESCRIPTOR], set()
    parents: dict[str, set[str]] = {}
    while pending:
        message = pending.pop()
        if message.name in seen:
            continue
        seen.add(message.name)
        for field in message.fields:
            if field.message_type is not None:
                parents.setdefault(field.message_type.name, set()).add(message.name)
                pending.append(field.message_type)
                if field.message_type.name in names and message.name in names:
                    fields = found.setdefault(names[message.name], {})
                    fields[field.number] = names[field.message_type.name]
    containing, grown = {"TensorProto"}, True
    while grown:
        more = {parent for child in containing for parent in parents.get(child, ())}
        grown, containing = not more <= containing, containing | more
    assert containing == set(names)
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
def test_damaged_or_ambiguous_files_are_rejected(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"m\.onnx cannot be loaded as ONNX: .*{reason}"):
        refuse_foreign_data(path)


def test_links_must_stay_in_the_directory(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(16))
    directory = tmp_path / "model"
    directory.mkdir()
    path = saved(in_an_initializer("w.data"), directory)
    (directory / "w.data").symlink_to(tmp_path / "secret")
    message = (
        r"external weights 'w\.data', a link to .*secret outside the model's directory; replace the link"
    )
    with pytest.raises(CheckpointError, match=message):
        refuse_foreign_data(path)
    (directory / "w.data").unlink()
    (directory / "blob").write_bytes(bytes(16))
    (directory / "w.data").symlink_to("blob")
    refuse_foreign_data(path)


def test_the_cache_of_the_hub_is_supported(tmp_path: Path) -> None:
    """A snapshot is a directory of links to files in one other directory."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    saved(in_an_initializer("w.data"), blobs).rename(blobs / "abc")
    (blobs / "def").write_bytes(bytes(16))
    (snapshot / "m.onnx").symlink_to(blobs / "abc")
    (snapshot / "w.data").symlink_to(blobs / "def")
    refuse_foreign_data(snapshot / "m.onnx")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_no_runtime_reads_a_memory_address(engine: str, exported: Export, tmp_path: Path) -> None:
    """In a separate process, which would crash."""
    path = tmp_path / "m.onnx"
    model = onnx.load(exported("onnx"))
    large = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
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
    assert "refers to external weights '*/_ORT_MEM_ADDR_/*'" in done.stdout


def test_models_and_detectors_are_checked(exported: Export, tmp_path: Path) -> None:
    path = saved(in_an_initializer("/etc/passwd"), tmp_path)
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(CheckpointError, match="refers to external weights '/etc/passwd'"):
            open_engine(path, engine, device="cpu")
    with pytest.raises(CheckpointError, match="refers to external weights '/etc/passwd'"):
        load_detector(f"onnx:{path}", device="cpu")
    onnx.save_model(onnx.load(exported("onnx")), tmp_path / "big.onnx", save_as_external_data=True,
                    location="big.onnx.data")  # fmt: skip
    crops = np.random.default_rng(0).integers(0, 256, (2, 64, 48, 3), np.uint8)
    wanted = open_engine(exported("onnx"), device="cpu").heatmaps(crops)
    for engine in ("onnxruntime", "openvino"):
        found = open_engine(tmp_path / "big.onnx", engine, device="cpu", dtype="float32").heatmaps(crops)
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
