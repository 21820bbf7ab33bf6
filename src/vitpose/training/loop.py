"""The training loop, on Lightning's Trainer: steps, checkpoints, resuming.

Everything random in a step depends on the recipe's seed and the step's number alone, so a training
that is stopped at any moment and resumed goes on as if nothing had happened. Knows no formats of data.
"""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Sampler

from ..boxes import Size
from ..crop import normalise
from ..data.annotations import read_annotations
from ..data.augment import Augmentation
from ..data.dataset import MixSampler, PoseDataset
from ..errors import InputError, require
from ..files import write_json
from ..model.pose import VitPoseForPoseEstimation
from ..processing import VitPoseImageProcessor
from ..skeleton import Skeleton
from .optimizer import freeze_parts, make_optimizer, rate_factor
from .recipe import Recipe, read_recipe
from .start import make_network, whiten_patches

require("lightning", "train", "for training")
import lightning as L  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402

logger = logging.getLogger(__name__)

STATE_FILE = "trainer.ckpt"
RECIPE_FILE = "recipe.json"
_OF_THE_RUN = ("minutes", "workers", "devices", "nodes", "checkpoint_every")
KEPT = 2
"""So many of the last checkpoints stay on the disk."""


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

    @property
    def result(self) -> VitPoseForPoseEstimation:
        """The network to use: the averaged one where there is one."""
        return self.network if self.average is None else cast("VitPoseForPoseEstimation", self.average.module)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seeds drop path and dropout by the batch's number: nothing random is carried from batch to batch."""
        part = batch_idx % self.recipe.loop.accumulate
        torch.manual_seed(hash((self.recipe.loop.seed, self.global_step, part, self.global_rank)))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Returns the loss of a batch of `pixels` (b hc wc 3), `targets` (b k hm wm) and `weights` (b k)."""
        scale, offset = (torch.from_numpy(part).to(self.device) for part in self.processor.scale_and_offset)
        pixels = (batch["pixels"] * scale + offset).permute(0, 3, 1, 2)
        output = self.network(pixels, labels=batch["targets"], label_weights=batch["weights"])
        self.log("loss", output.loss, prog_bar=True, batch_size=len(pixels))
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


class Stream(Sampler[tuple[int, int]]):
    """The keys of a `MixSampler` epoch after epoch, without an end.

    Args:
        mix: The order of the people of one process.
        start: So many of its samples have been taken.
    """

    def __init__(self, mix: MixSampler, start: int) -> None:
        self.mix, self.start = mix, start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        self.mix.set_epoch(0)
        self.mix.advance(self.start)
        while True:
            yield from self.mix
            self.mix.set_epoch(self.mix.epoch + 1)


class Keeper(L.Callback):
    """Writes checkpoints: folders named by their step, which are there whole or not at all.

    Args:
        folder: Where they go.
        every: Optimiser steps between two.
        minutes: After so many the training stops, with a checkpoint; 0 never.
    """

    def __init__(self, folder: Path, every: int, minutes: float = 0.0) -> None:
        self.folder, self.every, self.minutes = folder, every, minutes
        self.begun = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes a checkpoint where one is due."""
        step = trainer.global_step
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # between two optimiser steps
        over = self.minutes and time.monotonic() - self.begun > self.minutes * 60
        if trainer.world_size > 1:
            over = trainer.strategy.reduce_boolean_decision(bool(over), all=False)
        if over or step % self.every == 0 or step == trainer.max_steps:
            self.write(trainer, module, step)
        if over:
            trainer.should_stop = True

    def write(self, trainer: L.Trainer, module: PoseModule, step: int) -> None:
        """Writes the checkpoint of a step: the model's folder with the trainer's state in it."""
        whole = self.folder / f"step-{step:08d}"
        partial = whole.with_suffix(".part")
        if trainer.is_global_zero:
            shutil.rmtree(partial, ignore_errors=True)
            module.result.save_pretrained(partial)
            module.processor.save_pretrained(partial)
        trainer.save_checkpoint(partial / STATE_FILE)
        if trainer.is_global_zero:
            shutil.rmtree(whole, ignore_errors=True)
            partial.rename(whole)
            for old in find_checkpoints(self.folder)[:-KEPT]:
                shutil.rmtree(old)
        trainer.strategy.barrier()


def find_checkpoints(folder: Path) -> list[Path]:
    """Returns the whole checkpoints of a training, the oldest first."""
    return sorted(path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", path.name))


def train(recipe: Recipe | str | Path, out: str | Path) -> Path:
    """Trains a network, or goes on with a training that was stopped.

    Args:
        recipe: A recipe, or the path of one.
        out: Folder of the training: checkpoints, logs, and in the end the model.

    Returns:
        The model's folder, as `from_pretrained` reads it; the last checkpoint where the time ran out.

    Raises:
        InputError: The recipe is impossible, or the folder holds another training.
        CheckpointError: The start cannot be loaded.
    """
    recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    out = Path(out).expanduser()
    claim_folder(out, recipe)
    processor = make_processor(recipe)
    dataset = make_dataset(recipe, processor)
    loop = recipe.loop
    devices = loop.devices or max(1, torch.cuda.device_count())
    world = devices * loop.nodes
    steps = max(1, math.ceil(loop.epochs * len(dataset) / (loop.batch_size * loop.accumulate * world)))
    logger.info("%s: %d people, %d steps", recipe.name, len(dataset), steps)
    last = next(reversed(find_checkpoints(out)), None)
    done = 0 if last is None else int(last.name.removeprefix("step-"))
    if done < steps:
        L.seed_everything(loop.seed, verbose=False)
        network = make_network(recipe.model)
        if recipe.model.whiten and last is None:
            whiten_patches(network, first_pixels(dataset, processor))
        freeze_parts(network, recipe.model)
        trainer = make_trainer(recipe, out, steps, devices)
        loader = make_loader(recipe, dataset, done, trainer.global_rank, world)
        module = PoseModule(network, recipe, steps, processor)
        trainer.fit(module, loader, ckpt_path=None if last is None else last / STATE_FILE)
    return find_checkpoints(out)[-1]


def claim_folder(out: Path, recipe: Recipe) -> None:
    """Makes a folder that of a training, or finds that it is.

    Raises:
        InputError: It holds a training of another recipe.
    """
    own = json.loads(json.dumps(asdict(recipe)))
    for table in (own, recipe_file := _read(out / RECIPE_FILE)):
        for key in _OF_THE_RUN:
            table.get("loop", {}).pop(key, None)
    if recipe_file and recipe_file != own:
        raise InputError(
            f"{out} holds a training of another recipe; choose another folder, or delete that one"
        )
    write_json(out / RECIPE_FILE, own)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def make_processor(recipe: Recipe) -> VitPoseImageProcessor:
    """Returns how the trained network wants its crops and its maps read."""
    size = Size(width=recipe.model.width, height=recipe.model.height)
    if recipe.target.convention == "udp":
        return VitPoseImageProcessor(size=size)
    return VitPoseImageProcessor(size=size, warp="plain", decode="quarter", shift_heatmap=True)


def make_dataset(recipe: Recipe, processor: VitPoseImageProcessor) -> PoseDataset:
    """Reads the sources, says what is broken in them, and maps their points to the recipe's skeleton by name."""
    skeleton = Skeleton.load(recipe.model.skeleton)
    sources = []
    for source in recipe.sources:
        people = read_annotations(source.annotations, source.images or None, source.skeleton)
        logger.info("%s", people.report)
        sources.append(people.map_to(skeleton))
    augmentation = Augmentation(**recipe.augmentation)
    return PoseDataset(sources, processor, augmentation, seed=recipe.loop.seed, sigma=recipe.target.sigma)


def first_pixels(dataset: PoseDataset, processor: VitPoseImageProcessor, count: int = 256) -> Tensor:
    """Returns normalised crops (b 3 hc wc) of so many people, taken at equal distances."""
    rows = range(0, len(dataset), max(1, len(dataset) // count))
    pixels = np.stack([dataset[row]["pixels"].numpy() for row in rows])
    return torch.from_numpy(normalise(pixels, *processor.scale_and_offset))


def make_loader(recipe: Recipe, dataset: PoseDataset, done: int, rank: int, world: int) -> DataLoader[Any]:
    """Returns the endless loader of one process, from the step on that comes after so many."""
    loop = recipe.loop
    lengths = [len(source) for source in dataset.sources]
    weights = [source.weight for source in recipe.sources if source.weight is not None]
    if weights and len(weights) < len(recipe.sources):
        raise InputError("some sources have a weight and some have none; give all of them one, or none")
    shares = weights or None
    mix = MixSampler(lengths, shares, seed=loop.seed, rank=rank, ranks=world)
    stream = Stream(mix, done * loop.accumulate * loop.batch_size)
    return DataLoader(
        dataset,
        loop.batch_size,
        sampler=stream,
        num_workers=loop.workers,
        pin_memory=torch.cuda.is_available(),
    )


def make_trainer(recipe: Recipe, out: Path, steps: int, devices: int) -> L.Trainer:
    """Returns Lightning's Trainer as the recipe wants it."""
    loop = recipe.loop
    return L.Trainer(
        max_steps=steps,
        max_epochs=-1,
        devices=devices,
        num_nodes=loop.nodes,
        strategy=loop.strategy,
        precision="bf16-mixed" if loop.precision == "bf16" else "32-true",
        accumulate_grad_batches=loop.accumulate,
        gradient_clip_val=recipe.optimizer.clip,
        callbacks=[Keeper(out, loop.checkpoint_every, loop.minutes)],
        logger=[CSVLogger(out, name="logs")],
        log_every_n_steps=loop.log_every,
        enable_checkpointing=False,
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
