"""Weights in and out: our folders, those of `transformers`, and the original `.pth` files.

Owns every rule that turns one set of parameter names into another, and the strict loading. Inside,
parameters are called as in the original repository (with `head` for `keypoint_head`), so only the
names of `transformers`, which also splits query, key and value, need a table.
"""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..conventions import PLUS_DATASETS, Conventions
from ..errors import CheckpointError, UnknownNameError
from ..files import remove_file, replace_file
from ..hub import find_file, read_json
from ..skeleton import Skeleton
from .config import VitPoseBackboneConfig, VitPoseConfig
from .experts import fold_state

State = dict[str, Tensor]
logger = logging.getLogger(__name__)

_DTYPES = ("float32", "float16", "bfloat16", "float64")

WEIGHTS_FILE = "model.safetensors"
HEADS_FILE = "heads.safetensors"
"""Every head but the first, in a file of its own: `transformers`, which knows one head, never looks at it."""

OTHER_HEADS = "associate_heads."
INDEX_FILE = "model.safetensors.index.json"
ORIGINAL_SUFFIXES = (".pth", ".pt")

# Ours on the left, `transformers`' on the right; every name matches exactly one row, from either side.
_NAMES = [
    ("backbone.pos_embed", "backbone.embeddings.position_embeddings"),
    ("backbone.patch_embed.proj.", "backbone.embeddings.patch_embeddings.projection."),
    ("backbone.blocks.#.norm1.", "backbone.encoder.layer.#.layernorm_before."),
    ("backbone.blocks.#.norm2.", "backbone.encoder.layer.#.layernorm_after."),
    ("backbone.blocks.#.attn.query.", "backbone.encoder.layer.#.attention.attention.query."),
    ("backbone.blocks.#.attn.key.", "backbone.encoder.layer.#.attention.attention.key."),
    ("backbone.blocks.#.attn.value.", "backbone.encoder.layer.#.attention.attention.value."),
    ("backbone.blocks.#.attn.proj.", "backbone.encoder.layer.#.attention.output.dense."),
    ("backbone.blocks.#.mlp.", "backbone.encoder.layer.#.mlp."),
    ("backbone.last_norm.", "backbone.layernorm."),
    ("head.deconv_layers.0.", "head.deconv1."),
    ("head.deconv_layers.1.", "head.batchnorm1."),
    ("head.deconv_layers.3.", "head.deconv2."),
    ("head.deconv_layers.4.", "head.batchnorm2."),
    ("head.final_layer.", "head.conv."),
]
_QKV = ("query", "key", "value")


def _renamer(rows: list[tuple[str, str]]) -> Callable[[str], str]:
    table = [
        (re.compile("^" + re.escape(old).replace(r"\#", r"(\d+)")), new.replace("#", r"\1"))
        for old, new in rows
    ]

    def rename(name: str) -> str:
        for pattern, new in table:
            if pattern.match(name):
                return pattern.sub(new, name)
        return name

    return rename


_to_transformers = _renamer(_NAMES)
_from_transformers = _renamer([(theirs, ours) for ours, theirs in _NAMES])


def state_for_transformers(state: Mapping[str, Tensor]) -> State:
    """Returns our parameters under `transformers`' names: qkv split in three."""
    named = {}
    for name, tensor in state.items():
        if re.match(r"backbone\.blocks\.\d+\.attn\.qkv\.", name):
            for part, rows in zip(_QKV, tensor.chunk(3), strict=True):
                named[_to_transformers(name.replace("qkv", part))] = rows
        else:
            named[_to_transformers(name)] = tensor
    return named


def state_from_transformers(state: Mapping[str, Tensor]) -> State:
    """Returns parameters of a `transformers` file under our names: query, key and value joined."""
    named = {_from_transformers(name): tensor for name, tensor in state.items()}
    for query in [name for name in named if re.match(r"backbone\.blocks\.\d+\.attn\.query\.", name)]:
        parts = [query.replace("query", part) for part in _QKV]
        if all(part in named for part in parts):
            named[query.replace("query", "qkv")] = torch.cat([named.pop(part) for part in parts])
    return named


def state_from_original(state: Mapping[str, Tensor]) -> State:
    """Returns parameters of an original file under our names."""
    # The class token of the multi-task files is never used by the network.
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("backbone.cls_token")}
    return {
        re.sub(r"^(associate_)?keypoint_(heads?)\.", r"\1\2.", name): tensor for name, tensor in kept.items()
    }


def config_from_original(
    state: Mapping[str, Tensor], source: str, dataset: str | int | None = None
) -> VitPoseConfig:
    """Reads the sizes of an original network off its parameters (under our names).

    Args:
        state: The parameters.
        source: How messages call the file.
        dataset: If its name is given, the points of a file with one head and no experts are not taken for COCO's.

    Raises:
        CheckpointError: The parameters are not those of a released ViTPose; a `config` is needed then.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name, axes in (("backbone.pos_embed", 3), ("head.final_layer.weight", 4)):
        if len(shapes.get(name, ())) != axes:
            found = ", ".join(list(state)[:5])
            raise CheckpointError(
                f"{source} has no parameter {name!r} of {axes} axes, so it is no original ViTPose "
                f"checkpoint; it starts with: {found}"
            )
    options: dict[str, Any] = {
        "backbone_config": _backbone_from_shapes(shapes, source),
        "use_simple_decoder": "head.deconv_layers.0.weight" not in state,
    }
    counts = [shapes["head.final_layer.weight"][0]]
    while (name := f"{OTHER_HEADS}{len(counts) - 1}.final_layer.weight") in shapes:
        counts.append(shapes[name][0])
    if len(counts) > 1:
        return VitPoseConfig(datasets=_released_datasets(counts, source), **options)
    keypoints = counts[0]
    named = isinstance(dataset, str) and options["backbone_config"].num_experts == 1
    if keypoints == 17 and not named:
        # The first head of every released file is COCO's; a file that was split off for animals looks the same.
        logger.info("%s has 17 keypoints, which are taken for COCO's; another skeleton must be named", source)
        return VitPoseConfig.for_skeleton(Skeleton.load("coco"), **options)
    return VitPoseConfig(num_labels=keypoints, **options)


def _released_datasets(counts: list[int], source: str) -> list[str]:
    """Returns which data sets the heads of a released file are of: a file does not say, but their order is fixed."""
    released = [len(Conventions.load(name).skeleton) for name in PLUS_DATASETS]
    if counts != released[: len(counts)]:
        raise CheckpointError(
            f"{source} has heads of {counts} keypoints; the released files have {released}, in this order, or the "
            "first of them. Pass config=VitPoseConfig(datasets=[...], ...) that names the heads' data sets"
        )
    return list(PLUS_DATASETS[: len(counts)])


def _backbone_from_shapes(shapes: Mapping[str, tuple[int, ...]], source: str) -> VitPoseBackboneConfig:
    _, tokens, width = shapes["backbone.pos_embed"]
    blocks = {match[1] for name in shapes if (match := re.match(r"backbone\.blocks\.(\d+)\.", name))}
    experts = {
        match[1]: name for name in shapes if (match := re.search(r"\.mlp\.experts\.(\d+)\.bias$", name))
    }
    # The number of heads leaves no trace in the shapes: it is known by the width alone.
    heads = {192: 3, 384: 12, 768: 12, 1024: 16, 1280: 16, 1408: 16}.get(width)
    sizes = {(256, 192), (384, 288), (576, 432), (128, 96)}
    image_size = next((size for size in sizes if size[0] * size[1] // 256 == tokens - 1), None)
    if heads is None or image_size is None:
        raise CheckpointError(
            f"{source} is {width} wide with {tokens} position embeddings, which no released ViTPose is; "
            "pass config=VitPoseConfig(...) that describes it"
        )
    return VitPoseBackboneConfig(
        image_size=image_size,
        hidden_size=width,
        num_hidden_layers=max(1, len(blocks)),
        num_attention_heads=heads,
        num_experts=max(1, len(experts)),
        part_features=shapes[next(iter(experts.values()))][0] if experts else 0,
        layer_norm_eps=1e-6,
    )


class Checkpoint(NamedTuple):
    """What a checkpoint holds: the configuration, the parameters under our names, and how messages call it."""

    config: VitPoseConfig
    state: State
    source: str

    def for_dataset(self, dataset: str | int) -> Checkpoint:
        """Returns the dense checkpoint, with one head, that equals this one for a data set.

        Tensors that stay as they are are shared, not copied.

        Raises:
            UnknownNameError: There is no such data set here.
            InputError: There is no such number, or the data set has other keypoints.
            CheckpointError: The head is missing.
        """
        config, state = self.config, self.state
        if isinstance(dataset, str) and not config.datasets and config.num_experts == 1:
            config, dataset = config.declare(dataset), 0  # nothing said what this one head was trained on
        index = config.index_of(dataset)
        if config.num_experts > 1:
            state = fold_state(state, index)
        return Checkpoint(config.for_dataset(index), _with_one_head(state, index), self.source)


def _with_one_head(state: Mapping[str, Tensor], index: int) -> State:
    """Returns the parameters with that head in the first one's place, and no other."""
    chosen = f"{OTHER_HEADS}{index - 1}."
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
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Checkpoint:
    """Reads a checkpoint of any form.

    Args:
        name: A short name (see `vitpose models`), a folder, a hub repository, or an original `.pth` or `.pt`
            file.
        config: Takes the place of the one in the checkpoint.
        dataset: Take the dense network of one data set out of it, by name or number.
        revision: As in `vitpose.hub.find_file`.
        token: As there.
        cache_dir: As there.
        local_files_only: As there.

    Raises:
        UnknownNameError: No such model.
        InputError: There is no such data set in it.
        CheckpointError: The files are missing, damaged, unsafe, or not of a ViTPose.
    """
    hub: dict[str, Any] = {
        "revision": revision,
        "token": token,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
    }
    original = is_original(name)
    if config is None and not original:
        # Before the weights: it is small, and says soon whether there is such a model.
        config = VitPoseConfig.from_pretrained(name, **hub)
        if dataset is not None and (config.num_experts > 1 or config.datasets):
            config.index_of(dataset)
    source, state = _read(name, hub)
    state = state_from_original(state) if original else state_from_transformers(state)
    if not original and config is not None and len(config.datasets) > 1:
        state |= read_safetensors(find_file(name, HEADS_FILE, **hub))
    whole = Checkpoint(config or config_from_original(state, source, dataset), state, source)
    return whole if dataset is None else whole.for_dataset(dataset)


def is_original(name: str | Path) -> bool:
    """Tells whether a name is that of a file of the original repository."""
    return str(name).endswith(ORIGINAL_SUFFIXES)


def load_strictly(model: torch.nn.Module, state: State, source: str) -> None:
    """Gives a network its parameters, or says what does not fit in three lists.

    Raises:
        CheckpointError: Names or shapes differ.
    """
    own = model.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    for name in counters - state.keys():
        state[name] = torch.zeros((), dtype=torch.long)  # a counter for training that some files leave out
    shapes = [
        f"{name}: {tuple(own[name].shape)} in the model, {tuple(state[name].shape)} in the file"
        for name in sorted(own.keys() & state.keys())
        if own[name].shape != state[name].shape
    ]
    lists = {
        "only in the model": sorted(own.keys() - state.keys()),
        "only in the file": sorted(state.keys() - own.keys()),
        "other shapes": shapes,
    }
    if any(lists.values()):
        parts = [f"{what} ({len(rows)}): {_shorten(rows)}" for what, rows in lists.items() if rows]
        raise CheckpointError(f"{source} does not fit the model; " + "; ".join(parts))
    model.load_state_dict(state, assign=True)


def _shorten(rows: list[str], most: int = 8) -> str:
    return ", ".join(rows[:most]) + (f", and {len(rows) - most} more" if len(rows) > most else "")


def _read(name: str | Path, hub: dict[str, Any]) -> tuple[str, State]:
    """Returns how messages call the source, and its raw parameters."""
    if is_original(name):
        path = Path(name).expanduser()
        return str(path), read_pickle(path)
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


def read_safetensors(path: Path) -> State:
    """Returns the parameters of a safetensors file, under the file's own names.

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}; fetch it again") from error


def read_pickle(path: Path, keys: Sequence[str] = ("state_dict",)) -> State:
    """Returns the parameters of a torch file, under the file's own names, without running what it holds.

    Args:
        path: The file.
        keys: Under the first of these that is there the parameters lie; without any they are the file.

    Raises:
        CheckpointError: It is missing, damaged, unsafe, or holds no parameters.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; give the path of an original checkpoint")
    try:
        file = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail in any way there is
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and foreign:
            raise CheckpointError(
                f"{path} holds more than weights ({foreign[1]}) and is refused, because loading it could run "
                "foreign code. Where you trust the file, save its 'state_dict' alone with torch.save"
            ) from error
        raise CheckpointError(f"{path} is not a whole torch file of weights; fetch it again") from error
    key = next((key for key in keys if isinstance(file, dict) and key in file), None)
    state = file if key is None else file[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"{path} holds no 'state_dict' of tensors; it is no original ViTPose checkpoint"
        )
    return state


def choose_dtype(dtype: torch.dtype | str | None, state: State) -> torch.dtype:
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
    _write_safetensors(
        Path(folder) / WEIGHTS_FILE, {name: named[name] for name in named.keys() - others.keys()}
    )
    if others:
        _write_safetensors(Path(folder) / HEADS_FILE, others)
    else:
        remove_file(Path(folder) / HEADS_FILE)  # of another network, which was here before
    config.save_pretrained(folder)


def _write_safetensors(file: Path, state: State) -> None:
    # Copies, because safetensors takes no two tensors in one piece of memory.
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with replace_file(file) as path:
        try:
            save_file(whole, path, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(str(error)) from error
