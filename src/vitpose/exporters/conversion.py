"""Converts a dense network to the formats of other libraries, including its metadata, without checking the result.

All formats start from one program of torch.export; it is converted to ONNX, and ONNX to the others.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ..engines.metadata import INPUT, KEY, OUTPUT, Metadata
from ..engines.openvino import require_unreported, shared_core
from ..engines.program import ENTRY
from ..errors import require
from ..model.pose import VitPoseForPoseEstimation
from .int8 import DECODER

OPSET = 20
"""Version of the ONNX operators: the first with GELU as one operator."""
_LARGEST = 2_000_000_000
"""Bytes of weights above which they are stored beside an ONNX file; protobuf is limited to 2 GiB."""


class _HeatmapsOnly(nn.Module):
    """The network with pixels as its only input and heatmaps as its only output."""

    def __init__(self, network: VitPoseForPoseEstimation) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: Tensor) -> Tensor:
        # Exported files have one output, also if the configuration requests attentions or hidden states.
        return self.network(
            pixel_values, output_attentions=False, output_hidden_states=False, return_dict=True
        ).heatmaps


def make_program(network: VitPoseForPoseEstimation, metadata: Metadata) -> torch.export.ExportedProgram:
    """Return the torch.export program of a dense network, for a dynamic number of crops of the metadata's size."""
    size = metadata.spec.input_size
    pixels = torch.zeros(2, 3, size.height, size.width, device=network.device, dtype=network.dtype)
    batch = {0: torch.export.Dim("batch", min=1)}
    with torch.no_grad(), quiet():
        program = torch.export.export(
            _HeatmapsOnly(network.eval()), (pixels,), dynamic_shapes=(batch,), strict=False
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # would write paths of this machine into the file
    return program


def write_program(network: VitPoseForPoseEstimation, metadata: Metadata, path: Path) -> None:
    """Write a `.pt2` file."""
    program = make_program(network, metadata)
    with quiet():
        torch.export.save(program, path, extra_files={ENTRY: metadata.to_json()})


def write_onnx(network: VitPoseForPoseEstimation, metadata: Metadata, path: Path) -> None:
    """Write an `.onnx` file; weights of more than 2 GB are written to `NAME.onnx.data` beside it.

    Raises:
        MissingDependencyError: onnx or onnxscript is not installed.
    """
    onnx = require("onnx", "export", "to export to ONNX")
    require("onnxscript", "export", "to export to ONNX")
    program = make_program(network, metadata)
    with quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            verbose=False,
        )
    assert exported is not None  # None only if torch is given a path to write to
    model = exported.model_proto
    for symbol in (model.graph.input[0], model.graph.output[0]):
        symbol.type.tensor_type.shape.dim[0].dim_param = "batch"
    for node in model.graph.node:
        if any(
            "'network.head'" in entry.value
            for entry in node.metadata_props
            if entry.key.endswith("name_scopes")
        ):
            node.name = DECODER + node.name
    onnx.helper.set_model_props(model, {KEY: metadata.to_json()})
    large = sum(tensor.nbytes for tensor in network.state_dict().values()) > _LARGEST
    onnx.save_model(model, path, save_as_external_data=large, location=f"{path.name}.data" if large else None)


def write_openvino(network: VitPoseForPoseEstimation, metadata: Metadata, path: Path) -> None:
    """Write an `.xml` file and the `.bin` beside it.

    Raises:
        MissingDependencyError: openvino, onnx or onnxscript is not installed.
    """
    openvino = require_unreported("openvino", "export", "to export to OpenVINO")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source = Path(folder) / "source.onnx"
        write_onnx(network, metadata, source)
        model = shared_core().read_model(source)
    model.set_rt_info(metadata.to_json(), [KEY])
    openvino.save_model(model, path, compress_to_fp16=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings of torch's exporter about its own deprecations and about optional packages."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
