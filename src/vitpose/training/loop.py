"""The training loop, on Lightning's Trainer: steps, checkpoints, resuming.

All random numbers of a step depend only on the recipe's seed and the number of the step, so a training run that is
stopped at any time and resumed has the same result as one that is not. Independent of data formats.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch

from ..errors import counted, require
from ..files.paths import user_path
from ..files.schemas import check
from ..files.writing import recover_folders
from ..model.initialisation import whiten_patches
from .checkpoints import CheckpointWriter
from .module import PoseModule
from .optimizer import freeze_parts
from .progress import ProgressLine, ProgressLog
from .recipe import Recipe, read_recipe
from .run_directory import STATE_FILE, claim_directory, find_last, lock_directory, step_of
from .samples import Samples, make_spec
from .signals import KeepTermination
from .start import make_network
from .validation import Validator

require("lightning", "train", "for training")
require("tensorboard", "train", "for the logs of training runs")
import lightning as L  # noqa: E402
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger  # noqa: E402
from lightning.pytorch.strategies import ModelParallelStrategy  # noqa: E402
from lightning.pytorch.utilities import rank_zero_only  # noqa: E402

logger = logging.getLogger(__name__)


def train(recipe: Recipe | str | Path, out: str | Path, stop: Callable[[], bool] | None = None) -> Path:
    """Train a network, or resume a training run that was stopped.

    Args:
        recipe: A recipe, or the path of a recipe file.
        out: Directory of the training run, for checkpoints and logs; each stage has a subdirectory.
        stop: Called after every step; if it returns True, training stops with a checkpoint.

    Returns:
        Directory of the last checkpoint, which `from_pretrained` reads. If there are validation datasets, the best
        checkpoint is in the directory `best` beside it.

    Raises:
        InputError: The recipe is invalid, the directory is in use or has checkpoints of another run, or the run
            diverges.
        CheckpointError: The initial weights cannot be loaded.
        OutputError: The directory cannot be written to.
        MissingDependencyError: A required package is not installed.
    """
    given = asdict(recipe) if isinstance(recipe, Recipe) else None
    recipe = check(Recipe, given, "the recipe") if given else read_recipe(cast("Path", recipe))
    out = user_path(out)
    deadline = time.monotonic() + (recipe.loop.minutes * 60 or math.inf)

    def is_over() -> bool:
        return time.monotonic() > deadline or bool(stop and stop())

    # Only the first process locks the directory, and only on a single machine: file locks do not work across machines.
    locks = getattr(rank_zero_only, "rank", 0) == 0 and recipe.loop.nodes == 1
    with lock_directory(out) if locks else nullcontext():
        claim_directory(out, recipe, count_devices(recipe) * recipe.loop.nodes)
        return _train_stages(recipe, out, Samples(recipe), is_over)


def _train_stages(recipe: Recipe, out: Path, samples: Samples, is_over: Callable[[], bool]) -> Path:
    last = None
    for number, stage in enumerate(recipe.split(), 1):
        if last is not None:
            stage = replace(stage, model=replace(stage.model, start=str(last)))
        directory = out / f"stage-{number}" if recipe.stages else out
        last = train_stage(stage, directory, samples, is_over)
        steps = count_steps(stage, len(samples))
        if step_of(last) < steps:
            message = "stopped after step %d of %d; run the same command again to resume"
            logger.info(message, step_of(last), steps)
            break
    return cast("Path", last)


def train_stage(recipe: Recipe, directory: Path, samples: Samples, is_over: Callable[[], bool]) -> Path:
    """Train or resume one stage; returns the directory of its last checkpoint.

    Args:
        recipe: The recipe of the stage.
        directory: Directory of the stage.
        samples: The training data.
        is_over: Called after every step; if it returns True, training stops with a checkpoint.

    Raises:
        InputError: A validation dataset cannot be used, more blocks are frozen than exist, or the run diverges.
        CheckpointError: The initial weights cannot be loaded.
        OutputError: A checkpoint cannot be written.
    """
    steps, devices = count_steps(recipe, len(samples)), count_devices(recipe)
    if getattr(rank_zero_only, "rank", 0) == 0:
        recover_folders(directory)
    last = find_last(directory)
    done = step_of(last)
    count = f"{counted(len(samples), 'instance')}, {counted(steps, 'step')}"
    logger.info("%s: %s, %d done", directory, count, done)
    loggers = make_loggers(directory, done)
    validator = Validator(recipe, steps, loggers)
    validator.evaluate_if_due(last)
    if done < steps:
        L.seed_everything(recipe.loop.seed, verbose=False)
        network = make_network(recipe.model, recipe.datasets)
        if recipe.model.whiten and not recipe.model.start and last is None:
            whiten_patches(network, samples.pixels(recipe))
        freeze_parts(network, recipe.model)
        writer = CheckpointWriter(directory, recipe.loop.checkpoint_every, validator, is_over)
        trainer = make_trainer(recipe, steps, devices, writer, loggers)
        world, device = devices * recipe.loop.nodes, trainer.strategy.root_device
        batches = samples.batches(recipe, done, trainer.global_rank, world, device)
        module = PoseModule(network, recipe, steps, make_spec(recipe))
        state = None if last is None else last / STATE_FILE
        trainer.fit(module, batches, ckpt_path=state, weights_only=True)
    return cast("Path", find_last(directory))


def count_devices(recipe: Recipe) -> int:
    """Return the number of devices per machine."""
    return recipe.loop.devices or max(1, torch.cuda.device_count())


def count_steps(recipe: Recipe, instances: int) -> int:
    """Return the number of optimiser steps for a number of instances."""
    loop = recipe.loop
    batch = loop.batch_size * loop.accumulate * count_devices(recipe) * loop.nodes
    return max(1, math.ceil(loop.epochs * instances / batch))


def make_loggers(directory: Path, done: int) -> list[Logger]:
    """Return the loggers: CSV with a file for each start, and TensorBoard with one curve over all starts."""
    # Steps that a killed run has logged after its last checkpoint are repeated; `purge_step` hides the first ones.
    board = TensorBoardLogger(
        directory, name="", version="tensorboard", purge_step=done + 1 if done else None
    )
    return [CSVLogger(directory, name="logs"), board]


def make_trainer(
    recipe: Recipe, steps: int, devices: int, writer: CheckpointWriter, loggers: Sequence[Logger]
) -> L.Trainer:
    """Return Lightning's Trainer for a recipe.

    Args:
        recipe: The recipe of the stage.
        steps: Total number of optimiser steps.
        devices: Devices per machine.
        writer: Writes the checkpoints.
        loggers: Loggers of loss and learning rate.
    """
    loop, strategy = recipe.loop, cast("Any", recipe.loop.strategy)
    if len(recipe.datasets) > 1 and strategy in ("auto", "ddp") and devices * loop.nodes > 1:
        # A head without instances in a batch has no gradients.
        strategy = "ddp_find_unused_parameters_true"
    if strategy == "fsdp":
        strategy = ModelParallelStrategy(
            data_parallel_size=devices * loop.nodes, tensor_parallel_size=1, save_distributed_checkpoint=False
        )
    return L.Trainer(
        max_steps=steps,
        max_epochs=-1,
        devices=devices,
        num_nodes=loop.nodes,
        strategy=strategy,
        precision="bf16-mixed" if loop.precision == "bf16" else "32-true",
        accumulate_grad_batches=loop.accumulate,
        gradient_clip_val=recipe.optimizer.clip,
        callbacks=[writer, KeepTermination(), ProgressLine() if sys.stderr.isatty() else ProgressLog()],
        logger=list(loggers),
        log_every_n_steps=loop.log_every,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
