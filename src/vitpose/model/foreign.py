"""Backbones of other libraries behind our decoders: timm's, and those of `transformers`.

Owns only the adapter; neither library is imported before such a backbone is asked for.
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
    """Another library's backbone, of which the last feature map is used.

    Args:
        config: Names it by `backbone` (built through timm or `transformers`) or describes it by
            `backbone_config` with the `model_type` of a `transformers` backbone.

    Raises:
        MissingDependencyError: The library is not installed.
        CheckpointError: It knows no such backbone, or cannot get its weights.
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
        except Exception as error:  # another library fails in any way it likes
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
        """Returns the feature maps (b d h w) of the backbone, always by name.

        Raises:
            InputError: Something is asked for that only our own backbone has, or the backbone returns
                tokens where a decoder needs maps.
        """
        if dataset_index is not None:
            raise InputError(
                f"dataset_index {dataset_index!r} was given, but only ViTPose's own backbone has experts; "
                "leave it out"
            )
        if self.uses_timm:
            if output_attentions or output_hidden_states:
                raise InputError(
                    "a timm backbone returns neither attentions nor hidden states; leave them out"
                )
            return BackboneOutput(feature_maps=tuple(self.body(pixel_values)))
        if output_attentions:
            self._hold_attentions()
        output = self.body(
            pixel_values,
            output_attentions=bool(output_attentions),
            output_hidden_states=bool(output_hidden_states),
            return_dict=True,
        )
        if output.feature_maps[-1].ndim != 4:
            raise InputError(
                f"the backbone {type(self.body).__name__} returns features of the shape "
                f"{tuple(output.feature_maps[-1].shape)}, and a decoder needs maps (b, d, h, w); "
                "reshape_hidden_states=True in its configuration may make some"
            )
        return BackboneOutput(
            feature_maps=tuple(output.feature_maps),
            hidden_states=output.hidden_states if output_hidden_states else None,
            attentions=output.attentions if output_attentions else None,
        )

    def _hold_attentions(self) -> None:
        if not self.body.has_attentions:
            raise InputError(
                f"the backbone {type(self.body).__name__} has no attentions; leave output_attentions out"
            )
        self.body.set_attn_implementation("eager")  # the fused kernels return none

    def set_attn_implementation(self, name: str) -> None:
        """Chooses how attention is computed, by the names of `transformers`.

        Raises:
            InputError: The backbone has no such choice.
        """
        if self.uses_timm:
            raise InputError(f"a timm backbone has no attn_implementation {name!r}; leave it out")
        try:
            self.body.set_attn_implementation(name)
        except (ValueError, ImportError) as error:
            raise InputError(
                f"{type(self.body).__name__} has no attn_implementation {name!r}: {error!s:.200}; leave it out"
            ) from error

    def get_input_embeddings(self) -> nn.Module:
        """Refuses, since backbones have no common place for them.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "only ViTPose's backbone has get_input_embeddings here; look into model.backbone.body"
        )

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Any = None) -> None:
        """Refuses gradient checkpointing.

        Raises:
            InputError: Always.
        """
        raise InputError("only ViTPose's own backbone has gradient checkpointing here; leave it off")

    def gradient_checkpointing_disable(self) -> None:
        """Does nothing, since it is never enabled."""

    @property
    def is_gradient_checkpointing(self) -> bool:
        """False."""
        return False


def _timm_backbone(config: VitPoseConfig) -> Any:
    timm = require("timm", "timm", "for use_timm_backbone")
    options = config.backbone_kwargs or {}
    return timm.create_model(
        config.backbone, pretrained=config.use_pretrained_backbone, features_only=True, **options
    )


def _transformers_backbone(config: VitPoseConfig) -> Any:
    transformers = require("transformers", "detect", "for a backbone that is not ViTPose's")
    # Neither code of a checkpoint's directory nor of a repository that it names may run.
    trusted = {"trust_remote_code": False}
    if config.backbone is None:
        settings = transformers.AutoConfig.for_model(**config.backbone_config)
    else:
        options = {**(config.backbone_kwargs or {}), **trusted}
        settings = transformers.AutoConfig.from_pretrained(config.backbone, **options)
    body = transformers.AutoBackbone.from_config(settings, dtype=torch.float32, **trusted)
    if not config.use_pretrained_backbone:
        return body
    # Through the class itself: AutoBackbone takes the name of a folder for one of timm's.
    return type(body).from_pretrained(config.backbone, config=settings, dtype=torch.float32)
