"""Writes the person detector of the package as an ONNX file, for `onnx:FILE` and for other runtimes."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..detectors.person import LONG_SIDE_PX, load_network
from ..detectors.person_network import PersonNetwork
from ..errors import require
from ..files.writing import replace_file
from .conversion import OPSET, quiet


class _Scored(nn.Module):
    """The network on BGR images, with scores instead of logits."""

    def __init__(self, network: PersonNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, images: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n 4"]]:
        logits, boxes = self.network(images.flip(1))
        return logits.sigmoid(), boxes


def export_person_detector(path: str | Path, weights: str | Path | None = None) -> Path:
    """Write the detector as an ONNX file with a dynamic batch; its input is 320x320, letterboxed, BGR from 0 to 255.

    Args:
        path: The file to write.
        weights: As in `PersonDetector`.

    Returns:
        The path.

    Raises:
        CheckpointError: The weights are missing or do not fit.
        MissingDependencyError: onnx or onnxscript is not installed.
        OutputError: The file cannot be written.
    """
    for package in ("onnx", "onnxscript"):
        require(package, "export", "to export to ONNX")
    network = _Scored(load_network(weights)).eval()
    images = torch.zeros(2, 3, LONG_SIDE_PX, LONG_SIDE_PX)
    with torch.no_grad(), quiet():
        exported = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            input_names=["images"],
            output_names=["person_scores", "person_boxes"],
            opset_version=OPSET,
            verbose=False,
        )
    assert exported is not None  # None only if torch is given a path to write to
    with replace_file(Path(path)) as partial:
        partial.write_bytes(exported.model_proto.SerializeToString())
    return Path(path)
