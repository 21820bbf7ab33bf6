"""Adapter that puts backbones of timm and `transformers` behind the decoders.

Neither library is imported before such a backbone is built.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import CheckpointError, InputError, VitPoseError, require
from .config import VitPoseConfig
from .outputs import BackboneOutput


class ForeignBackbone(nn.Module):
    """A backbone of another library; the decoder reads its last feature map.

    Args:
        config: Gives the backbone's name in `backbone` (built with timm or `transformers`), or the
            configuration of a `transformers` backbone with its `model_type` in `backbone_config`.

    Raises:
        MissingDependencyError: The library is not installed.
        CheckpointError: The library has no such backbone, or cannot load its weights.
    """

    def __init__(self, config: VitPoseConfig) -> None:
        super().__init__()
        self.uses_timm = config.use_timm_backbone
        self.body: Any
        try:
            self.body = _timm_backbone(config) if self.uses_timm else _transformers_backbone(config)
            channels = self.body.feature_info.channels() if self.uses_timm else self.body.channels
        except VitPoseError:
            raise
        except Exception as error:  # other libraries raise exceptions of any type
            library = "timm" if self.uses_timm else "transformers"
            wanted = config.backbone or config.backbone_config
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(f"{library} cannot build the backbone {wanted!r:.300}: {reason}") from error
        self.config = SimpleNamespace(hidden_size=channels[-1])

    def forward(
        self,
        pixel_values: Float[Tensor, "b c hc wc"],
        dataset_index: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool = True,
    ) -> BackboneOutput:
        """Returns the feature maps (b d h w) of the backbone.

        Args:
            pixel_values: Normalised crops.
            dataset_index: Must be None: only `VitPoseBackbone` has experts.
            output_attentions: Return each block's attention weights too.
            output_hidden_states: Return the hidden states too.
            return_dict: Ignored; the result is always a `BackboneOutput`.

        Raises:
            InputError: An option is only supported by `VitPoseBackbone`, or the backbone returns tokens where the
                decoder requires feature maps.
        """
        if dataset_index is not None:
            raise InputError(
                f"dataset_index {dataset_index!r} was given, but only VitPoseBackbone has experts; "
                "leave it out"
            )
        if self.uses_timm:
            if output_attentions or output_hidden_states:
                raise InputError(
                    "a timm backbone returns neither attentions nor hidden states; leave them out"
                )
            return BackboneOutput(feature_maps=tuple(self.body(pixel_values)))
        if output_attentions:
            self._enable_attentions()
        output = self.body(
            pixel_values,
            output_attentions=bool(output_attentions),
            output_hidden_states=bool(output_hidden_states),
            return_dict=True,
        )
        if output.feature_maps[-1].ndim != 4:
            raise InputError(
                f"the backbone {type(self.body).__name__} returns features of the shape "
                f"{tuple(output.feature_maps[-1].shape)}, and the decoder requires feature maps (b, d, h, w); "
                "try reshape_hidden_states=True in its configuration"
            )
        return BackboneOutput(
            feature_maps=tuple(output.feature_maps),
            hidden_states=output.hidden_states if output_hidden_states else None,
            attentions=output.attentions if output_attentions else None,
        )

    def _enable_attentions(self) -> None:
        if not self.body.has_attentions:
            raise InputError(
                f"the backbone {type(self.body).__name__} has no attentions; leave output_attentions out"
            )
        self.body.set_attn_implementation("eager")  # fused kernels do not return attention weights

    def set_attn_implementation(self, name: str) -> None:
        """Sets the implementation of attention.

        Args:
            name: A name of `transformers`, such as "sdpa" or "eager".

        Raises:
            InputError: The backbone does not support it.
        """
        if self.uses_timm:
            raise InputError(f"a timm backbone does not support attn_implementation {name!r}; leave it out")
        try:
            self.body.set_attn_implementation(name)
        except (ValueError, ImportError) as error:
            raise InputError(
                f"{type(self.body).__name__} does not support attn_implementation {name!r}: {error!s:.200}; "
                "leave it out"
            ) from error

    def get_input_embeddings(self) -> nn.Module:
        """Raises an error: backbones have no common attribute for their embeddings.

        Raises:
            InputError: Always.
        """
        raise InputError("get_input_embeddings is supported by VitPoseBackbone only; use model.backbone.body")

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Any = None) -> None:
        """Raises an error: gradient checkpointing is supported by `VitPoseBackbone` only.

        Raises:
            InputError: Always.
        """
        raise InputError("gradient checkpointing is supported by VitPoseBackbone only; leave it disabled")

    def gradient_checkpointing_disable(self) -> None:
        """Does nothing: it is never enabled."""

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether gradient checkpointing is enabled; always False."""
        return False


def _timm_backbone(config: VitPoseConfig) -> Any:
    timm = require("timm", "timm", "for use_timm_backbone")
    options = config.backbone_kwargs or {}
    return timm.create_model(
        config.backbone, pretrained=config.use_pretrained_backbone, features_only=True, **options
    )


def _transformers_backbone(config: VitPoseConfig) -> Any:
    transformers = require("transformers", "detect", "for a backbone other than VitPoseBackbone")
    # No code may run from a checkpoint's directory, nor from a repository that it names.
    trusted = {"trust_remote_code": False}
    if config.backbone is None:
        settings = transformers.AutoConfig.for_model(**config.backbone_config)
    else:
        options = {**(config.backbone_kwargs or {}), **trusted}
        settings = transformers.AutoConfig.from_pretrained(config.backbone, **options)
    body = transformers.AutoBackbone.from_config(settings, dtype=torch.float32, **trusted)
    if not config.use_pretrained_backbone:
        return body
    # Not AutoBackbone.from_pretrained: it takes a directory's name for a timm model.
    return type(body).from_pretrained(config.backbone, config=settings, dtype=torch.float32)
