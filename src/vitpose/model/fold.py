"""The network optimised for inference: the same heatmaps, up to rounding, with less computation and memory.

Contains every optimisation that does not apply to training or files; the network that is trained, saved and loaded is
that of `pose`. Folding an expert, which gives an ordinary dense network, is in `experts`.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .backbone import Block, VitPoseBackbone
from .decoder import ClassicDecoder, widened
from .experts import Mlp
from .pose import VitPoseForPoseEstimation

CROPS_PER_PASS = 8
"""Crops per pass through the blocks on a CPU: enough for full speed, few enough for its caches."""


class InferenceNetwork(nn.Module):
    """A network for inference only: crops in, heatmaps out, no backward pass.

    Shares the weights of the network that it is made from, except for the few of the decoder.

    Args:
        model: A dense network in evaluation mode, on the device and in the dtype to run in.
        in_place: Run all blocks in shared scratch buffers, which saves the cost of memory allocation on a CPU, but is
            of no use where memory comes from a pool (CUDA) or is planned by a compiler; default: True on a CPU.
            Ignored if the backbone has experts or is another library's, or its weights are tensor subclasses
            (quantised).
    """

    def __init__(self, model: VitPoseForPoseEstimation, in_place: bool | None = None) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.decoder = fold_decoder(model.head).requires_grad_(False).eval()
        wanted = model.device.type == "cpu" if in_place is None else in_place
        self.in_place = wanted and _runs_in_place(model.backbone)

    def forward(self, pixels: Float[Tensor, "b c hc wc"]) -> Float[Tensor, "b k hm wm"]:
        """Returns the heatmaps of normalised crops."""
        features = self._features(pixels)
        if features.ndim == 3:
            rows = pixels.shape[2] // self.backbone.config.patch_size[0]
            features = features.unflatten(1, (rows, -1)).permute(0, 3, 1, 2)  # channels last, without a copy
        return self.decoder(features)

    def _features(self, pixels: Float[Tensor, "b c hc wc"]) -> Float[Tensor, "..."]:
        if self.in_place:
            return _tokens_in_place(cast("VitPoseBackbone", self.backbone), pixels)
        # Only the features are used, so other outputs are disabled whatever the configuration.
        output = self.backbone(pixels, output_attentions=False, output_hidden_states=False, return_dict=True)
        return output.feature_maps[-1]


def fold_decoder(head: nn.Module) -> nn.Module:
    """Returns a copy of a decoder optimised for inference, with the same output up to rounding."""
    folded: Any = _without_batch_norm(head) if isinstance(head, ClassicDecoder) else copy.deepcopy(head)
    for parameter in folded.final_layer.parameters():
        parameter.data = widened(parameter.data)  # once instead of at every call
    return folded


def _without_batch_norm(head: ClassicDecoder) -> ClassicDecoder:
    """Folds each BatchNorm into the deconvolution before it; channels last is faster on CPUs and GPUs."""
    steps: list[Any] = list(head.deconv_layers)
    layers: list[nn.Module] = []
    for deconvolution, norm in zip(steps[::3], steps[1::3], strict=True):
        layers += [fuse_conv_bn_eval(deconvolution, norm, transpose=True), nn.ReLU(inplace=True)]  # a copy
    folded = copy.deepcopy(head)
    folded.deconv_layers = nn.Sequential(*layers)
    for parameter in folded.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return folded


def _runs_in_place(backbone: Any) -> bool:
    """Returns whether `_tokens_in_place` supports the backbone: dense blocks of `VitPoseBackbone`, plain tensors."""
    return (
        isinstance(backbone, VitPoseBackbone)
        and all(isinstance(block.mlp, Mlp) for block in backbone.blocks)
        and all(type(parameter.data) is Tensor for parameter in backbone.parameters())
    )


@torch.no_grad()
def _tokens_in_place(backbone: VitPoseBackbone, pixels: Float[Tensor, "b c hc wc"]) -> Float[Tensor, "b t d"]:
    """Computes the backbone's tokens, a few crops at a time, in three shared scratch buffers."""
    parts = [_run_blocks(backbone, backbone.embed(part)) for part in pixels.split(CROPS_PER_PASS)]
    return torch.cat(parts) if len(parts) != 1 else parts[0]


def _run_blocks(backbone: VitPoseBackbone, embedded: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
    config, (batch, count, width) = backbone.config, embedded.shape
    tokens = embedded.contiguous().flatten(0, 1)
    wide = tokens.new_empty(len(tokens), int(width * config.mlp_ratio))
    qkv, narrow = tokens.new_empty(batch, count, 3 * width), torch.empty_like(tokens)
    for block in list(backbone.blocks)[: cast("list[int]", config.out_indices)[-1]]:
        _run_block(cast("Block", block), tokens, qkv, wide, narrow)
    return backbone.last_norm(tokens).view_as(embedded)


def _run_block(
    block: Block,
    tokens: Float[Tensor, "bt d"],
    qkv: Float[Tensor, "b t three_d"],
    wide: Float[Tensor, "bt e"],
    narrow: Float[Tensor, "bt d"],
) -> None:
    """Applies the block to the tokens in place; the other tensors are scratch buffers."""
    _project(block.attn.qkv, block.norm1(tokens), qkv.flatten(0, 1))  # the flattened tensor is a view
    split = qkv.unflatten(-1, (3, block.attn.heads, tokens.shape[1] // block.attn.heads))
    query, key, value = split.permute(2, 0, 3, 1, 4)  # each b heads t d/heads
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(tokens.shape)
    tokens += _project(block.attn.proj, mixed, narrow)
    mlp = cast("Mlp", block.mlp)
    _activate(mlp.activation, _project(mlp.fc1, block.norm2(tokens), wide))
    tokens += _project(mlp.fc2, wide, narrow)


def _project(layer: nn.Linear, x: Float[Tensor, "bt d"], out: Float[Tensor, "bt e"]) -> Float[Tensor, "bt e"]:
    if layer.bias is None:
        return torch.mm(x, layer.weight.T, out=out)
    return torch.addmm(layer.bias, x, layer.weight.T, out=out)


def _activate(activation: nn.Module, x: Float[Tensor, "bt e"]) -> None:
    if isinstance(activation, nn.GELU):
        torch.ops.aten.gelu_(x, approximate=activation.approximate)
    else:
        x.copy_(activation(x))
