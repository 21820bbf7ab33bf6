"""Checkpoints: our directories, those of `transformers`, and the original `.pth` files, as one object.

Owns the strict loading: a file loads whole or is refused by name. Names are `names`' business, the original's
configurations `original`'s, and files of parameters `weights`'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import CheckpointError, InputError, UnknownNameError
from ..files.hub import find_file, read_json
from ..files.writing import remove_file
from .config import CONFIG_FILE, VitPoseBackboneConfig, VitPoseConfig
from .experts import fold_state
from .names import (
    BACKBONE,
    OTHER_HEADS,
    State,
    state_for_transformers,
    state_from_original,
    state_from_transformers,
)
from .original import config_from_original, is_original
from .weights import read_pickle, read_safetensors, write_safetensors

_DTYPES = ("float32", "float16", "bfloat16", "float64")

WEIGHTS_FILE = "model.safetensors"
HEADS_FILE = "heads.safetensors"
"""Every head but the first, in a file of its own: `transformers`, which knows one head, never looks at it."""

INDEX_FILE = "model.safetensors.index.json"
PICKLE_FILE = "pytorch_model.bin"

HUB_OPTIONS = ("subfolder", "revision", "token", "cache_dir", "local_files_only")


class Checkpoint(NamedTuple):
    """What a checkpoint holds: the configuration, the parameters under our names, and how messages call it."""

    config: VitPoseConfig
    state: State
    source: str

    def for_dataset(self, dataset: str | int) -> Checkpoint:
        """Returns the dense checkpoint, with one head, that equals this one for a dataset.

        Tensors that stay as they are are shared, not copied.

        Raises:
            UnknownNameError: There is no such dataset here.
            InputError: There is no such number, or the dataset has other keypoints.
            CheckpointError: The head or the expert is missing.
        """
        config, state = self.config, self.state
        if isinstance(dataset, str) and not config.datasets and config.num_experts == 1:
            config, dataset = config.declare(dataset), 0  # nothing said what this one head was trained on
        index = config.index_of(dataset)
        if config.num_experts > 1:
            state = fold_state(state, index)
        if 0 < index < len(config.heads) and not any(name.startswith(_head(index)) for name in state):
            raise CheckpointError(
                f"{self.source} declares a head for {config.heads[index].name!r} and has no parameters of it "
                f"({_head(index)}...); fetch the checkpoint again, with {HEADS_FILE}"
            )
        return Checkpoint(config.for_dataset(index), _with_one_head(state, index), self.source)


class BackboneCheckpoint(NamedTuple):
    """What the checkpoint of a backbone alone holds; parameters without the prefix that they have in a network."""

    config: VitPoseBackboneConfig
    state: State
    source: str


def _head(index: int) -> str:
    return f"{OTHER_HEADS}{index - 1}."


def _with_one_head(state: Mapping[str, Tensor], index: int) -> State:
    """Returns the parameters with that head in the first one's place, and no other."""
    chosen = _head(index)
    moved = any(name.startswith(chosen) for name in state)
    dropped = (OTHER_HEADS, "head.") if moved else OTHER_HEADS
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(dropped)}
    found = {name: tensor for name, tensor in state.items() if name.startswith(chosen)}
    return kept | {"head." + name.removeprefix(chosen): tensor for name, tensor in found.items()}


def read_checkpoint(
    name: str | Path,
    config: VitPoseConfig | None = None,
    *,
    dataset: str | int | None = None,
    use_safetensors: bool | None = None,
    subfolder: str = "",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    **overrides: Any,
) -> Checkpoint:
    """Reads a checkpoint of any form.

    Args:
        name: A short name (see `vitpose models`), a directory, a hub repository, or an original `.pth` or `.pt`
            file.
        config: Takes the place of the one in the checkpoint.
        dataset: Take the dense network of one dataset out of it, by name or number.
        use_safetensors: False reads `pytorch_model.bin` in place of `model.safetensors`, without running what it
            holds; True refuses an original file.
        subfolder: As in `vitpose.files.hub.find_file`.
        revision: As there.
        token: As there.
        cache_dir: As there.
        local_files_only: As there.
        **overrides: Attributes of the configuration that take the place of the checkpoint's.

    Raises:
        UnknownNameError: No such model, or no such attribute.
        InputError: There is no such dataset in it, or arguments contradict each other.
        CheckpointError: The files are missing, damaged, unsafe, or not of a ViTPose.
    """
    hub: dict[str, Any] = {
        "subfolder": subfolder,
        "revision": revision,
        "token": token,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
    }
    original = is_original(name)
    if config is not None and overrides:
        raise InputError(f"both config and {', '.join(overrides)} are given; set them in the config")
    if original and (use_safetensors or subfolder):
        raise InputError(
            f"{str(name)!r:.200} is an original file; use_safetensors and subfolder are for directories, leave them out"
        )
    if config is None and not original:
        # Before the weights: it is small, and says soon whether there is such a model.
        config = VitPoseConfig.from_pretrained(name, **hub, **overrides)
        if dataset is not None and (config.num_experts > 1 or config.datasets):
            config.index_of(dataset)
    source, state = read_parameters(name, use_safetensors, hub)
    state = state_from_original(state) if original else state_from_transformers(state)
    if not original and config is not None and len(config.datasets) > 1:
        state |= _read_heads(find_file(name, HEADS_FILE, **hub))
    config = config or config_from_original(state, source, dataset).changed(overrides)
    _refuse_more_than_there_is(config, state, source)
    whole = Checkpoint(config, state, source)
    return whole if dataset is None else whole.for_dataset(dataset)


def read_backbone(
    name: str | Path,
    config: VitPoseBackboneConfig | None = None,
    *,
    dataset: str | int | None = None,
    use_safetensors: bool | None = None,
    **options: Any,
) -> BackboneCheckpoint:
    """Reads a backbone: one that was saved alone, or that of a whole network's checkpoint.

    Args:
        name: As in `read_checkpoint`.
        config: Takes the place of the one in the checkpoint.
        dataset: Of a whole network: take the dense backbone of one dataset out of it.
        use_safetensors: As in `read_checkpoint`.
        **options: What `find_file` takes, and attributes of the configuration that take the place of the checkpoint's.

    Raises:
        UnknownNameError: No such model, or no such attribute.
        InputError: Arguments contradict each other or the checkpoint.
        CheckpointError: The files are missing, damaged, unsafe, or not of ViTPose's backbone.
    """
    hub = {key: options.pop(key) for key in HUB_OPTIONS if key in options}
    if config is not None and options:
        raise InputError(f"both config and {', '.join(options)} are given; set them in the config")
    table = {} if is_original(name) else read_json(name, CONFIG_FILE, **hub)
    if table.get("model_type") == VitPoseBackboneConfig.model_type:
        if dataset is not None:
            raise InputError(
                f"{str(name)!r} is a backbone alone, which knows no datasets (dataset={dataset!r}); leave it out"
            )
        found = VitPoseBackboneConfig.from_dict(table, f"{CONFIG_FILE} of {str(name)!r}")
        source, state = read_parameters(name, use_safetensors, hub)
        state = state_from_transformers({BACKBONE + key: tensor for key, tensor in state.items()})
    else:
        whole, state, source = read_checkpoint(name, dataset=dataset, use_safetensors=use_safetensors, **hub)
        found = whole.backbone_config
        if not isinstance(found, VitPoseBackboneConfig):
            raise CheckpointError(f"{source} has another library's backbone; load the whole network")
    wanted = config or found.changed(options)
    _refuse_more_blocks(wanted, state, source)
    state = {key.removeprefix(BACKBONE): state[key] for key in state if key.startswith(BACKBONE)}
    return BackboneCheckpoint(wanted, state, source)


def _read_heads(path: Path) -> State:
    state = read_safetensors(path)
    if foreign := [name for name in state if not name.startswith(OTHER_HEADS)]:
        raise CheckpointError(
            f"{path} has the parameter {foreign[0]!r:.100}, and may only have those of {OTHER_HEADS}...; "
            "fetch it again"
        )
    return state


def _refuse_more_than_there_is(config: VitPoseConfig, state: State, source: str) -> None:
    """Refuses a configuration with more blocks, experts or heads than the file, before anything of it is built."""
    if isinstance(config.backbone_config, VitPoseBackboneConfig):
        _refuse_more_blocks(config.backbone_config, state, source)
    heads = 1 + _count(re.escape(OTHER_HEADS) + r"(\d+)\.", state)
    _refuse_more("datasets", len(config.heads), heads, source)


def _refuse_more_blocks(config: VitPoseBackboneConfig, state: State, source: str) -> None:
    blocks = _count(r"backbone\.blocks\.(\d+)\.", state)
    experts = _count(r"backbone\.blocks\.0\.mlp\.experts\.(\d+)\.", state)
    _refuse_more("num_hidden_layers", config.num_hidden_layers, blocks, source)
    _refuse_more("num_experts", config.num_experts, max(1, experts), source)


def _count(pattern: str, state: State) -> int:
    return len({match[1] for name in state if (match := re.match(pattern, name))})


def _refuse_more(name: str, wanted: int, found: int, source: str) -> None:
    if wanted > found:
        raise CheckpointError(
            f"{source} does not fit the model: {name} is {wanted} in the configuration, and the file has parameters "
            f"for {found}; correct the configuration or fetch the file again"
        )


def read_parameters(name: str | Path, use_safetensors: bool | None, hub: dict[str, Any]) -> tuple[str, State]:
    """Returns how messages call the source, and its parameters under the file's own names.

    Args:
        name: As in `read_checkpoint`.
        use_safetensors: As there.
        hub: What `find_file` takes.

    Raises:
        UnknownNameError: No such model.
        CheckpointError: The files are missing, damaged or unsafe.
    """
    if is_original(name):
        path = Path(name)
        return str(name), read_pickle(path)
    if use_safetensors is False:
        path = find_file(name, PICKLE_FILE, **hub)
        return str(path), read_pickle(path, ())
    try:
        path = find_file(name, WEIGHTS_FILE, **hub)
    except CheckpointError as missing:
        return str(name), _read_shards(name, hub, missing)
    return str(path), read_safetensors(path)


def _read_shards(name: str | Path, hub: dict[str, Any], missing: CheckpointError) -> State:
    try:
        index = read_json(name, INDEX_FILE, **hub)
    except CheckpointError:
        raise missing from None
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise CheckpointError(f"{INDEX_FILE} of {str(name)!r} has no 'weight_map' from parameters to files")
    state: State = {}
    for shard in sorted(set(shards.values())):
        state |= read_safetensors(find_file(name, shard, **hub))
    return state


def resolve_dtype(dtype: torch.dtype | str | None, state: State) -> torch.dtype:
    """Returns the floating-point type of that name; "auto" is the type in the file, None float32.

    Raises:
        UnknownNameError: No such type.
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
    """Writes `config.json`, `model.safetensors`, and `heads.safetensors` if there are further heads.

    Each is written whole or not at all.

    Args:
        config: The network's configuration.
        state: Its parameters, under our names.
        folder: Where to; made if need be. Files of that name are replaced.

    Raises:
        OutputError: They cannot be written.
    """
    named = state_for_transformers(state)
    others = {name: tensor for name, tensor in named.items() if name.startswith(OTHER_HEADS)}
    write_safetensors(
        Path(folder) / WEIGHTS_FILE, {name: named[name] for name in named.keys() - others.keys()}
    )
    if others:
        write_safetensors(Path(folder) / HEADS_FILE, others)
    else:
        remove_file(Path(folder) / HEADS_FILE)  # of another network, which was here before
    config.save_pretrained(folder)


def write_backbone(config: VitPoseBackboneConfig, state: Mapping[str, Tensor], folder: str | Path) -> None:
    """Writes `config.json` and `model.safetensors` of a backbone alone.

    Args:
        config: The backbone's configuration.
        state: Its parameters, without the prefix that they have in a network.
        folder: The directory; made if need be.

    Raises:
        OutputError: They cannot be written.
    """
    named = state_for_transformers({BACKBONE + name: tensor for name, tensor in state.items()})
    alone = {name.removeprefix(BACKBONE): tensor for name, tensor in named.items()}
    write_safetensors(Path(folder) / WEIGHTS_FILE, alone)
    config.save_pretrained(folder)
