"""The plain vision transformer of ViTPose: patches, attention, feed-forward, block.

Parameter names are those of the original checkpoints. Knows no decoder and no files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import InputError, UnknownNameError
from .config import PATCH_PADDING, VitPoseBackboneConfig
from .experts import ExpertMlp, Mlp, Routing, route

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_new": lambda: nn.GELU(approximate="tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}


@dataclass
class BackboneOutput:
    """What a backbone returns: ours tokens (b t d), another library's maps (b d h w) of any sizes.

    Attributes:
        feature_maps: The normalised tokens of each stage in `out_features`.
        hidden_states: The tokens after the embedding and after each block, if asked for.
        attentions: The attention of each block (b heads t t; rows sum to one), if asked for.
    """

    feature_maps: tuple[Float[Tensor, "..."], ...]
    hidden_states: tuple[Float[Tensor, "..."], ...] | None = None
    attentions: tuple[Float[Tensor, "..."], ...] | None = None


class PatchEmbed(nn.Module):
    """Cuts a crop into patches and projects each to a token."""

    def __init__(self, config: VitPoseBackboneConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(
            config.num_channels,
            config.hidden_size,
            config.patch_size,
            config.patch_size,
            padding=PATCH_PADDING,
        )

    def forward(self, pixels: Float[Tensor, "b c hc wc"]) -> Float[Tensor, "b t d"]:
        """Returns one token a patch, row by row."""
        return self.proj(pixels).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention with one matrix product for query, key and value."""

    def __init__(self, config: VitPoseBackboneConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.qkv_bias)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, x: Float[Tensor, "b t d"], with_weights: bool = False
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b heads t t"] | None]:
        """Returns the mixed tokens, and the attention (rows sum to one) if asked for."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each b heads t d/heads
        dropout = self.dropout if self.training else 0.0
        if not with_weights:
            mixed, weights = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout), None
        else:
            # The fused kernels never hold the weights, so they are formed here when somebody looks.
            weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(dim=-1)
            mixed = F.dropout(weights, dropout) @ value
        return self.proj(mixed.transpose(1, 2).flatten(2)), weights


class DropPath(nn.Module):
    """Stochastic depth: in training, skips the residual branch of a sample with probability `rate`."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Returns the branch, with whole samples at zero and the others scaled up to keep the mean."""
        if not self.training or self.rate == 0:
            return x
        kept = torch.empty(x.shape[0], 1, 1, device=x.device, dtype=x.dtype).bernoulli_(1 - self.rate)
        return x * kept / (1 - self.rate)


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and beside a residual."""

    def __init__(self, config: VitPoseBackboneConfig, drop_path: float) -> None:
        super().__init__()
        width, hidden = config.hidden_size, int(config.hidden_size * config.mlp_ratio)
        activation = _activation(config.hidden_act)
        self.norm1 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.mlp: nn.Module
        if config.num_experts == 1:
            self.mlp = Mlp(width, hidden, activation)
        else:
            self.mlp = ExpertMlp(width, hidden, activation, config.num_experts, config.part_features)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Float[Tensor, "b t d"], routing: Routing | None, with_weights: bool = False
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b heads t t"] | None]:
        """Returns the tokens after the block, and its attention if asked for."""
        mixed, weights = self.attn(self.norm1(x), with_weights)
        x = x + self.drop_path(self.dropout(mixed))
        x = x + self.drop_path(self.dropout(self.mlp(self.norm2(x), routing)))
        return x, weights


def _activation(name: str) -> nn.Module:
    if name not in _ACTIVATIONS:
        raise UnknownNameError("activation in hidden_act", name, _ACTIVATIONS)
    return _ACTIVATIONS[name]()


class VitPoseBackbone(nn.Module):
    """The vision transformer that turns crops into tokens.

    Args:
        config: Its sizes; ViT-B without one.
    """

    def __init__(self, config: VitPoseBackboneConfig | None = None) -> None:
        super().__init__()
        self.config = config or VitPoseBackboneConfig()
        config, (rows, columns) = self.config, self.config.grid_size
        self.gradient_checkpointing = False
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * columns, config.hidden_size))
        self.patch_embed = PatchEmbed(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        rates = torch.linspace(0, config.drop_path_rate, config.num_hidden_layers, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)
        self.last_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self._init_weights()

    def _init_weights(self) -> None:
        spread = self.config.initializer_range
        nn.init.trunc_normal_(self.pos_embed, std=spread)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=spread)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def positions(self, rows: int, columns: int) -> Float[Tensor, "1 t d"]:
        """Returns the position embeddings of a grid of patches, resampled where it is not the trained one.

        The first entry, left over from a class token, is added to every position, as in the original.
        """
        first, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        if (rows, columns) != self.config.grid_size:
            grid = grid.transpose(1, 2).unflatten(2, self.config.grid_size)
            grid = F.interpolate(grid.float(), (rows, columns), mode="bicubic", align_corners=False)
            grid = grid.flatten(2).transpose(1, 2).to(first.dtype)
        return grid + first

    def embed(self, pixels: Float[Tensor, "b c hc wc"]) -> Float[Tensor, "b t d"]:
        """Turns crops into tokens with their positions.

        Raises:
            InputError: The crops are no batch, have the wrong number of channels, or a size that the patch
                does not divide.
        """
        if pixels.ndim != 4:
            raise InputError(
                f"pixel_values have the shape {tuple(pixels.shape)}; give a batch: "
                f"crops, {self.config.num_channels} channels, height, width"
            )
        channels, height, width = pixels.shape[1:]
        patch_height, patch_width = self.config.patch_size
        if channels != self.config.num_channels:
            raise InputError(
                f"pixel_values have {channels} channels, the network takes {self.config.num_channels}"
            )
        if height % patch_height or width % patch_width or 0 in (height, width):
            raise InputError(
                f"pixel_values of {width}x{height} (width x height) do not divide into patches of "
                f"{patch_width}x{patch_height}; choose multiples of the patch"
            )
        positions = self.positions(height // patch_height, width // patch_width)
        return self.dropout(self.patch_embed(pixels) + positions)

    def forward(
        self,
        pixel_values: Float[Tensor, "b c hc wc"],
        dataset_index: Any = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> BackboneOutput:
        """Returns the feature maps of the configured stages.

        Args:
            pixel_values: Normalised crops.
            dataset_index: Which expert, for all samples or one a sample; required with several experts.
            output_attentions: Return each block's attention too.
            output_hidden_states: Return the tokens before and after each block too.

        Raises:
            InputError: The crops or the index do not fit the network.
        """
        # Not len(): that would fix the number of crops of an exported network.
        routing = route(dataset_index, self.config.num_experts, pixel_values.shape[0])
        x = self.embed(pixel_values)
        stages, attentions, wanted = [x], [], self.config.out_indices or []
        for block in self.blocks:
            if self.gradient_checkpointing and self.training:
                x, weights = checkpoint(block, x, routing, output_attentions, use_reentrant=False)
            else:
                x, weights = block(x, routing, output_attentions)
            stages.append(x)
            attentions.append(weights)
        return BackboneOutput(
            feature_maps=tuple(self.last_norm(stages[index]) for index in wanted),
            hidden_states=tuple(stages) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )
