"""Quantisation of a network's weights with torchao, with clear errors where torchao has no kernel."""

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
    "supported on a CPU, from torchao.quantization: Int8WeightOnlyConfig(), Int8DynamicActivationInt8WeightConfig(), "
    "and IntxWeightOnlyConfig(torch.int4, PerGroup(64)), which rounds to 4 bits and stores 8"
)


class TorchAoConfig:
    """How weights are quantised, in the form of the ViTPose documentation of `transformers`.

    There the kind is given by name, which `transformers.TorchAoConfig` of version 5 no longer accepts.

    Args:
        quant_type: "int4_weight_only", "int8_weight_only", "int8_dynamic_activation_int8_weight", or a configuration of
            torchao.
        modules_to_not_convert: Modules whose linear layers are not quantised, by the rule of `transformers`: the
            start of a name up to a dot ("backbone.blocks.0"), which may be a regular expression
            ("backbone.blocks.[01]"), or the end of a linear layer's name ("fc1").
        **options: Arguments of the named torchao configuration, such as group_size.

    Raises:
        UnknownNameError: The kind of quantisation is unknown.
        InputError: The options are invalid for the kind, or given in addition to a torchao configuration.
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
                raise InputError(f"{quant_type!r} does not accept the options {options}: {error}") from error
        elif options:
            raise InputError(
                f"{list(options)} are given in addition to a torchao configuration; set them in it"
            )


def quantise(network: nn.Module, config: Any) -> None:
    """Quantises the weights of a network's linear layers in place.

    Args:
        network: The network, on its device.
        config: A configuration of torchao, a `TorchAoConfig`, or a `transformers.TorchAoConfig`.

    Raises:
        InputError: The configuration has another type, names missing layers, or does not apply to every other linear
            layer; torchao has no kernel for it on the device; or the weights are quantised already.
        MissingDependencyError: torchao is not installed.
    """
    library = require("torchao.quantization", "torchao", "to quantise weights")
    core = require("torchao.core.config", "torchao", "to quantise weights")
    inner = getattr(config, "quant_type", config)
    if not isinstance(inner, core.AOBaseConfig):
        raise InputError(
            f"quantization_config {config!r:.200} is not a configuration of torchao; give one, such as "
            "torchao.quantization.Int8WeightOnlyConfig(), or a TorchAoConfig"
        )
    if is_quantised(network):
        raise InputError(
            "the weights are quantised already; load the model without quantization_config and quantise it once"
        )
    layers = _layers_to_convert(network, getattr(config, "modules_to_not_convert", None) or [])
    try:
        library.quantize_(network, inner, filter_fn=lambda _, name: name in layers)
        for layer in list(layers.values())[:1]:  # torchao finds some kernels missing only at the first call
            like = next(bias for bias in network.parameters() if bias.is_floating_point() and bias.ndim == 1)
            with torch.no_grad():
                layer(like.new_zeros(1, layer.in_features))
    except (ImportError, NotImplementedError, AssertionError, RuntimeError, ValueError) as error:
        raise _refusal(inner, network, error) from error
    plain = [name for name in layers if not is_quantised(network.get_submodule(name))]
    if plain:
        widths = sorted({layers[name].in_features for name in plain})
        raise InputError(
            f"{type(inner).__name__} did not quantise {len(plain)} of {len(layers)} layers ({_some(plain)}), of "
            f"width {', '.join(map(str, widths))}: torchao skips layers that do not fit its configuration. Choose "
            "a group size that divides their width, or name them in modules_to_not_convert"
        )


def _layers_to_convert(network: nn.Module, kept: Any) -> dict[str, nn.Linear]:
    """Returns the linear layers to quantise, by name.

    Raises:
        InputError: The modules to keep are not a list of strings, match no linear layer, or leave no other layer.
    """
    if not isinstance(kept, list | tuple) or not all(isinstance(entry, str) for entry in kept):
        raise InputError(
            f"modules_to_not_convert {kept!r} must be a list of names, such as ['backbone.blocks.0']"
        )
    linear = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    try:
        matches = {entry: {name for name in linear if _matches(name, entry)} for entry in kept}
    except re.error as error:
        raise InputError(
            f"modules_to_not_convert {kept!r} has an entry that is not a valid regular expression: {error}; correct it"
        ) from error
    if unknown := [entry for entry, names in matches.items() if not names]:
        raise InputError(
            f"modules_to_not_convert {unknown} matches no linear layer, and only these are quantised; their names are "
            f"{_some(list(linear))}. Correct it or leave it out"
        )
    layers = {name: module for name, module in linear.items() if name not in set().union(*matches.values())}
    if not layers:
        raise InputError(
            f"there is no layer to quantise: modules_to_not_convert {kept!r} matches every linear layer; "
            "remove an entry, or leave out quantization_config"
        )
    return layers


def _matches(name: str, entry: str) -> bool:
    """Returns whether an entry of modules_to_not_convert matches a layer's name; see `TorchAoConfig`."""
    return name.endswith(entry) or re.match(rf"(?:{entry})(?:(?=\.|$)|(?<=\.))", name) is not None


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + ", ..." * (len(names) > 4)


def _refusal(config: Any, network: nn.Module, error: Exception) -> InputError:
    import torchao

    first = next(network.parameters())
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    subject = f"torchao {torchao.__version__} cannot run {type(config).__name__}"
    dtype = str(first.dtype).removeprefix("torch.")
    hint = _ON_CPU if first.device.type == "cpu" else "try another dtype, packing format or group size"
    return InputError(f"{subject} on {first.device} in {dtype}: it has no kernel for that ({reason}); {hint}")


def is_quantised(network: nn.Module) -> bool:
    """Returns whether the weights of a network are quantised by torchao."""
    return any(type(weight.data).__module__.startswith("torchao") for weight in network.parameters())
