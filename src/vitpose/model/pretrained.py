"""What the network and its backbone have in common with every model of `transformers`: from a name to a network."""

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
from ..hardware.devices import choose_device
from .checkpoint import BackboneCheckpoint, Checkpoint, resolve_dtype
from .config import VitPoseConfig
from .fitting import check_fit, compare, load_strictly
from .quantisation import is_quantised, quantise

if TYPE_CHECKING:
    from typing import Self

logger = logging.getLogger(__name__)


class PretrainedModule(nn.Module):
    """A network that is made from a configuration, and loaded as those of `transformers` are."""

    config: Any
    config_class: ClassVar[type]
    computes_tables = False
    """Whether building it computes what no file holds."""
    source: tuple[str | Path, dict[str, Any]] | None = None
    """Name and arguments of the hub that the weights came by; None where they are not those of a whole checkpoint."""

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the weights."""
        return next(self.parameters()).dtype

    def num_parameters(self, only_trainable: bool = False) -> int:
        """Returns the number of parameters.

        Args:
            only_trainable: Count only those that are trained.
        """
        return sum(own.numel() for own in self.parameters() if own.requires_grad or not only_trainable)

    def set_attn_implementation(self, name: str) -> None:
        """Chooses how attention is computed: "sdpa" (fused kernels) or "eager" (plain matrix products)."""
        raise NotImplementedError

    @classmethod
    def _read(cls, name: str | Path, config: Any, **options: Any) -> Checkpoint | BackboneCheckpoint:
        """Reads the files of such a model; the checkpoint's configuration is of `config_class`."""
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
            config: Takes the place of the one in the checkpoint.
            dataset: Load the dense network of one dataset out of a ViTPose++ checkpoint, by name ("ap10k") or
                number: expert folded in, with its head and conventions. Of a file with one head that does not
                say what it was trained on, this says it.
            dtype: Floating-point type of the weights ("float32", "bfloat16", torch.float16, …); "auto" is
                the type in the file; default: float32.
            torch_dtype: The former name of dtype in `transformers`.
            device: Where to put it, or "auto"; default: the CPU.
            device_map: `transformers`' way of saying it: a device, "auto", or {"": device}.
            attn_implementation: "sdpa" (fused kernels) or "eager" (plain matrix products); default: "sdpa".
            quantization_config: How the weights of the linear layers are quantised: a configuration of torchao
                (`torchao.quantization.Int8WeightOnlyConfig()`), or one around it, `vitpose.TorchAoConfig` or
                `transformers.TorchAoConfig`. They keep their whole type without it.
            ignore_mismatched_sizes: Initialise anew what has another shape in the file, such as the last layer for
                another `num_labels`, instead of refusing the file; what was initialised is logged.
            output_loading_info: Return (network, dictionary) with the dictionary of `transformers`, of which only
                "mismatched_keys" can have entries: (name, shape in the file, shape in the network).
            use_safetensors: False reads `pytorch_model.bin` in place of `model.safetensors`, without running what
                it holds; True refuses original files.
            subfolder: The directory inside the repository in which the files are.
            revision: Branch, tag or commit of a repository.
            token: Access token for the hub; True takes the stored one.
            cache_dir: Where downloads are kept.
            local_files_only: Never ask the network.
            **overrides: Attributes of the configuration that take the place of the checkpoint's (`num_labels`,
                `id2label`, `output_hidden_states`, …).

        Raises:
            UnknownNameError: No such model, dataset, type, device, keyword or kind of attention.
            InputError: Arguments contradict each other or the checkpoint; or torchao has no kernel for that
                quantisation on the device.
            CheckpointError: The files are missing, damaged, unsafe, or do not fit, or lack the dataset's head.
            MissingDependencyError: torchao is needed and not installed.
        """
        cls._refuse_unknown(overrides)
        place, wanted = _one_device(device, device_map), _one_dtype(dtype, torch_dtype)
        hub: dict[str, Any] = {"subfolder": subfolder, "revision": revision, "cache_dir": cache_dir}
        hub["local_files_only"] = local_files_only
        checkpoint = cls._read(
            name, config, dataset=dataset, use_safetensors=use_safetensors, token=token, **hub, **overrides
        )
        model, renewed = cls._assemble(checkpoint, wanted, place, ignore_mismatched_sizes)
        if attn_implementation is not None:
            model.set_attn_implementation(attn_implementation)
        if quantization_config is not None:
            quantise(model, quantization_config)
        model.source = (name, hub) if dataset is None else None  # the processor of a part may be another
        info = {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": renewed, "error_msgs": []}
        return (model, info) if output_loading_info else model

    @classmethod
    def _refuse_unknown(cls, overrides: Mapping[str, Any]) -> None:
        known = [name for name in signature(cls.from_pretrained).parameters if name != "overrides"]
        known += [own.name for own in fields(cls.config_class)]
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
        """Makes a network of a checkpoint that was read, in evaluation mode; other arguments as in `from_pretrained`.

        Where neither type nor device differ, the network's tensors are the checkpoint's own.

        Raises:
            UnknownNameError: No such type.
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
        """Returns the network, and what had other shapes in the file and was initialised anew, if that is allowed."""
        config, state, source = checkpoint.config, checkpoint.state, checkpoint.source
        wanted = resolve_dtype(dtype, state)
        if isinstance(config, VitPoseConfig) and config.use_pretrained_backbone:
            config = replace(config, use_pretrained_backbone=False)  # the checkpoint brings those weights too
        # Without memory, so that a configuration that does not fit the file costs none.
        with torch.device("meta"):
            model = cls(config)
        renewed = set()
        if renew and (names := compare(model, state).mismatched):
            logger.warning("%s: initialised anew because of other sizes: %s", source, ", ".join(names))
            fresh = cls(config).state_dict()
            renewed = {(name, state[name].shape, fresh[name].shape) for name in names}
            state = state | {name: fresh[name] for name in names}
        check_fit(model, state, source)
        if model.computes_tables:
            model = cls(config)
        load_strictly(model, state, source)
        return model.to(device, wanted).eval(), renewed


def refuse_quantised(model: nn.Module) -> None:
    """Refuses to save quantised weights.

    Raises:
        InputError: They are.
    """
    if is_quantised(model):
        raise InputError(
            "the weights are quantised, which the files have no form for; save the model as it was loaded "
            "without quantization_config, and quantise when loading"
        )


def _one_dtype(dtype: Any, torch_dtype: Any) -> Any:
    if dtype is not None and torch_dtype is not None and dtype != torch_dtype:
        raise InputError(f"both dtype {dtype!r} and torch_dtype {torch_dtype!r} are given; give one")
    return torch_dtype if dtype is None else dtype


def _one_device(device: Any, device_map: Any) -> torch.device:
    if device is not None and device_map is not None:
        raise InputError(f"both device {device!r} and device_map {device_map!r} are given; give one")
    if isinstance(device_map, dict):
        places = set(map(str, device_map.values()))
        if len(places) != 1:
            raise InputError(f"device_map {device_map!r} must put the whole network on one device")
        device_map = places.pop()
    chosen = device if device is not None else device_map
    return choose_device("cpu" if chosen is None else chosen)
