"""Weights in and out: our folders, those of `transformers`, and the original `.pth` files.

Owns every rule that turns one set of parameter names into another, and the strict loading. Inside,
parameters are called as in the original repository (with `head` for `keypoint_head`), so only the
names of `transformers`, which also splits query, key and value, need a table.
"""

from __future__ import annotations

import logging
import pickle
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import CheckpointError, UnknownNameError
from ..hub import find_file, read_json, replace_file, upload_folder
from ..skeleton import Skeleton
from .config import VitPoseBackboneConfig, VitPoseConfig

if TYPE_CHECKING:
    from .pose import VitPoseForPoseEstimation

State = dict[str, Tensor]
ModelT = TypeVar("ModelT", bound=torch.nn.Module)
logger = logging.getLogger(__name__)

_DTYPES = ("float32", "float16", "bfloat16", "float64")

WEIGHTS_FILE = "model.safetensors"
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
    """Returns parameters of an original file under our names; of several heads the first, COCO's, is kept."""
    others = {name.split(".")[1] for name in state if name.startswith("associate_keypoint_heads.")}
    if others:
        logger.info("the file has %d further heads beside COCO's; they are left aside", len(others))
    # The class token of the multi-task files is never used by the network.
    dropped = ("associate_keypoint_heads.", "backbone.cls_token")
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(dropped)}
    return {re.sub(r"^keypoint_head\.", "head.", name): tensor for name, tensor in kept.items()}


def config_from_original(state: Mapping[str, Tensor], source: str) -> VitPoseConfig:
    """Reads the sizes of an original network off its parameters (under our names).

    Args:
        state: The parameters.
        source: How messages call the file.

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
    _, tokens, width = shapes["backbone.pos_embed"]
    blocks = {match[1] for name in state if (match := re.match(r"backbone\.blocks\.(\d+)\.", name))}
    experts = {
        match[1]: name for name in state if (match := re.search(r"\.mlp\.experts\.(\d+)\.bias$", name))
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
    backbone = VitPoseBackboneConfig(
        image_size=image_size,
        hidden_size=width,
        num_hidden_layers=max(1, len(blocks)),
        num_attention_heads=heads,
        num_experts=max(1, len(experts)),
        part_features=shapes[next(iter(experts.values()))][0] if experts else 0,
        layer_norm_eps=1e-6,
    )
    simple, keypoints = "head.deconv_layers.0.weight" not in state, shapes["head.final_layer.weight"][0]
    if keypoints == 17:
        # The first head of every released file is COCO's (facts of the released configurations).
        coco = Skeleton.load("coco")
        return VitPoseConfig.for_skeleton(coco, backbone_config=backbone, use_simple_decoder=simple)
    return VitPoseConfig(num_labels=keypoints, backbone_config=backbone, use_simple_decoder=simple)


def load_model(
    cls: type[ModelT],
    name: str | Path,
    *,
    config: VitPoseConfig | None = None,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    device_map: Any = None,
    **hub: Any,
) -> ModelT:
    """Loads a network in evaluation mode.

    Args:
        cls: The class to make.
        name: A short name (see `vitpose models`), a folder, a hub repository, or an original `.pth` or `.pt`
            file.
        config: Takes the place of the one in the checkpoint.
        dtype: Floating-point type of the weights ("float32", "bfloat16", torch.float16, …); "auto" is
            the type in the file; float32 without it.
        device: Where to put it; the CPU without it.
        device_map: `transformers`' way of saying it: a device, {"": device}, or "auto" (a GPU if there is
            one).
        **hub: revision, token, cache_dir, local_files_only, as in `vitpose.hub.find_file`.

    Raises:
        UnknownNameError: No such model or type.
        CheckpointError: The files are missing, damaged, unsafe, or do not fit.
    """
    original = str(name).endswith(ORIGINAL_SUFFIXES)
    if config is None and not original:
        # Before the weights: it is small, and says soon whether there is such a model.
        config = VitPoseConfig.from_pretrained(name, **hub)
    source, state = _read(name, hub)
    state = state_from_original(state) if original else state_from_transformers(state)
    if config is None:
        config = config_from_original(state, source)
    if config.use_pretrained_backbone:
        config = replace(config, use_pretrained_backbone=False)  # the checkpoint brings those weights too
    wanted, place = _dtype(dtype, state), _device(device, device_map)
    # Ours need no memory before the weights come; other libraries' compute tables that no file holds.
    with torch.device("meta" if isinstance(config.backbone_config, VitPoseBackboneConfig) else "cpu"):
        model = cls(config)
    load_strictly(model, state, source)
    try:
        return model.to(place, wanted).eval()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"the network cannot be put on the device {str(place)!r}: {reason}") from error


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
    if str(name).endswith(ORIGINAL_SUFFIXES):
        path = Path(name).expanduser()
        return str(path), _read_pickle(path)
    try:
        path = find_file(name, WEIGHTS_FILE, **hub)
    except CheckpointError as missing:
        return str(name), _read_shards(name, hub, missing)
    return str(path), _read_safetensors(path)


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
        state |= _read_safetensors(find_file(name, shard, **hub))
    return state


def _read_safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}; fetch it again") from error


def _read_pickle(path: Path) -> State:
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
    state = file.get("state_dict", file) if isinstance(file, dict) else file
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"{path} holds no 'state_dict' of tensors; it is no original ViTPose checkpoint"
        )
    return state


def _dtype(dtype: torch.dtype | str | None, state: State) -> torch.dtype:
    if dtype is None:
        return torch.float32
    if dtype == "auto":
        found = (tensor.dtype for tensor in state.values() if tensor.is_floating_point())
        return next(found, torch.float32)
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise UnknownNameError("dtype", str(dtype), (*_DTYPES, "auto"))
    return getattr(torch, name)


def _device(device: Any, device_map: Any) -> torch.device:
    if device is not None and device_map is not None:
        raise CheckpointError(f"both device {device!r} and device_map {device_map!r} are given; give one")
    if isinstance(device_map, dict):
        places = set(map(str, device_map.values()))
        if len(places) != 1:
            raise CheckpointError(f"device_map {device_map!r} must put the whole network on one device")
        device_map = places.pop()
    chosen = device if device is not None else device_map
    if chosen in (None, "auto"):
        gpu = chosen == "auto" and torch.cuda.is_available()
        return torch.device("cuda" if gpu else "cpu")
    try:
        return torch.device(chosen if not str(chosen).isdigit() else f"cuda:{chosen}")
    except RuntimeError as error:
        raise UnknownNameError("device", chosen, ("auto", "cpu", "cuda", "cuda:0", "mps")) from error


def save_model(model: VitPoseForPoseEstimation, folder: str | Path) -> None:
    """Writes `config.json` and `model.safetensors`, each whole or not at all.

    Args:
        model: The network.
        folder: Where to; made if need be. Files of that name are replaced.

    Raises:
        CheckpointError: They cannot be written.
    """
    state = state_for_transformers(model.state_dict())
    # Copies, because safetensors takes no two tensors in one piece of memory.
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with replace_file(Path(folder) / WEIGHTS_FILE) as path:
        try:
            save_file(whole, path, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(str(error)) from error
    model.config.save_pretrained(folder)


def push_model(
    model: VitPoseForPoseEstimation,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload ViTPose",
) -> str:
    """Uploads what `save_model` writes to a hub repository, made if need be.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: The hub cannot be reached or does not let us.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, folder)
        return upload_folder(
            folder, repo_id, private=private, token=token, revision=revision, message=commit_message
        )
