"""The plain vision transformer of ViTPose: patches, attention, feed-forward, block.

Parameter names are those of the original checkpoints. Independent of decoders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import InputError, UnknownNameError
from ..files.hub import ModelFiles
from .checkpoint import BackboneCheckpoint, read_backbone, write_backbone
from .config import PATCH_PADDING, VitPoseBackboneConfig
from .experts import ExpertMlp, Mlp, Routing, route
from .outputs import BackboneOutput
from .pretrained import PretrainedModule, refuse_quantised

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_new": lambda: nn.GELU(approximate="tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}

_ATTENTIONS = ("eager", "sdpa")
_CHECKPOINT_KWARGS = (
    "use_reentrant",
    "context_fn",
    "determinism_check",
    "debug",
    "early_stop",
    "preserve_rng_state",
)


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
        """Returns one token per patch, row by row."""
        return self.proj(pixels).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention with one matrix product for query, key and value."""

    def __init__(self, config: VitPoseBackboneConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.eager = False
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.qkv_bias)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, x: Float[Tensor, "b t d"], with_weights: bool = False
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b heads t t"] | None]:
        """Returns the new tokens, and the attention weights (rows sum to one) if requested, else None."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # 3 b heads t d/heads
        dropout = self.dropout if self.training else 0.0
        # On CPUs, the backward pass of the fused kernels is slow in bfloat16 (measured: benchmarks/training_step.py).
        is_slow = self.training and qkv.device.type == "cpu" and qkv.dtype == torch.bfloat16
        weights = None
        if with_weights or self.eager or is_slow:  # the fused kernels do not return the weights either
            query, key, value = qkv.contiguous()
            weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(dim=-1)
            mixed = F.dropout(weights, dropout) @ value
        else:
            query, key, value = qkv.unbind()
            mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.proj(mixed.transpose(1, 2).flatten(2)), weights if with_weights else None


class DropPath(nn.Module):
    """Stochastic depth: during training, drops the residual branch of a sample with probability `rate`."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Returns the branch with dropped samples set to zero and the others scaled to keep the mean."""
        if not self.training or self.rate == 0:
            return x
        kept = torch.empty(x.shape[0], 1, 1, device=x.device, dtype=x.dtype).bernoulli_(1 - self.rate)
        return x * kept / (1 - self.rate)


class Block(nn.Module):
    """A transformer block: attention and feed-forward, each with a layer norm before it and a residual around it."""

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
        """Returns the tokens after the block, and its attention weights if requested, else None."""
        mixed, weights = self.attn(self.norm1(x), with_weights)
        x = x + self.drop_path(self.dropout(mixed))
        x = x + self.drop_path(self.dropout(self.mlp(self.norm2(x), routing)))
        return x, weights


def _activation(name: str) -> nn.Module:
    if name not in _ACTIVATIONS:
        raise UnknownNameError("activation in hidden_act", name, _ACTIVATIONS)
    return _ACTIVATIONS[name]()


class VitPoseBackbone(PretrainedModule):
    """The vision transformer of ViTPose: crops in, tokens out.

    Args:
        config: The configuration; default: ViT-B.

    Raises:
        UnknownNameError: The activation in `hidden_act` is unknown.
    """

    config_class = VitPoseBackboneConfig

    def __init__(self, config: VitPoseBackboneConfig | None = None) -> None:
        super().__init__()
        self.config = config or VitPoseBackboneConfig()
        config, (rows, columns) = self.config, self.config.grid_size
        self.gradient_checkpointing = False
        self.gradient_checkpointing_kwargs: dict[str, Any] = {"use_reentrant": False}
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * columns, config.hidden_size))
        self.patch_embed = PatchEmbed(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        rates = torch.linspace(0, config.drop_path_rate, config.num_hidden_layers, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)
        self.last_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self._init_weights()

    def _init_weights(self) -> None:
        std = self.config.initializer_range
        drawn: list[Tensor] = [self.pos_embed]
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                drawn.append(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for weight in drawn:
            nn.init.trunc_normal_(weight, std=std) if std else nn.init.zeros_(weight)

    def positions(self, rows: int, columns: int) -> Float[Tensor, "1 t d"]:
        """Returns the position embeddings of a grid of patches, interpolated if it differs from `config.grid_size`.

        The first entry, a leftover of a class token, is added to every position, as in the original.

        Args:
            rows: Number of rows of patches.
            columns: Number of columns of patches.
        """
        first, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        if (rows, columns) != self.config.grid_size:
            grid = grid.transpose(1, 2).unflatten(2, self.config.grid_size)
            grid = F.interpolate(grid.float(), (rows, columns), mode="bicubic", align_corners=False)
            grid = grid.flatten(2).transpose(1, 2).to(first.dtype)
        return grid + first

    def embed(self, pixels: Float[Tensor, "b c hc wc"]) -> Float[Tensor, "b t d"]:
        """Turns crops into tokens with position embeddings.

        Args:
            pixels: Normalised crops.

        Raises:
            InputError: The crops are not a batch, have the wrong number of channels, or a size that is not a
                multiple of the patch size.
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
                f"pixel_values have {channels} channels, but the network requires {self.config.num_channels}; "
                "convert the crops"
            )
        if height % patch_height or width % patch_width or 0 in (height, width):
            raise InputError(
                f"pixel_values of {width}x{height} (width x height) cannot be divided into patches of "
                f"{patch_width}x{patch_height}; use multiples of the patch size"
            )
        positions = self.positions(height // patch_height, width // patch_width)
        return self.dropout(self.patch_embed(pixels) + positions)

    def forward(
        self,
        pixel_values: Float[Tensor, "b c hc wc"],
        dataset_index: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BackboneOutput | tuple[Any, ...]:
        """Returns the feature maps of the configured stages.

        Args:
            pixel_values: Normalised crops.
            dataset_index: Index of the expert, one for all samples or one per sample; required with several experts.
            output_attentions: Return each block's attention weights too; default: as in the configuration.
            output_hidden_states: Return the tokens before and after each block too; default: as in the configuration.
            return_dict: False returns a tuple; default: as in the configuration.

        Raises:
            InputError: The crops or the index do not fit the network.
        """
        config = self.config
        with_attentions = config.output_attentions if output_attentions is None else output_attentions
        with_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        # Not len(): that would make the batch size of an exported network static.
        routing = route(dataset_index, config.num_experts, pixel_values.shape[0])
        wanted = config.out_indices or []
        # Only requested features are kept, and blocks after the last requested stage are not run.
        features, states, attentions = [], [], []
        x = self.embed(pixel_values)
        for index in range(len(self.blocks) + 1 if with_attentions or with_states else wanted[-1] + 1):
            if index > 0:
                x, weights = self._run_block(self.blocks[index - 1], x, routing, with_attentions)
                attentions.append(weights)
            if index in wanted:
                features.append(self.last_norm(x))
            if with_states:
                states.append(x)
        output = BackboneOutput(
            feature_maps=tuple(features),
            hidden_states=tuple(states) if with_states else None,
            attentions=tuple(attentions) if with_attentions else None,
        )
        as_dict = config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()

    def _run_block(
        self, block: nn.Module, x: Float[Tensor, "b t d"], routing: Routing | None, with_weights: bool
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b heads t t"] | None]:
        if self.gradient_checkpointing and self.training:
            return checkpoint(block, x, routing, with_weights, **self.gradient_checkpointing_kwargs)
        return block(x, routing, with_weights)

    # ------------------------------------------------------------------ the backbone interface of transformers

    @property
    def stage_names(self) -> list[str]:
        """Names of all stages: the stem, then one per block."""
        return self.config.stage_names

    @property
    def out_features(self) -> list[str]:
        """Names of the stages whose feature maps are returned; setting them sets `out_indices` too."""
        return self.config.out_features

    @out_features.setter
    def out_features(self, names: Sequence[str] | None) -> None:
        self.config.out_features = names

    @property
    def out_indices(self) -> list[int]:
        """Indices of the stages whose feature maps are returned; setting them sets `out_features` too."""
        return self.config.out_indices

    @out_indices.setter
    def out_indices(self, indices: Sequence[int] | None) -> None:
        self.config.out_indices = indices

    @property
    def num_features(self) -> list[int]:
        """Number of channels of every stage."""
        return [self.config.hidden_size] * len(self.stage_names)

    @property
    def out_feature_channels(self) -> dict[str, int]:
        """Number of channels of every stage by its name."""
        return dict(zip(self.stage_names, self.num_features, strict=True))

    @property
    def channels(self) -> list[int]:
        """Number of channels of each returned feature map."""
        return [self.out_feature_channels[name] for name in self.out_features]

    def get_input_embeddings(self) -> nn.Module:
        """Returns the patch embedding."""
        return self.patch_embed

    def set_attn_implementation(self, name: str) -> None:
        """Sets the implementation of attention.

        Args:
            name: "sdpa" (fused kernels) or "eager" (plain matrix products).

        Raises:
            UnknownNameError: The implementation is unknown.
        """
        if name not in _ATTENTIONS:
            raise UnknownNameError("attn_implementation", name, _ATTENTIONS)
        for module in self.modules():
            if isinstance(module, Attention):
                module.eager = name == "eager"

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        """Enables gradient checkpointing, which saves memory by recomputing blocks in the backward pass.

        Args:
            gradient_checkpointing_kwargs: Arguments of `torch.utils.checkpoint.checkpoint`.

        Raises:
            InputError: They are not a dictionary.
            UnknownNameError: An argument is unknown.
        """
        given = {} if gradient_checkpointing_kwargs is None else gradient_checkpointing_kwargs
        if not isinstance(given, Mapping):
            raise InputError(
                f"gradient_checkpointing_kwargs is {given!r}; give a dictionary of arguments of "
                "torch.utils.checkpoint.checkpoint, or leave it out"
            )
        for name in given:
            if name not in _CHECKPOINT_KWARGS:
                raise UnknownNameError("argument of gradient checkpointing", name, _CHECKPOINT_KWARGS)
        self.gradient_checkpointing_kwargs = {"use_reentrant": False, **given}
        self.gradient_checkpointing = True

    def gradient_checkpointing_disable(self) -> None:
        """Disables gradient checkpointing."""
        self.gradient_checkpointing = False

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether gradient checkpointing is enabled."""
        return self.gradient_checkpointing

    @classmethod
    def _read(cls, files: ModelFiles, config: Any, **options: Any) -> BackboneCheckpoint:
        return read_backbone(files, config, **options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `config.json` and `model.safetensors` of the backbone alone, as `transformers` reads them.

        Args:
            folder: The directory; created if missing. Existing files are replaced, each atomically.

        Raises:
            OutputError: A file cannot be written.
            InputError: The weights are quantised.
        """
        refuse_quantised(self)
        write_backbone(self.config, self.state_dict(), folder)
