"""The weights of a network quantised by torchao. Which kernels there are, torchao says; this says it plainly."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..errors import InputError, UnknownNameError, require

_BY_NAME = {
    "int4_weight_only": "Int4WeightOnlyConfig",
    "int8_weight_only": "Int8WeightOnlyConfig",
    "int8_dynamic_activation_int8_weight": "Int8DynamicActivationInt8WeightConfig",
}
_ON_CPU = (
    "on a CPU Int8WeightOnlyConfig(), Int8DynamicActivationInt8WeightConfig() and, with weights rounded to 4 bits but "
    "kept in 8, IntxWeightOnlyConfig(torch.int4, PerGroup(64)) of torchao.quantization work"
)


class TorchAoConfig:
    """How weights are quantised, in the form of the documentation of ViTPose in `transformers`.

    That form names the kind by a text, which the class of this name in `transformers` 5 no longer takes.

    Args:
        quant_type: "int4_weight_only", "int8_weight_only", "int8_dynamic_activation_int8_weight", or a configuration of
            torchao.
        modules_to_not_convert: Which modules keep their weights, with all that is in them, by the rule of
            `transformers`: the beginning of a name up to a dot ("backbone.blocks.0"), which may be a regular
            expression ("backbone.blocks.[01]"), or the end of a linear layer's name ("fc1").
        **options: Arguments of torchao's configuration of that name, such as group_size.

    Raises:
        UnknownNameError: No such kind.
        InputError: The kind has no such options, or it is neither a name nor a configuration.
        MissingDependencyError: torchao is not installed.
    """

    def __init__(
        self, quant_type: Any, modules_to_not_convert: list[str] | None = None, **options: Any
    ) -> None:
        self.modules_to_not_convert = modules_to_not_convert
        self.quant_type = quant_type
        if isinstance(quant_type, str):
            if quant_type not in _BY_NAME:
                raise UnknownNameError("kind of quantisation", quant_type, _BY_NAME)
            library = require("torchao.quantization", "torchao", "to quantise weights")
            try:
                self.quant_type = getattr(library, _BY_NAME[quant_type])(**options)
            except (TypeError, ValueError, AssertionError) as error:
                raise InputError(f"{quant_type!r} cannot be had with {options}: {error}") from error
        elif options:
            raise InputError(f"{list(options)} belong into torchao's configuration, not beside it")


def quantise(network: nn.Module, config: Any) -> None:
    """Quantises the weights of a network's linear layers in place.

    Args:
        network: The network, on its device.
        config: A configuration of torchao, or one around it: `TorchAoConfig`, ours or that of `transformers`.

    Raises:
        InputError: It is no such configuration, names layers that are not there, or leaves layers as they are; or
            torchao has no kernel for it on the device, or the weights are quantised already.
        MissingDependencyError: torchao is not installed.
    """
    library = require("torchao.quantization", "torchao", "to quantise weights")
    core = require("torchao.core.config", "torchao", "to quantise weights")
    inner = getattr(config, "quant_type", config)
    if not isinstance(inner, core.AOBaseConfig):
        raise InputError(
            f"quantization_config {config!r:.200} is no configuration of torchao, such as "
            "torchao.quantization.Int8WeightOnlyConfig(), and no TorchAoConfig"
        )
    if is_quantised(network):
        raise InputError("the weights are quantised already; load the model without, and quantise it once")
    layers = _layers_to_convert(network, getattr(config, "modules_to_not_convert", None) or [])
    try:
        library.quantize_(network, inner, filter_fn=lambda _, name: name in layers)
        for layer in list(layers.values())[:1]:  # some kernels are only missed when they are called
            like = next(own for own in network.parameters() if own.is_floating_point() and own.ndim == 1)
            with torch.no_grad():
                layer(like.new_zeros(1, layer.in_features))
    except (ImportError, NotImplementedError, AssertionError, RuntimeError, ValueError) as error:
        raise _refusal(inner, network, error) from error
    plain = [name for name in layers if not is_quantised(network.get_submodule(name))]
    if plain:
        widths = sorted({layers[name].in_features for name in plain})
        raise InputError(
            f"{type(inner).__name__} left {len(plain)} of {len(layers)} layers as they were ({_some(plain)}), of "
            f"width {', '.join(map(str, widths))}: torchao passes over what its configuration does not fit. Take "
            "a group size that divides their width, or name them in modules_to_not_convert"
        )


def _layers_to_convert(network: nn.Module, kept: Any) -> dict[str, nn.Linear]:
    """Returns the linear layers by name, without those that shall keep their weights.

    Raises:
        InputError: What is kept are no names, or not those of linear layers, or nothing else is left.
    """
    if not isinstance(kept, list | tuple) or not all(isinstance(entry, str) for entry in kept):
        raise InputError(
            f"modules_to_not_convert {kept!r} must be a list of names, such as ['backbone.blocks.0']"
        )
    linear = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    try:
        meant = {entry: {name for name in linear if _is_meant(name, entry)} for entry in kept}
    except re.error as error:
        raise InputError(
            f"modules_to_not_convert {kept!r} has an entry that is no regular expression: {error}; correct it"
        ) from error
    if unknown := [entry for entry, names in meant.items() if not names]:
        raise InputError(
            f"modules_to_not_convert {unknown} means no linear layer, and only these are quantised; there are "
            f"{_some(list(linear))}. Correct it or leave it out"
        )
    layers = {name: module for name, module in linear.items() if name not in set().union(*meant.values())}
    if not layers:
        raise InputError(
            f"there is nothing to quantise: without modules_to_not_convert {kept!r} the network has no linear layer; "
            "leave some, or leave out the quantization_config"
        )
    return layers


def _is_meant(name: str, entry: str) -> bool:
    """Tells whether an entry of modules_to_not_convert means a layer; see `TorchAoConfig`."""
    return name.endswith(entry) or re.match(rf"(?:{entry})(?:(?=\.|$)|(?<=\.))", name) is not None


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + ", ..." * (len(names) > 4)


def _refusal(config: Any, network: nn.Module, error: Exception) -> InputError:
    import torchao

    first = next(network.parameters())
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    what = f"torchao {torchao.__version__} cannot run {type(config).__name__}"
    kind = str(first.dtype).removeprefix("torch.")
    hint = (
        _ON_CPU if first.device.type == "cpu" else "another dtype, packing format or group size may have one"
    )
    return InputError(f"{what} on {first.device} in {kind}: it has no kernel for that ({reason}); {hint}")


def is_quantised(network: nn.Module) -> bool:
    """Tells whether `quantise` changed a network's weights."""
    return any(type(own.data).__module__.startswith("torchao") for own in network.parameters())
