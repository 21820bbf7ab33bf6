"""Recipes: training runs described in TOML, read into dataclasses.

Owns reading and validating whole recipes; `recipe_tables` has their keys. Unknown keys raise an error with the nearest
known name. The keys are also the flags of `vitpose train`. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..data.augment import Augmentation
from ..errors import InputError, UnknownNameError
from ..files.paths import user_path
from ..files.schemas import Schema, check, parse_toml
from ..keypoints.dataset_spec import DatasetSpec
from ..keypoints.skeleton import Skeleton
from .recipe_tables import (
    LoopRecipe,
    ModelRecipe,
    OptimizerRecipe,
    Source,
    Stage,
    String,
    TargetRecipe,
    Validation,
)

_SAME_IN_ALL_STAGES = {
    "model": ("start", "size", "decoder", "skeleton", "experts"),
    "loop": ("minutes", "on_device", "devices", "nodes", "strategy"),
}
"""Keys that cannot differ between stages, by table."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run.

    Attributes:
        name: Name of the run.
        sources: Training data.
        validation: Datasets on which checkpoints are evaluated; that with the highest mean score is kept as the best.
        model: The network.
        target: Target heatmaps and loss.
        augmentation: Random views. Default: the published recipe.
        optimizer: The optimiser and its schedule.
        loop: Length, batches and devices.
        stages: Consecutive stages of the run. Default: a single stage.

    Raises:
        InputError: There are no sources, or values contradict each other. Ranges are validated by `check`.
    """

    __pydantic_config__ = Schema.model_config

    name: String
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
        self._check_strategy()
        self._check_sources()
        self._check_datasets()
        self._check_validation()
        if self.stages:
            self.split()

    def _check_strategy(self) -> None:
        if self.optimizer.kind == "muon" and self.loop.strategy == "fsdp":
            raise InputError(
                "optimizer.kind 'muon' requires whole matrices, which loop.strategy 'fsdp' shards; "
                "use 'adamw', or the strategy 'ddp'"
            )

    def _check_sources(self) -> None:
        weighted = [source.weight is not None for source in self.sources]
        if any(weighted) and not all(weighted):
            raise InputError(
                "only some of the sources have a weight; give a weight to all of them, or to none"
            )
        unpacked = [source.annotations for source in self.sources if not source.pack]
        if self.loop.on_device and unpacked:
            raise InputError(
                f"loop.on_device requires packs, and {', '.join(unpacked)} is not packed; "
                "create a pack with vitpose data pack and give it as the source's pack"
            )

    def _check_datasets(self) -> None:
        named = [bool(source.dataset) for source in self.sources]
        if any(named) and not all(named):
            raise InputError(
                "only some of the sources have a dataset; give a dataset to all of them, or to none"
            )
        if any(named) and (self.model.skeleton != "coco" or self.target.convention != "udp"):
            raise InputError(
                f"the sources have datasets, which determine skeleton and target; omit model.skeleton "
                f"{self.model.skeleton!r} and target.convention {self.target.convention!r}"
            )
        if self.loop.on_device and len(self.datasets) > 1:
            count = len(self.datasets)
            raise InputError(
                f"loop.on_device supports one dataset, and the sources have {count}; set it to false"
            )

    def _check_validation(self) -> None:
        known = [dataset.name for dataset in self.datasets]
        for validation in self.validation:
            if validation.dataset and validation.dataset not in known:
                kind = f"dataset of the validation set {validation.title!r}"
                raise UnknownNameError(kind, validation.dataset, known)
        titles = [validation.title for validation in self.validation]
        if len(set(titles)) < len(titles):
            raise InputError(f"two validation sets have the same name: {titles}; give them different names")

    @property
    def datasets(self) -> list[DatasetSpec]:
        """The datasets of the sources, in the order of heads and experts; empty if the sources have no datasets.

        Raises:
            VitPoseError: A dataset is unknown, or its file is invalid.
        """
        names = dict.fromkeys(source.dataset for source in self.sources if source.dataset)
        return [DatasetSpec.load(name) for name in names]

    def skeleton_of(self, dataset: str = "") -> Skeleton:
        """Return the skeleton of a dataset's head. Default: that of the first head.

        Raises:
            VitPoseError: A dataset or skeleton is unknown, or its file is invalid.
        """
        skeletons = {dataset.name: dataset.skeleton for dataset in self.datasets}
        if not skeletons:
            return Skeleton.load(self.model.skeleton)
        return skeletons[dataset] if dataset else next(iter(skeletons.values()))

    def split(self) -> list[Recipe]:
        """Return the recipe of each stage: this recipe with the stage's changes. Without stages: only this recipe.

        The stages have different seeds, so that a stage does not repeat the samples of the previous one.

        Raises:
            InputError: A stage changes a key that must be the same in all stages, or a value is invalid.
        """
        return [self._changed(number, stage) for number, stage in enumerate(self.stages)] or [self]

    def _changed(self, number: int, stage: Stage) -> Recipe:
        whole = asdict(self) | {"stages": ()}
        whole["loop"]["seed"] += number
        for table, changes in vars(stage).items():
            for key in changes:
                if key in _SAME_IN_ALL_STAGES.get(table, ()):
                    raise InputError(
                        f"stages.{number}.{table}.{key} cannot differ between stages; give it in [{table}]"
                    )
            whole[table] |= changes
        return check(Recipe, whole, f"stages.{number}")


def read_recipe(path: str | Path, changes: Mapping[str, str] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        path: A TOML file. Paths in it are relative to the working directory.
        changes: Changed keys by their dotted names ("loop.epochs"), as TOML values or unquoted strings.

    Raises:
        InputError: The file is missing or not TOML, a key is unknown, or a value is invalid.
    """
    path = user_path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"the recipe {path} cannot be read ({error.strerror}); give a TOML file") from error
    table = parse_toml(content, f"the recipe {path}")
    for name, value in (changes or {}).items():
        _change(table, name, _parse_value(value))
    return check(Recipe, {"name": path.stem, **table}, f"the recipe {path}")


def _change(table: Any, name: str, value: Any) -> None:
    """Set a key by its dotted name; list entries are addressed by index ("sources.0.weight")."""
    *parts, key = name.split(".")
    try:
        for part in parts:
            table = table[int(part)] if isinstance(table, list) else table.setdefault(part, {})
        table[int(key) if isinstance(table, list) else key] = value
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise InputError(
            f"the recipe has no key {name!r}; give keys such as loop.epochs or sources.0.weight"
        ) from error


def _parse_value(value: str) -> Any:
    """Return a TOML value, or the string itself if it is not valid TOML."""
    try:
        return parse_toml(f"value = {value}", "the value")["value"]
    except InputError:
        return value
