"""Recipes: what a training is, read from TOML into typed dataclasses.

Every key has one meaning and one default; an unknown key is an error with the nearest name. The
same names are the flags of `vitpose train`. Knows no torch.
"""

from __future__ import annotations

import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, UnknownNameError


@dataclass(frozen=True, kw_only=True)
class Source:
    """One data set of a training.

    Attributes:
        annotations: COCO-format annotation file, MPII's own, or a folder of packed crops.
        images: Folder of the pictures; not needed for packed crops.
        weight: How often its people are drawn, beside the other sources' weights; by their number without it.
        skeleton: Name or TOML of its keypoints, where the file does not say.
    """

    annotations: str
    images: str = ""
    weight: float | None = None
    skeleton: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """The network that is trained.

    Attributes:
        start: Where to start: "" (nothing), a checkpoint (short name, folder, repository, `.pth`), or
            the weights of a plain ViT (MAE, ImageNet), whose head is made anew.
        size: "tiny", "small", "base", "large", "huge" or "giant"; where `start` is a checkpoint, its own.
        decoder: "classic" or "simple".
        skeleton: Name or TOML of the keypoints.
        height: Height of the input, px.
        width: Width of the input, px.
        layers: So many blocks; the size's own without it. A start with fewer grows: new blocks follow its own,
            and begin as the identity.
        whiten: Begin with patches projected onto their principal axes, scaled to equal variance.
        drop_path: Stochastic depth of the last block; the size's own without it.
        freeze: What keeps its weights: any of "attention", "mlp", "embeddings".
        freeze_blocks: The first so many blocks keep their weights.
        gradient_checkpointing: Trade time for memory.
    """

    start: str = ""
    size: str = "base"
    decoder: str = "classic"
    skeleton: str = "coco"
    height: int = 256
    width: int = 192
    layers: int | None = None
    whiten: bool = False
    drop_path: float | None = None
    freeze: tuple[str, ...] = ()
    freeze_blocks: int = 0
    gradient_checkpointing: bool = False


@dataclass(frozen=True, kw_only=True)
class OptimizerRecipe:
    """AdamW as the original has it, or Muon for the matrices of the blocks and AdamW for the rest.

    Attributes:
        kind: "adamw" or "muon".
        lr: Learning rate of the head.
        matrix_lr: Learning rate of the last block's matrices under Muon.
        betas: Decay of the moments.
        weight_decay: Of all weights but one-dimensional ones, biases and position embeddings.
        layer_decay: Each block's rate is this times the next one's.
        clip: Largest norm of the gradient.
        warmup_steps: The rate grows linearly over so many steps.
        warmup_start: From this share of itself.
        schedule: "step", "cosine" or "trapezoid" (full, and falling to zero in the end).
        milestones: Shares of the training after which "step" divides the rate by ten.
        cooldown: Share of the training, at its end, in which "trapezoid" falls.
    """

    kind: str = "adamw"
    lr: float = 5e-4
    matrix_lr: float = 0.02
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.1
    layer_decay: float = 0.75
    clip: float = 1.0
    warmup_steps: int = 500
    warmup_start: float = 0.001
    schedule: str = "step"
    milestones: tuple[float, ...] = (170 / 210, 200 / 210)
    cooldown: float = 0.3


@dataclass(frozen=True, kw_only=True)
class LoopRecipe:
    """How long and how the loop runs.

    Attributes:
        epochs: Passes over the people of all sources.
        batch_size: People in a step of one device.
        accumulate: Steps whose gradients are added up before the optimiser's.
        precision: "32" or "bf16".
        ema: Decay of the averaged weights, which are then the result; 0 keeps none.
        seed: Of the weights, the order and the augmentation.
        workers: Processes that load.
        log_every: Steps between two rows of the logs.
        checkpoint_every: Optimiser steps between two checkpoints.
        minutes: Stop cleanly after so many, to be resumed; 0 goes on to the end.
        devices: Devices of a node; 0 takes all there are.
        nodes: Machines.
        strategy: "auto", "ddp" or "fsdp".
    """

    epochs: float = 210
    batch_size: int = 64
    accumulate: int = 1
    precision: str = "32"
    ema: float = 0.0
    seed: int = 0
    workers: int = 2
    log_every: int = 50
    checkpoint_every: int = 1000
    minutes: float = 0.0
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"


@dataclass(frozen=True, kw_only=True)
class TargetRecipe:
    """The target maps.

    Attributes:
        convention: "udp" (centred on the point, unbiased warp) or "msra" (centred on a cell, plain warp).
        sigma: Of the Gaussians, cells.
    """

    convention: str = "udp"
    sigma: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training.

    Attributes:
        name: What the result is called.
        sources: What is learnt from.
        model: The network.
        target: The target maps.
        augmentation: Attributes of `vitpose.data.augment.Augmentation` that differ from the published ones.
        optimizer: AdamW and its schedule.
        loop: Length, batches, precision.

    Raises:
        InputError: There are no sources, or a value is impossible.
    """

    name: str
    sources: tuple[Source, ...]
    model: ModelRecipe = field(default_factory=ModelRecipe)
    target: TargetRecipe = field(default_factory=TargetRecipe)
    augmentation: dict[str, Any] = field(default_factory=dict)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    loop: LoopRecipe = field(default_factory=LoopRecipe)

    def __post_init__(self) -> None:
        if not self.sources:
            raise InputError(
                f"the recipe {self.name!r} has no sources; give it [[sources]] with annotations and images"
            )
        choices = [
            ("optimizer.kind", self.optimizer.kind, ("adamw", "muon")),
            ("optimizer.schedule", self.optimizer.schedule, ("step", "cosine", "trapezoid")),
            ("target.convention", self.target.convention, ("udp", "msra")),
            ("loop.precision", self.loop.precision, ("32", "bf16")),
            ("loop.strategy", self.loop.strategy, ("auto", "ddp", "fsdp")),
            *(("model.freeze", part, ("attention", "mlp", "embeddings")) for part in self.model.freeze),
        ]
        for key, value, known in choices:
            if value not in known:
                raise UnknownNameError(f"value of {key}", value, known)
        for key in ("epochs", "batch_size", "accumulate", "checkpoint_every"):
            if getattr(self.loop, key) <= 0:
                raise InputError(f"loop.{key} is {getattr(self.loop, key)}; it must be above 0")


def read_recipe(path: str | Path, changes: Mapping[str, str] | None = None) -> Recipe:
    """Reads a recipe.

    Args:
        path: A TOML file. Paths in it are relative to the current folder.
        changes: Keys that differ, by their dotted names ("loop.epochs"), as TOML values or bare texts.

    Raises:
        InputError: The file is missing or not TOML, or a value has the wrong type.
        UnknownNameError: A key is not known.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the recipe {path} cannot be read ({error.strerror}); give a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the recipe {path} is not valid TOML: {error}") from error
    for name, text in (changes or {}).items():
        *parts, key = name.split(".")
        place = table
        for part in parts:
            place = place.setdefault(part, {})
        place[key] = _value(text)
    return build(Recipe, {"name": path.stem, **table}, "the recipe")


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def build(kind: Any, table: Any, where: str) -> Any:
    """Makes a value of a type from what TOML gives: dataclasses from tables, tuples from lists.

    Raises:
        UnknownNameError: A table has a key that the dataclass does not.
        InputError: A value has another type, or a needed key is missing.
    """
    if is_dataclass(kind):
        return _build_dataclass(kind, table, where)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        kind = next(option for option in inner if option is not type(None))
        return build(kind, table, where)
    if origin is tuple:
        if not isinstance(table, list):
            raise InputError(f"{where} must be a list, not {table!r}")
        return tuple(build(inner[0], value, f"{where}[{index}]") for index, value in enumerate(table))
    wanted = dict if origin is dict else kind
    if wanted is float and isinstance(table, int) and not isinstance(table, bool):
        return float(table)
    if not isinstance(table, wanted) or (isinstance(table, bool) and wanted is not bool):
        raise InputError(f"{where} must be of the type {wanted.__name__}, not {table!r}")
    return table


def _build_dataclass(kind: Any, table: Any, where: str) -> Any:
    if not isinstance(table, Mapping):
        raise InputError(f"{where} must be a table, not {table!r}")
    hints = typing.get_type_hints(kind)
    for key in table:
        if key not in hints:
            raise UnknownNameError(f"key in {where}", key, hints)
    needed = [f.name for f in fields(kind) if f.default is f.default_factory]
    for key in needed:
        if key not in table:
            raise InputError(f"{where} has no {key!r}, which is needed")
    inside = "" if where == "the recipe" else f"{where}."
    return kind(**{key: build(hints[key], value, f"{inside}{key}") for key, value in table.items()})
