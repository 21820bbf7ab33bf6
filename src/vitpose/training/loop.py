"""The training loop, on Lightning's Trainer: steps, checkpoints, resuming.

Everything random in a step depends on the recipe's seed and the step's number alone, so a training
that is stopped at any moment and resumed goes on as if nothing had happened. Knows no formats of data.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..errors import require
from ..files.writing import recover_folders
from ..model.checkpoint import write_checkpoint
from ..model.pose import VitPoseForPoseEstimation
from ..processing.image_processor import VitPoseImageProcessor
from .checkpoints import STATE_FILE, Keeper, claim_folder, find_last, hold_folder, step_of
from .optimizer import freeze_parts, make_optimizer, rate_factor
from .progress import ProgressLine, ProgressLog
from .recipe import Recipe, read_recipe
from .samples import Samples, make_processor
from .start import make_network, whiten_patches
from .validation import Validator

require("lightning", "train", "for training")
require("tensorboard", "train", "for the logs of a training")
import lightning as L  # noqa: E402
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger  # noqa: E402
from lightning.pytorch.strategies import ModelParallelStrategy  # noqa: E402
from lightning.pytorch.utilities import rank_zero_only  # noqa: E402

logger = logging.getLogger(__name__)


class PoseModule(L.LightningModule):
    """What Lightning trains: the network, its optimiser and its averaged copy.

    Args:
        network: The network, its frozen parts frozen.
        recipe: The training.
        steps: How many optimiser steps it has.
        processor: How pixels become the network's input.
    """

    def __init__(
        self, network: VitPoseForPoseEstimation, recipe: Recipe, steps: int, processor: VitPoseImageProcessor
    ) -> None:
        super().__init__()
        self.network, self.recipe, self.steps, self.processor = network, recipe, steps, processor
        self.average: AveragedModel | None = None
        if recipe.loop.ema:
            average = get_ema_multi_avg_fn(recipe.loop.ema)
            self.average = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
            self.average.requires_grad_(False)  # DDP waits for the gradient of whatever could have one

    @property
    def result(self) -> VitPoseForPoseEstimation:
        """The network to use: the averaged one where there is one."""
        return self.network if self.average is None else cast("VitPoseForPoseEstimation", self.average.module)

    def configure_model(self) -> None:
        """Splits the weights, block by block, over the processes where the strategy is FSDP."""
        if self.recipe.loop.strategy == "fsdp":
            for network in (self.network, self.result):
                _shard(network, cast("Any", self.device_mesh)["data_parallel"])

    def save_result(self, folder: Path) -> None:
        """Writes the network to use as `save_pretrained` does; all processes take part, and the first one writes."""
        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_model_state_dict(self.result, options=whole)
        if self.global_rank == 0:
            write_checkpoint(self.result.config, cast("dict[str, Tensor]", state), folder)
            self.processor.save_pretrained(folder)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seeds drop path and dropout by the batch's number: nothing random is carried from batch to batch."""
        part = batch_idx % self.recipe.loop.accumulate
        torch.manual_seed(hash((self.recipe.loop.seed, self.global_step, part, self.global_rank)))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Returns the loss of a batch of `pixels`, `targets` (b k hm wm) and `weights` (b k).

        Pixels come as bytes (b hc wc 3), or normalised (b 3 hc wc) where they were made on the device.
        """
        pixels = batch["pixels"]
        if pixels.dtype == torch.uint8:
            scale, offset = (
                torch.from_numpy(part).to(self.device) for part in self.processor.scale_and_offset
            )
            pixels = (pixels * scale + offset).permute(0, 3, 1, 2)
        output = self.network(
            pixels,
            batch.get("dataset"),
            labels=batch["targets"],
            label_weights=batch["weights"],
            loss_average=self.recipe.target.loss_average,
        )
        rate = self.recipe.optimizer.lr * rate_factor(self.global_step, self.steps, self.recipe.optimizer)
        self.log_dict({"loss": output.loss, "lr": rate}, batch_size=len(pixels))
        return output.loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Takes the optimiser's step and carries the averaged weights along."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def configure_optimizers(self) -> Any:
        """Returns the recipe's optimiser, and its schedule by steps."""
        recipe = self.recipe.optimizer
        blocks = self.network.config.backbone_config.num_hidden_layers
        optimizer = make_optimizer(self.network, blocks, recipe)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_factor(step, self.steps, recipe)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _shard(network: VitPoseForPoseEstimation, mesh: Any) -> None:
    if not any(hasattr(parameter, "device_mesh") for parameter in network.parameters()):
        for block in cast("nn.ModuleList", network.backbone.blocks):
            fully_shard(block, mesh=mesh)
        fully_shard(network, mesh=mesh)


def train(recipe: Recipe | str | Path, out: str | Path, stop: Callable[[], bool] | None = None) -> Path:
    """Trains a network, or goes on with a training that was stopped.

    Args:
        recipe: A recipe, or the path of one.
        out: Folder of the training: checkpoints and logs; those of stages in folders of their own.
        stop: Asked after every step whether to stop there, with a checkpoint.

    Returns:
        The folder of the last checkpoint, as `from_pretrained` reads it. Where there are validation sets, the best is
        beside it in the folder `best`.

    Raises:
        InputError: The recipe is impossible, the folder holds another training or one that runs, or the training
            diverges.
        CheckpointError: The start cannot be loaded.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    out = Path(out).expanduser()
    deadline = time.monotonic() + (recipe.loop.minutes * 60 or math.inf)

    def is_over() -> bool:
        return time.monotonic() > deadline or bool(stop and stop())

    # The first process of the first machine holds the folder; machines cannot tell each other's locks apart.
    alone = getattr(rank_zero_only, "rank", 0) == 0 and recipe.loop.nodes == 1
    with hold_folder(out) if alone else nullcontext():
        claim_folder(out, recipe, count_devices(recipe) * recipe.loop.nodes)
        return _train_stages(recipe, out, Samples(recipe), is_over)


def _train_stages(recipe: Recipe, out: Path, samples: Samples, is_over: Callable[[], bool]) -> Path:
    last = None
    for number, stage in enumerate(recipe.split(), 1):
        if last is not None:
            stage = replace(stage, model=replace(stage.model, start=str(last)))
        folder = out / f"stage-{number}" if recipe.stages else out
        last = train_stage(stage, folder, samples, is_over)
        steps = count_steps(stage, len(samples))
        if step_of(last) < steps:
            logger.info("stopped after step %d of %d; the same command goes on there", step_of(last), steps)
            break
    return cast("Path", last)


def train_stage(recipe: Recipe, folder: Path, samples: Samples, is_over: Callable[[], bool]) -> Path:
    """Trains one stage, or goes on with it; returns its last checkpoint.

    Args:
        recipe: The stage.
        folder: Its folder.
        samples: What is learnt from.
        is_over: Tells, after every step, whether it shall stop there, with a checkpoint.
    """
    steps, devices = count_steps(recipe, len(samples)), count_devices(recipe)
    if getattr(rank_zero_only, "rank", 0) == 0:
        recover_folders(folder)
    last = find_last(folder)
    done = step_of(last)
    logger.info("%s: %d people, %d steps, %d done", folder, len(samples), steps, done)
    loggers = make_loggers(folder, done)
    validator = Validator(recipe, steps, loggers)
    validator.catch_up(last)
    if done < steps:
        L.seed_everything(recipe.loop.seed, verbose=False)
        network = make_network(recipe.model, recipe.datasets)
        if recipe.model.whiten and not recipe.model.start and last is None:
            whiten_patches(network, samples.pixels(recipe))
        freeze_parts(network, recipe.model)
        keeper = Keeper(folder, recipe.loop.checkpoint_every, validator, is_over)
        trainer = make_trainer(recipe, steps, devices, keeper, loggers)
        world, place = devices * recipe.loop.nodes, trainer.strategy.root_device
        batches = samples.batches(recipe, done, trainer.global_rank, world, place)
        module = PoseModule(network, recipe, steps, make_processor(recipe))
        state = None if last is None else last / STATE_FILE
        trainer.fit(module, batches, ckpt_path=state, weights_only=True)
    return cast("Path", find_last(folder))


def count_devices(recipe: Recipe) -> int:
    """Returns how many devices of each machine a training runs on."""
    return recipe.loop.devices or max(1, torch.cuda.device_count())


def count_steps(recipe: Recipe, people: int) -> int:
    """Returns how many optimiser steps a training on so many people has."""
    loop = recipe.loop
    batch = loop.batch_size * loop.accumulate * count_devices(recipe) * loop.nodes
    return max(1, math.ceil(loop.epochs * people / batch))


def make_loggers(folder: Path, done: int) -> list[Logger]:
    """Returns what writes the numbers down: CSV, a file a run, and TensorBoard, one curve over all runs."""
    # What a killed run has logged beyond its last checkpoint comes once more, and is hidden by `purge_step`.
    board = TensorBoardLogger(folder, name="", version="tensorboard", purge_step=done + 1 if done else None)
    return [CSVLogger(folder, name="logs"), board]


def make_trainer(
    recipe: Recipe, steps: int, devices: int, keeper: Keeper, loggers: Sequence[Logger]
) -> L.Trainer:
    """Returns Lightning's Trainer as the recipe wants it."""
    loop, strategy = recipe.loop, cast("Any", recipe.loop.strategy)
    if len(recipe.datasets) > 1 and strategy in ("auto", "ddp") and devices * loop.nodes > 1:
        strategy = (
            "ddp_find_unused_parameters_true"  # a batch without a dataset's people leaves its head alone
        )
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
        callbacks=[keeper, ProgressLine() if sys.stderr.isatty() else ProgressLog()],
        logger=list(loggers),
        log_every_n_steps=loop.log_every,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
