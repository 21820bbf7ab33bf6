"""Files of float32 turned into files of int8, with ranges measured on crops. Knows no network of torch."""

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
"""What the names of the decoder's operations begin with, in every file. They stay in float32: they are a small
share of the work, and the peaks are read from what they give."""
_AT_ONCE = 8


def quantise_onnx(path: Path, metadata: Metadata, crops: UInt8[np.ndarray, "n hc wc 3"]) -> None:
    """Replaces an `.onnx` file of float32, and its weights where they lie beside it, by one of int8.

    Weights have a scale for each channel, and one bit less than there is: processors without VNNI add pairs of
    products in 16 bits, which overflow otherwise. Measured with vitpose-tiny on one of these, on 128 people: maps
    differ from torch's by 5 % (relative norm), by 127 % with all bits, by 42 % where the operations between the
    products are in int8 too, and by 8 % with the decoder in int8.

    Args:
        path: The file.
        metadata: What the new file shall say of itself.
        crops: What the ranges are measured on.

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
        # What infers the shapes of symbols cannot be followed by what optimises large files.
        shapes.quant_pre_process(
            str(path), str(prepared), skip_symbolic_shape=large, save_as_external_data=large
        )
        tools.quantize_static(
            str(prepared),
            str(done),
            _reader(tools.CalibrationDataReader, _batches(crops, metadata, _AT_ONCE)),
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
    """Replaces an `.xml` file of float32, and the `.bin` beside it, by one of int8.

    Arguments are those of `quantise_onnx`. NNCF's settings for transformers smooth the activations first; without
    them maps differ by 109 % in place of 4 %, and with the decoder in int8 by 11 %, measured as there.

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
        yield {INPUT: normalise(crops[start : start + size], *metadata.processor.scale_and_offset)}


def _reader(base: type, batches: Iterator[dict[str, np.ndarray]]) -> object:
    """Returns the batches as ONNX Runtime asks for them: one a call, None in the end."""
    return type("Batches", (base,), {"get_next": lambda self: next(batches, None)})()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what the quantisers print of themselves: bars, tables, hints to prepare what is prepared."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
