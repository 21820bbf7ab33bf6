"""The configuration of ViTPose's vision transformer, in the form that `transformers` reads and writes.

Names, defaults and checks of `backbone_config`; independent of decoder, keypoints and weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ..errors import InputError, UnknownNameError
from ..files.hub import CONFIG_FILE
from ..files.limits import (
    MAX_CHANNELS,
    MAX_EXPERTS,
    MAX_INPUT_SIDE_PX,
    MAX_LAYERS,
    MAX_MLP_RATIO,
    MAX_PARAMETERS,
    MAX_PATCHES,
    MAX_WIDTH,
)
from ..files.settings import MutableSettings, at_most

PATCH_PADDING = 2
"""Padding of the patch convolution per side, px; the same in every published checkpoint."""

RETURNED: Mapping[str, bool] = {
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
}
"""Defaults for the outputs of a forward pass; written to files only where they differ."""


def _pair(value: Any) -> Any:
    if isinstance(value, list | tuple) and len(value) == 2:
        return tuple(value)
    if isinstance(value, int):
        return (value, value)
    raise ValueError(f"{str(value)[:80]!r} is not a size; give one number, or height and width")


def _list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


Name = Annotated[str, Field(max_length=64)]
Side = Annotated[int, Field(ge=1, le=MAX_INPUT_SIDE_PX)]
Sides = Annotated[tuple[Side, Side], BeforeValidator(_pair)]
Probability = Annotated[float, Field(ge=0, lt=1)]


@dataclass(kw_only=True)
class VitPoseBackboneConfig(MutableSettings):
    """The configuration of the plain vision transformer.

    Attributes:
        image_size: Height and width of the input in pixels, in this order; one number stands for both.
        patch_size: Height and width of a patch in pixels; one number stands for both.
        num_channels: Colour channels of the input.
        hidden_size: Width d of the tokens.
        num_hidden_layers: Number of blocks.
        num_attention_heads: Number of attention heads per block; must divide `hidden_size`.
        mlp_ratio: Ratio of the inner width of the feed-forward layers to `hidden_size`.
        num_experts: Number of experts per feed-forward layer (ViTPose++); 1 is a dense network.
        part_features: Number of output features of a feed-forward layer that the expert computes: the last ones.
        hidden_act: Activation: "gelu", "gelu_new", "relu" or "silu".
        hidden_dropout_prob: Dropout rate after embeddings and projections during training.
        attention_probs_dropout_prob: Dropout rate of the attention weights during training.
        initializer_range: Standard deviation of newly initialised weights.
        layer_norm_eps: Epsilon of the layer norms: 1e-12 as in `transformers`; the original trains with 1e-6.
        qkv_bias: Whether query, key and value have a bias.
        out_features: Names of the stages whose feature maps are returned ("stem", "stage1", …).
        out_indices: The same stages as indices, 0 being the stem; default: the last stage.
        drop_path_rate: Drop-path rate of the last block during training; it grows linearly from 0 at the first block.
        output_attentions: Return each block's attention weights by default.
        output_hidden_states: Return the tokens before and after each block by default.
        return_dict: Return a `BackboneOutput` by default; False returns a tuple.

    Raises:
        InputError: A value is invalid; the message names it.
        UnknownNameError: An attribute or a stage is unknown.
    """

    image_size: Sides = (256, 192)
    patch_size: Sides = (16, 16)
    num_channels: Annotated[int, Field(ge=1, le=MAX_CHANNELS)] = 3
    hidden_size: Annotated[int, Field(ge=1, le=MAX_WIDTH)] = 768
    num_hidden_layers: Annotated[int, Field(ge=1, le=MAX_LAYERS)] = 12
    num_attention_heads: Annotated[int, Field(ge=1, le=MAX_WIDTH)] = 12
    mlp_ratio: Annotated[float, Field(gt=0, le=MAX_MLP_RATIO)] = 4
    num_experts: Annotated[int, Field(ge=1, le=MAX_EXPERTS)] = 1
    part_features: Annotated[int, Field(ge=0, le=MAX_WIDTH)] = 256
    hidden_act: Name = "gelu"
    hidden_dropout_prob: Probability = 0.0
    attention_probs_dropout_prob: Probability = 0.0
    initializer_range: Annotated[float, Field(ge=0, le=1)] = 0.02
    layer_norm_eps: Annotated[float, Field(ge=0, le=1)] = 1e-12
    qkv_bias: bool = True
    out_features: Annotated[list[Name], BeforeValidator(_list), at_most(MAX_LAYERS + 1)] | None = None
    out_indices: Annotated[list[int], BeforeValidator(_list), at_most(MAX_LAYERS + 1)] | None = None
    drop_path_rate: Probability = 0.0
    output_attentions: bool = False
    output_hidden_states: bool = False
    return_dict: bool = True

    model_type = "vitpose_backbone"
    FILE = CONFIG_FILE

    def _complete(self) -> None:
        if self.mlp_ratio == int(self.mlp_ratio):
            vars(self)["mlp_ratio"] = int(self.mlp_ratio)  # `transformers` reads integers only
        self._check_shapes()
        self._check_amount()
        self._align_outputs()

    def _check_shapes(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}; change one of them, or both at once"
            )
        if self.hidden_size * self.mlp_ratio < 1:
            raise InputError(
                f"mlp_ratio {self.mlp_ratio} leaves no inner width for hidden_size {self.hidden_size}; "
                "use a larger ratio"
            )
        if min(self.patch_size) <= 2 * PATCH_PADDING:
            raise InputError(
                f"patch_size is {self.patch_size}; its sides must be longer than {2 * PATCH_PADDING}, "
                f"as the patch convolution pads by {PATCH_PADDING}"
            )
        for what, side, patch in zip(("height", "width"), self.image_size, self.patch_size, strict=True):
            if side % patch:
                raise InputError(
                    f"image_size has the {what} {side}, which is not a multiple of the patch's {patch}; "
                    "change one of them"
                )
        if self.num_experts > 1 and not 0 < self.part_features < self.hidden_size:
            raise InputError(
                f"part_features is {self.part_features}; with {self.num_experts} experts it must lie "
                f"between 0 and hidden_size {self.hidden_size}"
            )

    def _check_amount(self) -> None:
        rows, columns = self.grid_size
        if rows * columns > MAX_PATCHES:
            raise InputError(
                f"image_size {self.image_size} has {rows * columns} patches of {self.patch_size}; "
                f"the maximum is {MAX_PATCHES}"
            )
        if self.num_parameters > MAX_PARAMETERS:
            raise InputError(
                f"a backbone of {self.num_hidden_layers} layers of width {self.hidden_size}, mlp_ratio "
                f"{self.mlp_ratio} and {self.num_experts} experts has about {self.num_parameters:.2g} parameters; "
                f"the maximum is {MAX_PARAMETERS:.2g}"
            )

    def _align_outputs(self) -> None:
        """Completes `out_indices` and `out_features` and checks that they agree."""
        names, wanted, indices = self.stage_names, self.out_features, self.out_indices
        if indices is None:
            for name in wanted or ():
                if name not in names:
                    raise UnknownNameError("stage in out_features", name, names)
            indices = [names.index(name) for name in (names[-1:] if wanted is None else wanted)]
        for index in indices:
            if not -len(names) <= index < len(names):
                raise InputError(
                    f"out_indices has {index}, but the stages are numbered 0 (the stem) to {self.num_hidden_layers}"
                )
        indices = [index % len(names) for index in indices]
        # The decoder takes the last one, and `transformers` refuses any other order.
        if not indices or indices != sorted(set(indices)):
            raise InputError(
                f"out_indices {indices} must name at least one stage, in ascending order, each once"
            )
        named = [names[index] for index in indices]
        if wanted not in (None, named):
            raise InputError(f"out_features {wanted} and out_indices {indices} disagree; give one")
        vars(self).update(out_indices=indices, out_features=named)

    def _reset_by(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        only_last = self.out_indices == [self.num_hidden_layers]
        if {"out_indices", "out_features"} & changes.keys() or ("num_hidden_layers" in changes and only_last):
            return {"out_indices": None, "out_features": None}
        return {}

    @property
    def stage_names(self) -> list[str]:
        """Names of all stages: the stem, then one per block."""
        return ["stem", *(f"stage{index}" for index in range(1, self.num_hidden_layers + 1))]

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches of an input of `image_size`."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def num_parameters(self) -> int:
        """Approximate number of parameters; biases and norms, less than 0.1 %, are not counted."""
        width, inner = self.hidden_size, int(self.hidden_size * self.mlp_ratio)
        rows, columns = self.grid_size
        embeddings = width * (
            self.num_channels * self.patch_size[0] * self.patch_size[1] + rows * columns + 1
        )
        experts = (self.num_experts - 1) * self.part_features * inner
        return embeddings + self.num_hidden_layers * (4 * width**2 + 2 * width * inner + experts)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON dictionary that `transformers` stores, alone or under `backbone_config`."""
        table = {key: value for key, value in asdict(self).items() if value != RETURNED.get(key)}
        return {
            "model_type": self.model_type,
            **table,
            "image_size": list(self.image_size),
            "patch_size": list(self.patch_size),
            "stage_names": self.stage_names,
        }

    @classmethod
    def _values_of(cls, table: Mapping[str, Any]) -> dict[str, Any]:
        kind = table.get("model_type", cls.model_type)
        inner = table.get("backbone_config")
        if kind == "vitpose" and isinstance(inner, Mapping):
            return cls._values_of(inner)
        if kind != cls.model_type:
            raise InputError(
                f"the configuration is of a {kind!r} model, not of {cls.model_type!r}; give a ViTPose checkpoint"
            )
        return super()._values_of(table)
