"""Recipes: what a training is, read from TOML into typed dataclasses.

Every key has one meaning and one default; an unknown key is an error with the nearest name. The
same names are the flags of `vitpose train`. Needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from ..data.augment import Augmentation
from ..errors import InputError, UnknownNameError
from ..files.schemas import Schema, check, parse_toml
from ..keypoints.dataset_spec import DatasetSpec
from ..keypoints.skeleton import Skeleton


def _text_of_number(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_text_of_number)]
"""A string, which may be written as a number, as in precision = 32."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One dataset of a training: annotations and images, or a pack of both.

    Attributes:
        annotations: COCO-format annotation file, or MPII's own.
        images: Folder of the images; the folder `images` beside the file, or the file's own, without it.
        skeleton: Name or TOML of its keypoints, where the file does not say.
        pack: Folder that `vitpose data pack` has made, in place of all that.
        dataset: Name or TOML of the dataset it belongs to, whose head (and expert) learns from it by its
            conventions. Where no source has one, all of them train one head.
        weight: How often its people are drawn, beside the other sources' weights; by their number without it.
        limit: Take its first so many people only, for a trial.

    Raises:
        InputError: It is neither or both, or takes nobody.
    """

    annotations: Text = ""
    images: Text = ""
    skeleton: Text | None = None
    pack: Text = ""
    dataset: Text = ""
    weight: float | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise InputError(
                f"the source {self.annotations or self.pack} has the limit {self.limit}; "
                "take 1 person at least, or leave it out"
            )
        if bool(self.annotations) == bool(self.pack):
            given = {name: value for name, value in asdict(self).items() if value}
            raise InputError(f"a source needs annotations or a pack, one of the two, and has {given}")
        if self.pack and (self.images or self.skeleton):
            raise InputError(
                f"the source {self.pack} is a pack, which holds its images and the names of its points; "
                f"leave out images {self.images!r} and skeleton {self.skeleton!r}"
            )


@dataclass(frozen=True, kw_only=True)
class Validation:
    """One set that a training is measured on, as `vitpose evaluate --flip-test` would.

    Attributes:
        annotations: COCO-format annotation file.
        images: Folder of its images.
        skeleton: Name or TOML of its keypoints, where the file's own are not wanted.
        name: What the logs call it; by default the names of its folder and file ("coco/val").
        dataset: Name of the dataset whose head is measured, where there are several; the first without it.
    """

    annotations: Text
    images: Text
    skeleton: Text | None = None
    name: Text = ""
    dataset: Text = ""

    @property
    def title(self) -> str:
        """What the logs call it."""
        path = Path(self.annotations)
        return self.name or f"{path.absolute().parent.name}/{path.stem}"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What is otherwise in one part of a training; each key is the recipe's.

    A stage begins with the weights that the one before ended with, and with a schedule of its own.

    Attributes:
        model: Keys of [model] but `start`, `size`, `decoder`, `skeleton` and `experts`.
        target: Keys of [target].
        augmentation: Keys of [augmentation].
        optimizer: Keys of [optimizer].
        loop: Keys of [loop] but `minutes`, `on_device`, `devices`, `nodes` and `strategy`.
    """

    model: dict[str, Any] = field(default_factory=dict)
    target: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    loop: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """The network that is trained.

    Attributes:
        start: Where to start: "" (nothing), a checkpoint (short name, folder, repository, `.pth`), or
            the weights of a plain ViT (a file of MAE's or timm's, a repository of timm's), whose head is made anew.
        size: "tiny", "small", "base", "large", "huge" or "giant"; where `start` is a checkpoint, its own.
        decoder: "classic" or "simple"; where `start` is a checkpoint, its own.
        skeleton: Name or TOML of the keypoints, where no source has a dataset.
        experts: Give each of several datasets an expert of its own (ViTPose++); without, they share one
            dense trunk.
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

    start: Text = ""
    size: Text = "base"
    decoder: Text = "classic"
    skeleton: Text = "coco"
    experts: bool = True
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

    kind: Text = "adamw"
    lr: float = 5e-4
    matrix_lr: float = 0.02
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.1
    layer_decay: float = 0.75
    clip: float = 1.0
    warmup_steps: int = 500
    warmup_start: float = 0.001
    schedule: Text = "step"
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
        workers: Processes that load; none are needed with `on_device`.
        log_every: Steps between two rows of the logs.
        checkpoint_every: Optimiser steps between two checkpoints.
        evaluate_every: Optimiser steps between two evaluations, where there are validation sets.
        minutes: Stop cleanly after so many, to be resumed; 0 goes on to the end.
        on_device: Keep the pack on the device and make the samples there; all sources must be packs.
        devices: Devices of a node; 0 takes all there are.
        nodes: Machines.
        strategy: "auto", "ddp" or "fsdp".
    """

    epochs: float = 210
    batch_size: int = 64
    accumulate: int = 1
    precision: Text = "32"
    ema: float = 0.0
    seed: int = 0
    workers: int = 2
    log_every: int = 10
    checkpoint_every: int = 1000
    evaluate_every: int = 1000
    minutes: float = 0.0
    on_device: bool = False
    devices: int = 1
    nodes: int = 1
    strategy: Text = "auto"


@dataclass(frozen=True, kw_only=True)
class TargetRecipe:
    """The target maps.

    Attributes:
        convention: "udp" (centred on the point, unbiased warp) or "msra" (centred on a cell, plain warp); where the
            sources have datasets, theirs says it.
        sigma: Of the Gaussians, cells.
        joint_weights: Multiply the points' weights by the skeleton's. They enter the loss squared; the original's COCO
            recipe leaves them out (`use_different_joint_weights` is off).
        loss_average: Where the sources have datasets: "batch" divides the sum of a head's losses by the size of the
            whole batch, as published, so that a dataset counts by its share of the batch; "dataset" by the number of
            the dataset's own samples in it, so that all datasets count the same.
    """

    convention: Text = "udp"
    sigma: float = 2.0
    joint_weights: bool = False
    loss_average: Text = "batch"


_OF_ALL_STAGES = {
    "model": ("start", "size", "decoder", "skeleton", "experts"),
    "loop": ("minutes", "on_device", "devices", "nodes", "strategy"),
}
"""What no stage can have for itself."""

_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    "above 0": (
        lambda value: 0 < value < math.inf,
        "loop.epochs loop.batch_size loop.accumulate loop.checkpoint_every loop.evaluate_every loop.log_every "
        "loop.nodes target.sigma optimizer.lr optimizer.matrix_lr",
    ),
    "0 or more": (
        lambda value: 0 <= value < math.inf,
        "loop.seed loop.workers loop.minutes loop.devices model.freeze_blocks optimizer.weight_decay "
        "optimizer.clip optimizer.warmup_steps",
    ),
    "from 0 to 1": (
        lambda value: 0 <= value <= 1,
        "optimizer.layer_decay optimizer.warmup_start optimizer.milestones optimizer.cooldown",
    ),
    "from 0 to below 1": (lambda value: 0 <= value < 1, "loop.ema optimizer.betas model.drop_path"),
    "a multiple of a patch's 16 px": (
        lambda value: value > 0 and value % 16 == 0,
        "model.height model.width",
    ),
}
"""What the numbers of a recipe must be: its test, and the keys that it holds for."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training.

    Attributes:
        name: What the result is called.
        sources: What is learnt from.
        validation: What checkpoints are measured on; that with the highest mean score is kept as the best.
        model: The network.
        target: The target maps.
        augmentation: What is varied; the published recipe by default.
        optimizer: AdamW and its schedule.
        loop: Length, batches, precision.
        stages: Parts of the training that come one after the other; without any it is one.

    Raises:
        InputError: There are no sources, or a value is impossible.
    """

    __pydantic_config__ = Schema.model_config

    name: Text
    sources: tuple[Source, ...]
    validation: tuple[Validation, ...] = ()
    model: ModelRecipe = field(default_factory=ModelRecipe)
    target: TargetRecipe = field(default_factory=TargetRecipe)
    augmentation: Augmentation = field(default_factory=Augmentation)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    loop: LoopRecipe = field(default_factory=LoopRecipe)
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        if not self.sources:
            raise InputError(
                f"the recipe {self.name!r} has no sources; give it [[sources]] with annotations and images"
            )
        self._check_choices()
        self._check_numbers()
        self._check_strategy()
        self._check_sources()
        if self.stages:
            self.split()

    def _check_choices(self) -> None:
        choices = [
            ("optimizer.kind", self.optimizer.kind, ("adamw", "muon")),
            ("optimizer.schedule", self.optimizer.schedule, ("step", "cosine", "trapezoid")),
            ("target.convention", self.target.convention, ("udp", "msra")),
            ("target.loss_average", self.target.loss_average, ("batch", "dataset")),
            ("loop.precision", self.loop.precision, ("32", "bf16")),
            ("loop.strategy", self.loop.strategy, ("auto", "ddp", "fsdp")),
            *(("model.freeze", part, ("attention", "mlp", "embeddings")) for part in self.model.freeze),
        ]
        for key, value, known in choices:
            if value not in known:
                raise UnknownNameError(f"value of {key}", value, known)

    def _check_numbers(self) -> None:
        for said, (holds, names) in _RANGES.items():
            for name in names.split():
                table, key = name.split(".")
                found = getattr(getattr(self, table), key)
                values = found if isinstance(found, tuple) else (found,)
                if not all(value is None or holds(value) for value in values):
                    raise InputError(f"{name} is {found}; it must be {said}")

    def _check_strategy(self) -> None:
        if self.optimizer.kind == "muon" and self.loop.strategy == "fsdp":
            raise InputError(
                "optimizer.kind 'muon' turns whole matrices, which loop.strategy 'fsdp' splits; take 'adamw', or 'ddp'"
            )

    def _check_sources(self) -> None:
        weighted = [source.weight is not None for source in self.sources]
        if any(weighted) and not all(weighted):
            raise InputError("some sources have a weight and some have none; give all of them one, or none")
        unpacked = [source.annotations for source in self.sources if not source.pack]
        if self.loop.on_device and unpacked:
            raise InputError(
                f"loop.on_device needs packs, and {', '.join(unpacked)} is none; "
                "make one with vitpose data pack and give it as the source's pack"
            )
        named = [bool(source.dataset) for source in self.sources]
        if any(named) and not all(named):
            raise InputError("some sources have a dataset and some have none; give all of them one, or none")
        if any(named) and (self.model.skeleton != "coco" or self.target.convention != "udp"):
            raise InputError(
                f"the sources have datasets, which say skeleton and target; leave out model.skeleton "
                f"{self.model.skeleton!r} and target.convention {self.target.convention!r}"
            )
        if self.loop.on_device and len(self.datasets) > 1:
            raise InputError("loop.on_device keeps the people of one dataset; train several without it")
        known = [own.name for own in self.datasets]
        for one in self.validation:
            if one.dataset and one.dataset not in known:
                raise UnknownNameError(f"dataset of the validation set {one.title!r}", one.dataset, known)
        titles = [one.title for one in self.validation]
        if len(set(titles)) < len(titles):
            raise InputError(f"two validation sets have the same name: {titles}; give each a name of its own")

    @property
    def datasets(self) -> list[DatasetSpec]:
        """The datasets of the sources, in the order of heads and experts; empty where they train one head unnamed."""
        names = dict.fromkeys(source.dataset for source in self.sources if source.dataset)
        return [DatasetSpec.load(name) for name in names]

    def skeleton_of(self, dataset: str = "") -> Skeleton:
        """Returns the keypoints of a dataset's head, or of the first one."""
        heads = {own.name: own.skeleton for own in self.datasets}
        if not heads:
            return Skeleton.load(self.model.skeleton)
        return heads[dataset] if dataset else next(iter(heads.values()))

    def split(self) -> list[Recipe]:
        """Returns the recipe of each stage: this one with the stage's changes; this one itself without stages.

        Each stage has a seed of its own, so that it does not see again what the one before began with.

        Raises:
            InputError: A stage changes what cannot be changed, or its value is impossible.
        """
        return [self._changed(number, stage) for number, stage in enumerate(self.stages)] or [self]

    def _changed(self, number: int, stage: Stage) -> Recipe:
        whole = asdict(self) | {"stages": ()}
        whole["loop"]["seed"] += number
        for table, own in vars(stage).items():
            for key in own:
                if key in _OF_ALL_STAGES.get(table, ()):
                    raise InputError(
                        f"stages.{number}.{table}.{key} cannot differ between stages; give it in [{table}]"
                    )
            whole[table] |= own
        return check(Recipe, whole, f"stages.{number}")


def read_recipe(path: str | Path, changes: Mapping[str, str] | None = None) -> Recipe:
    """Reads a recipe.

    Args:
        path: A TOML file. Paths in it are relative to the current folder.
        changes: Keys that differ, by their dotted names ("loop.epochs"), as TOML values or bare texts.

    Raises:
        InputError: The file is missing or not TOML, a key is not known, or a value is impossible.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # the latter for names that no file can have
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"the recipe {path} cannot be read ({reason}); give a TOML file") from error
    table = parse_toml(content, f"the recipe {path}")
    for name, text in (changes or {}).items():
        _change(table, name, _value(text))
    return check(Recipe, {"name": path.stem, **table}, f"the recipe {path}")


def _change(table: Any, name: str, value: Any) -> None:
    """Sets a key by its dotted name; entries of lists are named by their number ("sources.0.weight")."""
    *parts, key = name.split(".")
    try:
        for part in parts:
            table = table[int(part)] if isinstance(table, list) else table.setdefault(part, {})
        table[int(key) if isinstance(table, list) else key] = value
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise InputError(
            f"{name!r} names nothing in the recipe; give keys as loop.epochs or sources.0.weight"
        ) from error


def _value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}", "the value")["value"]
    except InputError:
        return text
