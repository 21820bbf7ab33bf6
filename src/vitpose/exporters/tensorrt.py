"""Builds a plan of TensorRT from ONNX, for the GPU of this machine. Tested without a GPU only."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..engines.metadata import INPUT, Metadata
from ..engines.tensorrt import LARGEST_BATCH, pack
from ..errors import CheckpointError, require
from ..model.pose import VitPoseForPoseEstimation
from .conversion import write_onnx

_USUAL_BATCH = 8
"""The batch size for which TensorRT optimises the plan."""


def write_tensorrt(network: VitPoseForPoseEstimation, metadata: Metadata, path: Path) -> None:
    """Write an `.engine` file.

    Raises:
        CheckpointError: TensorRT cannot build the plan.
        MissingDependencyError: tensorrt, onnx or onnxscript is not installed.
    """
    tensorrt = require("tensorrt", "tensorrt", "to export to TensorRT")
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    definition = builder.create_network(0)
    parser = tensorrt.OnnxParser(definition, logger)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source.onnx"
        write_onnx(network, metadata, source)
        if not parser.parse_from_file(str(source)):
            reasons = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
            raise CheckpointError(
                f"TensorRT {tensorrt.__version__} cannot parse the network: {reasons}; use another version of "
                "TensorRT, or export to ONNX"
            )
        config, size = builder.create_builder_config(), metadata.spec.input_size
        config.clear_flag(
            tensorrt.BuilderFlag.TF32
        )  # its rounding exceeds the limit of the comparison with torch
        profile = builder.create_optimization_profile()
        crop = (3, size.height, size.width)
        profile.set_shape(INPUT, (1, *crop), (_USUAL_BATCH, *crop), (LARGEST_BATCH, *crop))
        if config.add_optimization_profile(profile) < 0:
            raise CheckpointError(
                f"TensorRT {tensorrt.__version__} rejects batches of 1 to {LARGEST_BATCH} crops of {size}; see its log "
                "above, or export to ONNX"
            )
        plan = builder.build_serialized_network(definition, config)
    if plan is None:
        raise CheckpointError(
            f"TensorRT {tensorrt.__version__} cannot build a plan for this GPU; see its log above, or export to ONNX"
        )
    path.write_bytes(pack(metadata, bytes(plan)))
