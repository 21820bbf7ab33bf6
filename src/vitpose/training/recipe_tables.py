"""The tables of a recipe as dataclasses: the meaning and the default of every key.

`recipe_keys.py` turns their docstrings into the list of keys. Imports no torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ..errors import InputError


def _string_from_number(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


String = Annotated[str, BeforeValidator(_string_from_number)]
"""A string that may be written as a number, as in `precision = 32`."""

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Side = Annotated[int, Field(gt=0, multiple_of=16)]
"""A side of the input, px: a multiple of the patch size."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source of training data: annotations with images, or a pack of both.

    Attributes:
        annotations: Annotation file in COCO or MPII format.
        images: Directory of the images; default: the directory `images` beside the file, then the file's directory.
        skeleton: Name or TOML file of the keypoints; default: the keypoints that the file's categories name.
        pack: Directory written by `vitpose data pack`, instead of `annotations`, `images` and `skeleton`.
        dataset: Name or TOML file of the source's dataset, whose conventions apply and whose head (and expert) is
            trained. If no source has a dataset, all sources train one head.
        weight: Share of this source in the samples, relative to the weights of the other sources; default: the number
            of its instances.
        limit: Number of instances to use, from the first, for a trial; default: all.

    Raises:
        InputError: Annotations and pack are both given or both missing, the pack has images or a skeleton, or the limit
            is below 1.
    """

    annotations: String = ""
    images: String = ""
    skeleton: String | None = None
    pack: String = ""
    dataset: String = ""
    weight: float | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise InputError(
                f"the source {self.annotations or self.pack} has the limit {self.limit}; "
                "give 1 or more, or omit the limit"
            )
        if bool(self.annotations) == bool(self.pack):
            given = {name: value for name, value in asdict(self).items() if value}
            raise InputError(
                f"a source requires either annotations or a pack, and has {given}; give one of the two"
            )
        if self.pack and (self.images or self.skeleton):
            raise InputError(
                f"the source {self.pack} is a pack, which contains its images and its skeleton; "
                f"omit images {self.images!r} and skeleton {self.skeleton!r}"
            )


@dataclass(frozen=True, kw_only=True)
class Validation:
    """One dataset for validation during training, evaluated as by `vitpose evaluate --flip-test`.

    Attributes:
        annotations: Annotation file in COCO format.
        images: Directory of the images.
        skeleton: Name or TOML file of the keypoints; default: the keypoints that the file's categories name.
        name: Name in the logs; default: the names of the directory and the file ("coco/val").
        dataset: Name of the dataset whose head is evaluated; default: the first dataset of the sources.
    """

    annotations: String
    images: String
    skeleton: String | None = None
    name: String = ""
    dataset: String = ""

    @property
    def title(self) -> str:
        """Name in the logs."""
        path = Path(self.annotations)
        return self.name or f"{path.absolute().parent.name}/{path.stem}"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The keys in which one stage of a training run differs from the recipe.

    A stage starts from the final weights of the previous stage, with a new schedule.

    Attributes:
        model: Keys of [model] except `start`, `size`, `decoder`, `skeleton` and `experts`.
        target: Keys of [target].
        augmentation: Keys of [augmentation].
        optimizer: Keys of [optimizer].
        loop: Keys of [loop] except `minutes`, `on_device`, `devices`, `nodes` and `strategy`.
    """

    model: dict[str, Any] = field(default_factory=dict)
    target: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    loop: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """The network to train.

    Attributes:
        start: Initial weights: "" (random), a checkpoint (short name, directory, repository, `.pth`), or the weights of
            a plain ViT (a file of MAE or timm, a repository of timm), to which a randomly initialised head is added.
        size: "tiny", "small", "base", "large", "huge" or "giant"; ignored if `start` is a checkpoint.
        decoder: "classic" or "simple"; ignored if `start` is a checkpoint.
        skeleton: Name or TOML file of the keypoints, if no source has a dataset.
        experts: One expert for each of several datasets (ViTPose++); otherwise they share a dense backbone.
        height: Height of the input, px.
        width: Width of the input, px.
        layers: Number of blocks; default: that of the size. If `start` has fewer blocks, new ones that initially
            compute the identity are inserted among them.
        whiten: Initialise the patch embedding with the principal axes of patches, scaled to equal variance.
        drop_path: Drop rate of the last block (stochastic depth); default: that of the size.
        freeze: Parts whose weights are not trained: any of "attention", "mlp", "embeddings".
        freeze_blocks: Number of blocks, from the first, whose weights are not trained.
        gradient_checkpointing: Recompute activations in the backward pass, which saves memory and takes time.
    """

    start: String = ""
    size: String = "base"
    decoder: String = "classic"
    skeleton: String = "coco"
    experts: bool = True
    height: Side = 256
    width: Side = 192
    layers: int | None = None
    whiten: bool = False
    drop_path: Rate | None = None
    freeze: tuple[Literal["attention", "mlp", "embeddings"], ...] = ()
    freeze_blocks: Whole = 0
    gradient_checkpointing: bool = False


@dataclass(frozen=True, kw_only=True)
class OptimizerRecipe:
    """AdamW as in the original, or Muon for the matrices of the blocks with AdamW for all other parameters.

    Attributes:
        kind: "adamw" or "muon".
        lr: Learning rate of the head.
        matrix_lr: Learning rate of the last block's matrices with Muon.
        betas: Decay rates of the moments.
        weight_decay: Weight decay, except of one-dimensional parameters and position embeddings.
        layer_decay: Factor between the learning rates of a block and the next one.
        clip: Largest norm of the gradient; 0 disables clipping.
        warmup_steps: Number of steps in which the learning rate increases linearly.
        warmup_start: Initial learning rate of the warm-up, as a fraction of the full one.
        schedule: "step", "cosine" or "trapezoid" (constant, then linearly to zero).
        milestones: Fractions of the training run after which "step" divides the learning rate by ten.
        cooldown: Fraction of the training run, at its end, in which "trapezoid" decreases the learning rate.
    """

    kind: Literal["adamw", "muon"] = "adamw"
    lr: Positive = 5e-4
    matrix_lr: Positive = 0.02
    betas: tuple[Rate, Rate] = (0.9, 0.999)
    weight_decay: NotNegative = 0.1
    layer_decay: Fraction = 0.75
    clip: NotNegative = 1.0
    warmup_steps: Whole = 500
    warmup_start: Fraction = 0.001
    schedule: Literal["step", "cosine", "trapezoid"] = "step"
    milestones: tuple[Fraction, ...] = (170 / 210, 200 / 210)
    cooldown: Fraction = 0.3


@dataclass(frozen=True, kw_only=True)
class LoopRecipe:
    """Length, batches and devices of a training run.

    Attributes:
        epochs: Number of passes over the instances of all sources.
        batch_size: Instances per step and device.
        accumulate: Number of batches whose gradients are accumulated for one optimiser step.
        precision: "32" or "bf16".
        ema: Decay of the exponential moving average of the weights, which is then the result; 0 disables it.
        seed: Seed of the weights, the order and the augmentation.
        workers: Number of data loading processes; unused with `on_device`.
        log_every: Steps between two rows of the logs.
        checkpoint_every: Optimiser steps between two checkpoints.
        evaluate_every: Optimiser steps between two validations, if there are validation datasets.
        minutes: Stop after this many minutes with a checkpoint from which the run can be resumed; 0 for no limit.
        on_device: Keep the pack in the device's memory and compute the samples there; all sources must be packs.
        devices: Devices per node; 0 for all.
        nodes: Number of machines.
        strategy: "auto", "ddp" or "fsdp".
    """

    epochs: Positive = 210
    batch_size: Count = 64
    accumulate: Count = 1
    precision: Annotated[Literal["32", "bf16"], BeforeValidator(_string_from_number)] = "32"
    ema: Rate = 0.0
    seed: Whole = 0
    workers: Whole = 2
    log_every: Count = 10
    checkpoint_every: Count = 1000
    evaluate_every: Count = 1000
    minutes: NotNegative = 0.0
    on_device: bool = False
    devices: Whole = 1
    nodes: Count = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"


@dataclass(frozen=True, kw_only=True)
class TargetRecipe:
    """Target heatmaps and loss.

    Attributes:
        convention: "udp" (Gaussian centred on the keypoint, unbiased warp) or "msra" (Gaussian centred on a cell, plain
            warp); if the sources have datasets, these determine it.
        sigma: Standard deviation of the Gaussians, heatmap cells.
        joint_weights: Multiply the weights of the keypoints by those of the skeleton. They are squared in the loss; the
            original's COCO recipe does not use them (`use_different_joint_weights` is off).
        loss_average: If the sources have datasets: "batch" divides the sum of a head's losses by the size of the whole
            batch, as published, so that datasets are weighted by their share of the batch; "dataset" divides it by
            the number of the head's samples in the batch, so that all datasets have the same weight.
    """

    convention: Literal["udp", "msra"] = "udp"
    sigma: Positive = 2.0
    joint_weights: bool = False
    loss_average: Literal["batch", "dataset"] = "batch"
