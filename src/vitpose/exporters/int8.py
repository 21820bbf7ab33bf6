"""Quantises exported files from float32 to int8, calibrated with crops."""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from ..engines.metadata import INPUT, KEY, Metadata
from ..engines.openvino import require_unreported, shared_core
from ..errors import require
from ..geometry.warp import normalise

DECODER = "decoder/"
"""Prefix of the names of the decoder's operations in every file. They stay in float32: they are a small share of the
work, and the keypoints are decoded from their output."""
_BATCH = 8


def quantise_onnx(path: Path, metadata: Metadata, crops: UInt8[np.ndarray, "n hc wc 3"]) -> None:
    """Replace an `.onnx` file in float32, and any weights beside it, by a file in int8.

    Weights have one scale per channel and 7 bits: CPUs without VNNI add pairs of products in 16 bits, which overflow
    with 8 bits. Measured with vitpose-tiny on such a CPU, on 128 people: heatmaps differ from torch's by 5 % (relative
    norm), by 127 % with 8 bits, by 42 % if the operations between matrix products are in int8 too, and by 8 % if the
    decoder is.

    Args:
        path: The file.
        metadata: The metadata of the new file.
        crops: The calibration data.

    Raises:
        MissingDependencyError: onnx or onnxruntime is not installed.
    """
    onnx = require("onnx", "export", "to quantise ONNX files")
    tools = require("onnxruntime.quantization", "export", "to quantise ONNX files")
    shapes = require("onnxruntime.quantization.shape_inference", "export", "to quantise ONNX files")
    weights = path.with_name(f"{path.name}.data")
    large = weights.exists()
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared, done = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        # Symbolic shape inference fails on large files and on those of torch 2.6; without it, the quantised graph is
        # the same.
        shapes.quant_pre_process(
            str(path), str(prepared), skip_symbolic_shape=True, save_as_external_data=large
        )
        tools.quantize_static(
            str(prepared),
            str(done),
            _reader(tools.CalibrationDataReader, _batches(crops, metadata, _BATCH)),
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
            nodes_to_exclude=[node.name for node in onnx.load(prepared).graph.node if DECODER in node.name],
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            use_external_data_format=large,
        )
        model = onnx.load(done)
    onnx.helper.set_model_props(model, {KEY: metadata.to_json()})
    onnx.save_model(model, path)
    weights.unlink(missing_ok=True)


def quantise_openvino(path: Path, metadata: Metadata, crops: UInt8[np.ndarray, "n hc wc 3"]) -> None:
    """Replace an `.xml` file in float32, and the `.bin` beside it, by files in int8.

    NNCF's settings for transformers smooth the activations first. Measured as in `quantise_onnx`: heatmaps differ by
    4 %, by 109 % with the default settings, and by 11 % with the decoder in int8.

    Args:
        path: The file.
        metadata: The metadata of the new file.
        crops: The calibration data.

    Raises:
        MissingDependencyError: openvino or nncf is not installed.
    """
    openvino = require_unreported("openvino", "export", "to quantise OpenVINO's files")
    with _quiet():
        nncf = require_unreported("nncf", "export", "to quantise OpenVINO's files")
    samples = nncf.Dataset(list(_batches(crops, metadata, 1)), lambda batch: batch[INPUT])
    with _quiet():
        model = nncf.quantize(
            shared_core().read_model(path),
            samples,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(crops),
            ignored_scope=nncf.IgnoredScope(patterns=[f".*{DECODER}.*"]),
        )
    model.set_rt_info(metadata.to_json(), [KEY])
    openvino.save_model(model, path, compress_to_fp16=False)


def _batches(
    crops: UInt8[np.ndarray, "n hc wc 3"], metadata: Metadata, size: int
) -> Iterator[dict[str, Float[np.ndarray, "b 3 hc wc"]]]:
    for start in range(0, len(crops), size):
        yield {INPUT: normalise(crops[start : start + size], *metadata.spec.scale_and_offset)}


def _reader(base: type, batches: Iterator[dict[str, np.ndarray]]) -> object:
    """Return the batches in the interface of ONNX Runtime: one per call, None after the last."""
    return type("Batches", (base,), {"get_next": lambda self: next(batches, None)})()


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the output of the quantisers: progress bars, tables and hints."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
