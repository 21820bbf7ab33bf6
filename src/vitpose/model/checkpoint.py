"""Checkpoints in every form: directories of vitpose and of `transformers`, and original `.pth` files.

Parameter names are converted by `names`, configurations of original files are read by `original`, and files of
parameters are read and written by `weights`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import CheckpointError, InputError, UnknownNameError
from ..files.hub import CONFIG_FILE, ModelFiles
from ..files.writing import remove_file
from ..geometry.boxes import Size
from ..keypoints.model_spec import ModelSpec
from .config import VitPoseBackboneConfig, VitPoseConfig
from .experts import fold_state
from .names import (
    BACKBONE,
    OTHER_HEADS,
    State,
    state_for_transformers,
    state_from_original,
    state_from_transformers,
)
from .original import config_from_original
from .preprocessor_config import PROCESSOR_FILE, PreprocessorConfig
from .weights import read_pickle, read_safetensors, write_safetensors

_DTYPES = ("float32", "float16", "bfloat16", "float64")

WEIGHTS_FILE = "model.safetensors"
HEADS_FILE = "heads.safetensors"
"""Every head but the first, in a separate file, which `transformers`, with its one head, ignores."""

INDEX_FILE = "model.safetensors.index.json"
PICKLE_FILE = "pytorch_model.bin"


class Checkpoint(NamedTuple):
    """The contents of a checkpoint.

    Attributes:
        config: The configuration.
        state: The parameters under vitpose's names.
        source: Name of the checkpoint in error messages.
    """

    config: VitPoseConfig
    state: State
    source: str

    def for_dataset(self, dataset: str | int) -> Checkpoint:
        """Returns the dense one-head checkpoint with the output of this one for one dataset.

        Unchanged tensors are shared, not copied.

        Args:
            dataset: Name of the dataset, or its index.

        Raises:
            UnknownNameError: The checkpoint has no dataset of that name.
            InputError: The index is out of range, or the dataset has other keypoints.
            CheckpointError: The head or the expert is missing.
        """
        config, state = self.config, self.state
        if isinstance(dataset, str) and not config.datasets and config.num_experts == 1:
            # The file does not declare what its head was trained on.
            config, dataset = config.with_dataset(dataset), 0
        index = config.index_of(dataset)
        if config.num_experts > 1:
            state = fold_state(state, index)
        if 0 < index < len(config.heads) and not any(name.startswith(_head(index)) for name in state):
            raise CheckpointError(
                f"{self.source} declares a head for {config.heads[index].name!r} but has no parameters for it "
                f"({_head(index)}...); download the checkpoint again, with {HEADS_FILE}"
            )
        return Checkpoint(config.for_dataset(index), _with_one_head(state, index), self.source)


class BackboneCheckpoint(NamedTuple):
    """The contents of a backbone's checkpoint; parameter names without the prefix that they have in a network."""

    config: VitPoseBackboneConfig
    state: State
    source: str


def _head(index: int) -> str:
    return f"{OTHER_HEADS}{index - 1}."


def _with_one_head(state: Mapping[str, Tensor], index: int) -> State:
    """Returns the parameters with the chosen head as the first and no others."""
    chosen = _head(index)
    moved = any(name.startswith(chosen) for name in state)
    dropped = (OTHER_HEADS, "head.") if moved else OTHER_HEADS
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(dropped)}
    found = {name: tensor for name, tensor in state.items() if name.startswith(chosen)}
    return kept | {"head." + name.removeprefix(chosen): tensor for name, tensor in found.items()}


def read_checkpoint(
    files: ModelFiles,
    config: VitPoseConfig | None = None,
    *,
    dataset: str | int | None = None,
    use_safetensors: bool | None = None,
    **overrides: Any,
) -> Checkpoint:
    """Reads a checkpoint of any form.

    Args:
        files: The files, or the original file.
        config: Replaces the configuration in the checkpoint.
        dataset: Return the dense network of one dataset, by name or index.
        use_safetensors: False reads `pytorch_model.bin` instead of `model.safetensors`, without executing code from
            it; True rejects an original file.
        **overrides: Attributes that replace those of the checkpoint's configuration.

    Raises:
        UnknownNameError: The dataset or an attribute is unknown.
        InputError: The dataset's index is out of range, or arguments contradict each other.
        CheckpointError: The files are missing, damaged, unsafe, or not a ViTPose checkpoint.
    """
    if config is not None and overrides:
        raise InputError(f"both config and {', '.join(overrides)} are given; set them in the config")
    if files.is_original and (use_safetensors or files.subfolder):
        raise InputError(
            f"{files.name!r:.200} is an original file; use_safetensors and subfolder apply to directories only, "
            "leave them out"
        )
    if config is None and not files.is_original:
        # Before the weights: the file is small and shows early whether the model exists.
        config = VitPoseConfig.from_dict(files.config, f"{CONFIG_FILE} of {files.name!r}", **overrides)
        if dataset is not None and (config.num_experts > 1 or config.datasets):
            config.index_of(dataset)
    source, state = read_parameters(files, use_safetensors)
    state = state_from_original(state) if files.is_original else state_from_transformers(state)
    if not files.is_original and config is not None and len(config.datasets) > 1:
        state |= _read_heads(files.find(HEADS_FILE))
    config = config or config_from_original(state, source, dataset).changed(overrides)
    _check_counts(config, state, source)
    whole = Checkpoint(config, state, source)
    return whole if dataset is None else whole.for_dataset(dataset)


def read_parts(files: ModelFiles, dataset: str | int | Sequence[str | int] | None) -> list[Checkpoint]:
    """Reads the dense one-head checkpoint of each of several datasets; they share their equal tensors.

    Args:
        files: As in `read_checkpoint`.
        dataset: The dataset or datasets, by name or index; default: the first.

    Raises:
        UnknownNameError: A dataset is unknown.
        InputError: As in `read_checkpoint`.
        CheckpointError: As in `read_checkpoint`; or the head of a dataset is missing.
    """
    if isinstance(dataset, str | int):
        return [read_checkpoint(files, dataset=dataset)]
    whole = read_checkpoint(files)
    if dataset is not None:
        return [whole.for_dataset(name) for name in dataset]
    several = whole.config.num_experts > 1 or len(whole.config.datasets) > 1
    return [whole.for_dataset(0) if several else whole]


def read_spec(files: ModelFiles, config: VitPoseConfig) -> ModelSpec:
    """Returns the spec of a network's first head.

    If `config.json` has none, as in checkpoints of `transformers`, the spec is that of `preprocessor_config.json`, with
    the conventions of the dataset that the configuration declares. Original files, and directories without that file,
    have the default spec for the dataset and the size of the input.

    Args:
        files: The files of the network.
        config: The configuration of the network.

    Raises:
        CheckpointError: The file is missing or invalid, or missing for a backbone of another library.
    """
    if config.spec is not None:
        return config.spec
    dataset, directory = config.heads[0], files.directory
    if directory is not None and not (directory / files.subfolder / PROCESSOR_FILE).is_file():
        if not isinstance(config.backbone_config, VitPoseBackboneConfig):
            raise CheckpointError(
                f"{files.name!r} has a backbone of another library and no {PROCESSOR_FILE}, so the size of its input "
                f"is unknown; add that file, or save the checkpoint with a spec in {CONFIG_FILE}"
            )
        height, width = config.backbone_config.image_size
        return ModelSpec(dataset=dataset, input_size=Size(width=width, height=height))
    table = files.read_json(PROCESSOR_FILE)
    stored = PreprocessorConfig.from_dict(table, f"{PROCESSOR_FILE} of {files.name!r}")
    return (stored.with_dataset(dataset) if config.datasets else stored).to_spec(dataset)


def read_backbone(
    files: ModelFiles,
    config: VitPoseBackboneConfig | None = None,
    *,
    dataset: str | int | None = None,
    use_safetensors: bool | None = None,
    **overrides: Any,
) -> BackboneCheckpoint:
    """Reads a backbone: a separately saved one, or that of a whole network's checkpoint.

    Args:
        files: As in `read_checkpoint`.
        config: Replaces the configuration in the checkpoint.
        dataset: Return the dense backbone of one dataset of a whole network.
        use_safetensors: As in `read_checkpoint`.
        **overrides: Attributes that replace those of the checkpoint's configuration.

    Raises:
        UnknownNameError: An attribute is unknown.
        InputError: Arguments contradict each other or the checkpoint.
        CheckpointError: The files are missing, damaged, unsafe, or not a ViTPose backbone.
    """
    if config is not None and overrides:
        raise InputError(f"both config and {', '.join(overrides)} are given; set them in the config")
    table = {} if files.is_original else files.config
    if table.get("model_type") == VitPoseBackboneConfig.model_type:
        if dataset is not None:
            raise InputError(
                f"{files.name!r} is the checkpoint of a backbone, which has no datasets; leave out dataset={dataset!r}"
            )
        found = VitPoseBackboneConfig.from_dict(table, f"{CONFIG_FILE} of {files.name!r}")
        source, state = read_parameters(files, use_safetensors)
        state = state_from_transformers({BACKBONE + key: tensor for key, tensor in state.items()})
    else:
        whole, state, source = read_checkpoint(files, dataset=dataset, use_safetensors=use_safetensors)
        found = whole.backbone_config
        if not isinstance(found, VitPoseBackboneConfig):
            raise CheckpointError(f"{source} has a backbone of another library; load the whole network")
    wanted = config or found.changed(overrides)
    _check_backbone_counts(wanted, state, source)
    state = {key.removeprefix(BACKBONE): state[key] for key in state if key.startswith(BACKBONE)}
    return BackboneCheckpoint(wanted, state, source)


def _read_heads(path: Path) -> State:
    state = read_safetensors(path)
    if foreign := [name for name in state if not name.startswith(OTHER_HEADS)]:
        raise CheckpointError(
            f"{path} has the parameter {foreign[0]!r:.100}, but may contain only {OTHER_HEADS}...; "
            "download it again"
        )
    return state


def _check_counts(config: VitPoseConfig, state: State, source: str) -> None:
    """Raises an error if the configuration has more blocks, experts or heads than the file, before building any."""
    if isinstance(config.backbone_config, VitPoseBackboneConfig):
        _check_backbone_counts(config.backbone_config, state, source)
    heads = 1 + _count(re.escape(OTHER_HEADS) + r"(\d+)\.", state)
    _check_count("datasets", len(config.heads), heads, source)


def _check_backbone_counts(config: VitPoseBackboneConfig, state: State, source: str) -> None:
    blocks = _count(r"backbone\.blocks\.(\d+)\.", state)
    experts = _count(r"backbone\.blocks\.0\.mlp\.experts\.(\d+)\.", state)
    _check_count("num_hidden_layers", config.num_hidden_layers, blocks, source)
    _check_count("num_experts", config.num_experts, max(1, experts), source)


def _count(pattern: str, state: State) -> int:
    return len({match[1] for name in state if (match := re.match(pattern, name))})


def _check_count(name: str, wanted: int, found: int, source: str) -> None:
    if wanted > found:
        raise CheckpointError(
            f"{source} does not fit the model: {name} is {wanted} in the configuration, but the file has parameters "
            f"for {found}; correct the configuration or download the file again"
        )


def read_parameters(files: ModelFiles, use_safetensors: bool | None) -> tuple[str, State]:
    """Returns the source's name for error messages, and its parameters under the names in the file.

    Args:
        files: As in `read_checkpoint`.
        use_safetensors: As in `read_checkpoint`.

    Raises:
        CheckpointError: The files are missing, damaged or unsafe.
    """
    if files.is_original:
        return files.name, read_pickle(Path(files.name))
    if use_safetensors is False:
        path = files.find(PICKLE_FILE)
        return str(path), read_pickle(path, ())
    try:
        path = files.find(WEIGHTS_FILE)
    except CheckpointError as missing:
        return files.name, _read_shards(files, missing)
    return str(path), read_safetensors(path)


def _read_shards(files: ModelFiles, missing: CheckpointError) -> State:
    try:
        index = files.read_json(INDEX_FILE)
    except CheckpointError:
        raise missing from None
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise CheckpointError(
            f"{INDEX_FILE} of {files.name!r} has no 'weight_map' from parameters to files; download it again"
        )
    state: State = {}
    for shard in sorted(set(shards.values())):
        state |= read_safetensors(files.find(shard))
    return state


def resolve_dtype(dtype: torch.dtype | str | None, state: State) -> torch.dtype:
    """Returns the floating-point type of a name.

    Args:
        dtype: The type or its name; "auto" is the type in the file, None is float32.
        state: The parameters of the file.

    Raises:
        UnknownNameError: The name is unknown or not a floating-point type.
    """
    if dtype is None:
        return torch.float32
    if dtype == "auto":
        found = (tensor.dtype for tensor in state.values() if tensor.is_floating_point())
        return next(found, torch.float32)
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise UnknownNameError("dtype", str(dtype), (*_DTYPES, "auto"))
    return getattr(torch, name)


def write_checkpoint(config: VitPoseConfig, state: Mapping[str, Tensor], folder: str | Path) -> None:
    """Writes `config.json`, `model.safetensors`, and `heads.safetensors` if there is more than one head.

    If the configuration has a spec, `preprocessor_config.json` is written too, for `transformers`. Each file is written
    atomically.

    Args:
        config: The network's configuration.
        state: Its parameters, under vitpose's names.
        folder: The directory; created if missing. Existing files are replaced.

    Raises:
        OutputError: A file cannot be written.
    """
    named = state_for_transformers(state)
    others = {name: tensor for name, tensor in named.items() if name.startswith(OTHER_HEADS)}
    write_safetensors(
        Path(folder) / WEIGHTS_FILE, {name: named[name] for name in named.keys() - others.keys()}
    )
    if others:
        write_safetensors(Path(folder) / HEADS_FILE, others)
    else:
        remove_file(Path(folder) / HEADS_FILE)  # left over from another network
    config.save_pretrained(folder)
    if config.spec is not None:
        PreprocessorConfig.from_spec(config.spec).save_pretrained(folder)


def write_backbone(config: VitPoseBackboneConfig, state: Mapping[str, Tensor], folder: str | Path) -> None:
    """Writes `config.json` and `model.safetensors` of a backbone.

    Args:
        config: The backbone's configuration.
        state: Its parameters, without the prefix that they have in a network.
        folder: The directory; created if missing.

    Raises:
        OutputError: A file cannot be written.
    """
    named = state_for_transformers({BACKBONE + name: tensor for name, tensor in state.items()})
    alone = {name.removeprefix(BACKBONE): tensor for name, tensor in named.items()}
    write_safetensors(Path(folder) / WEIGHTS_FILE, alone)
    config.save_pretrained(folder)
