"""`from_pretrained` and the other methods that the network and its backbone share with models of `transformers`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import torch
from torch import nn

from ..errors import InputError, UnknownNameError
from ..files.hub import ModelFiles, resolve
from ..hardware.devices import choose_device
from .checkpoint import BackboneCheckpoint, Checkpoint, resolve_dtype
from .config import VitPoseConfig
from .fitting import check_fit, compare, load_strictly
from .quantisation import is_quantised, quantise

if TYPE_CHECKING:
    from typing import Self

logger = logging.getLogger(__name__)


class PretrainedModule(nn.Module):
    """A network that is built from a configuration and loaded as in `transformers`."""

    config: Any
    config_class: ClassVar[type]
    computes_tables = False
    """Whether construction computes buffers that no checkpoint contains."""
    source: ModelFiles | None = None
    """The files that the weights were loaded from; None if they are not those of a whole checkpoint."""

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the weights."""
        return next(self.parameters()).dtype

    def num_parameters(self, only_trainable: bool = False) -> int:
        """Returns the number of parameters.

        Args:
            only_trainable: Count only parameters that require gradients.
        """
        return sum(
            weight.numel() for weight in self.parameters() if weight.requires_grad or not only_trainable
        )

    def set_attn_implementation(self, name: str) -> None:
        """Sets the implementation of attention: "sdpa" (fused kernels) or "eager" (plain matrix products)."""
        raise NotImplementedError

    @classmethod
    def _read(cls, files: ModelFiles, config: Any, **options: Any) -> Checkpoint | BackboneCheckpoint:
        """Reads a checkpoint whose configuration is a `config_class`."""
        raise NotImplementedError

    @overload
    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, output_loading_info: Literal[True], **options: Any
    ) -> tuple[Self, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> Self: ...

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        config: Any = None,
        dataset: str | int | None = None,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        device: Any = None,
        device_map: Any = None,
        attn_implementation: str | None = None,
        quantization_config: Any = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        use_safetensors: bool | None = None,
        subfolder: str = "",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        **overrides: Any,
    ) -> Any:
        """Loads a network in evaluation mode.

        Args:
            name: A short name (see `vitpose models`), a directory, a hub repository, or an original `.pth` or
                `.pt` file.
            config: Replaces the configuration in the checkpoint.
            dataset: Load the dense network of one dataset from a ViTPose++ checkpoint, by name ("ap10k") or index:
                the expert is folded in, and head and `DatasetSpec` are the dataset's. For a file with one head
                and no declared dataset: the name of the dataset it was trained on.
            dtype: Floating-point type of the weights ("float32", "bfloat16", torch.float16, …); "auto"
                takes the type in the file; default: float32.
            torch_dtype: Former name of `dtype` in `transformers`.
            device: Device of the network, or "auto"; default: the CPU.
            device_map: The form of `transformers`: a device, "auto", or {"": device}.
            attn_implementation: "sdpa" (fused kernels) or "eager" (plain matrix products); default: "sdpa".
            quantization_config: How to quantise the weights of the linear layers: a torchao configuration
                (`torchao.quantization.Int8WeightOnlyConfig()`), a `vitpose.TorchAoConfig` or a
                `transformers.TorchAoConfig`; default: no quantisation.
            ignore_mismatched_sizes: Reinitialise parameters whose shape in the file differs, such as the last layer
                for another `num_labels`, instead of raising an error; their names are logged.
            output_loading_info: Return (network, info) with the dictionary of `transformers`; only its
                "mismatched_keys" can have entries: (name, shape in the file, shape in the network).
            use_safetensors: False reads `pytorch_model.bin` instead of `model.safetensors`, without executing code
                from it; True rejects original files.
            subfolder: Directory of the files inside the repository.
            revision: Branch, tag or commit of a repository.
            token: Access token for the hub; True uses the stored one.
            cache_dir: Directory for downloads.
            local_files_only: Use cached files only; never access the network.
            **overrides: Attributes that replace those of the checkpoint's configuration (`num_labels`,
                `id2label`, `output_hidden_states`, …).

        Raises:
            UnknownNameError: The model, dataset, dtype, device, keyword or attention implementation is unknown.
            InputError: Arguments contradict each other or the checkpoint, or torchao has no kernel for the
                quantisation on the device.
            CheckpointError: The files are missing, damaged, unsafe, do not fit, or lack the dataset's head.
            MissingDependencyError: torchao is required and not installed.
        """
        cls._refuse_unknown(overrides)
        target, wanted = _one_device(device, device_map), _one_dtype(dtype, torch_dtype)
        files = resolve(
            name,
            subfolder=subfolder,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        checkpoint = cls._read(files, config, dataset=dataset, use_safetensors=use_safetensors, **overrides)
        model, renewed = cls._assemble(checkpoint, wanted, target, ignore_mismatched_sizes)
        if attn_implementation is not None:
            model.set_attn_implementation(attn_implementation)
        if quantization_config is not None:
            quantise(model, quantization_config)
        # The processor of one dataset may differ; the token is not kept.
        model.source = replace(files, hub={**files.hub, "token": None}) if dataset is None else None
        info = {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": renewed, "error_msgs": []}
        return (model, info) if output_loading_info else model

    @classmethod
    def _refuse_unknown(cls, overrides: Mapping[str, Any]) -> None:
        known = [name for name in signature(cls.from_pretrained).parameters if name != "overrides"]
        known += [field.name for field in fields(cls.config_class)]
        for name in overrides:
            if name not in known:
                raise UnknownNameError("argument of from_pretrained", name, known)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: Checkpoint | BackboneCheckpoint,
        *,
        dtype: torch.dtype | str | None = None,
        device: Any = "cpu",
    ) -> Self:
        """Builds a network from a checkpoint in memory, in evaluation mode.

        The network shares the checkpoint's tensors if neither dtype nor device differ.

        Args:
            checkpoint: The configuration and the parameters.
            dtype: As in `from_pretrained`.
            device: As in `from_pretrained`.

        Raises:
            UnknownNameError: The dtype is unknown.
            CheckpointError: The parameters do not fit the configuration.
        """
        return cls._assemble(checkpoint, dtype, device, renew=False)[0]

    @classmethod
    def _assemble(
        cls,
        checkpoint: Checkpoint | BackboneCheckpoint,
        dtype: torch.dtype | str | None,
        device: Any,
        renew: bool,
    ) -> tuple[Self, set[tuple[str, Any, Any]]]:
        """Returns the network and the mismatched parameters, which are reinitialised if `renew` is set."""
        config, state, source = checkpoint.config, checkpoint.state, checkpoint.source
        wanted = resolve_dtype(dtype, state)
        if isinstance(config, VitPoseConfig) and config.use_pretrained_backbone:
            config = replace(
                config, use_pretrained_backbone=False
            )  # the checkpoint contains those weights too
        # On the meta device, so that a configuration that does not fit the file allocates no memory.
        with torch.device("meta"):
            model = cls(config)
        renewed = set()
        if renew and (names := compare(model, state).mismatched):
            logger.warning("%s: reinitialised because of mismatched shapes: %s", source, ", ".join(names))
            fresh = cls(config).state_dict()
            renewed = {(name, state[name].shape, fresh[name].shape) for name in names}
            state = state | {name: fresh[name] for name in names}
        check_fit(model, state, source)
        if model.computes_tables:
            model = cls(config)
        load_strictly(model, state, source)
        return model.to(device, wanted).eval(), renewed


def refuse_quantised(model: nn.Module) -> None:
    """Raises an error if the weights of a network are quantised, since they cannot be saved.

    Raises:
        InputError: The weights are quantised.
    """
    if is_quantised(model):
        raise InputError(
            "quantised weights cannot be saved; load the model without quantization_config, save that, and "
            "quantise when loading"
        )


def _one_dtype(dtype: Any, torch_dtype: Any) -> Any:
    if dtype is not None and torch_dtype is not None and dtype != torch_dtype:
        raise InputError(f"both dtype {dtype!r} and torch_dtype {torch_dtype!r} are given; give one")
    return torch_dtype if dtype is None else dtype


def _one_device(device: Any, device_map: Any) -> torch.device:
    if device is not None and device_map is not None:
        raise InputError(f"both device {device!r} and device_map {device_map!r} are given; give one")
    if isinstance(device_map, dict):
        devices = set(map(str, device_map.values()))
        if len(devices) != 1:
            raise InputError(f"device_map {device_map!r} must put the whole network on one device")
        device_map = devices.pop()
    chosen = device if device is not None else device_map
    return choose_device("cpu" if chosen is None else chosen)
