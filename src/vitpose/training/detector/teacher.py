"""The teacher: RTMDet's dense predictions and features on the very images that the network is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ...detectors.person_network import STRIDES
from ...errors import CheckpointError, require

MEAN, STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)


class TeacherOutput(NamedTuple):
    """What the teacher sees: scores, xyxy boxes in pixels of the input, and the features of the three grids."""

    scores: Float[Tensor, "b n"]
    boxes: Float[Tensor, "b n 4"]
    features: list[Float[Tensor, "b c _ _"]]


class Teacher:
    """An RTMDet person detector in ONNX (arXiv 2212.07784, exported end to end by MMDeploy), cut before its decoding.

    Args:
        path: The `.onnx` file.
        threads: Threads of ONNX Runtime.

    Raises:
        CheckpointError: The file is missing or not an RTMDet detector.
        MissingDependencyError: onnx or onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, threads: int = 1) -> None:
        onnx, onnxruntime = (
            require(name, "export", "to train a detector") for name in ("onnx", "onnxruntime")
        )
        try:
            model = onnx.load(str(path))
        except Exception as error:  # the errors of onnx share no base class
            raise CheckpointError(f"{path} cannot be loaded as ONNX: {error}; give an RTMDet file") from error
        names = _head_tensors(model.graph)
        if not names:
            raise CheckpointError(
                f"{path} is not an RTMDet detector; give the file that MMDeploy exports end to end"
            )
        model.graph.value_info.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
        cut = onnx.utils.Extractor(model).extract_model([model.graph.input[0].name], names)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            cut.SerializeToString(), options, ["CPUExecutionProvider"]
        )
        self._input = model.graph.input[0].name

    def __call__(self, images: UInt8[np.ndarray, "b h w 3"]) -> TeacherOutput:
        """Return the teacher's predictions for RGB images whose sides are multiples of 32."""
        bgr = torch.from_numpy(images).flip(-1).permute(0, 3, 1, 2).float()
        mean, std = torch.tensor([MEAN, STD])[..., None, None]
        out = self._session.run(None, {self._input: ((bgr - mean) / std).contiguous().numpy()})
        out = [torch.from_numpy(array) for array in out]
        scores = torch.cat([logits.flatten(1) for logits in out[:3]], dim=1).sigmoid()
        boxes = [_decode(sides, stride) for sides, stride in zip(out[3:6], STRIDES, strict=True)]
        return TeacherOutput(scores, torch.cat(boxes, dim=1), out[6:])


def _decode(sides: Float[Tensor, "b 4 hm wm"], stride: int) -> Float[Tensor, "b n 4"]:
    """Return xyxy boxes from distances in pixels; RTMDet measures them from the corners of the cells."""
    height, width = sides.shape[2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([x, y], dim=-1).reshape(-1, 2) * float(stride)
    sides = sides.flatten(2).transpose(1, 2)
    return torch.cat([points - sides[..., :2], points + sides[..., 2:]], dim=-1)


def _head_tensors(graph: Any) -> list[str]:
    """Return the names of the logits, the distances and the features of the three grids; none in other networks."""
    makers = {name: node for node in graph.node for name in node.output}
    users = {name: node for node in graph.node for name in node.input}
    logits, distances, features = [], [], []
    for grid in range(3):
        node = users.get(f"bbox_head.rtm_cls.{grid}.weight")
        side = users.get(f"bbox_head.rtm_reg.{grid}.weight")
        if node is None or side is None:
            return []
        logits.append(node.output[0])
        while side.op_type != "Mul":  # by the stride
            side = users[side.output[0]]
        distances.append(side.output[0])
        for _ in range(4):  # two separable layers: four convolutions, each followed by x * sigmoid(x)
            node = makers[makers[node.input[0]].input[0]]
        features.append(node.input[0])
    return logits + distances + features
