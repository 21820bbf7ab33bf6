"""PoseModule: a network with its targets, loss, optimiser and moving average, as Lightning trains it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..data.dataset import heatmap_size
from ..errors import require
from ..keypoints.model_spec import ModelSpec
from ..model.checkpoint import write_checkpoint
from ..model.pose import VitPoseForPoseEstimation
from .optimizer import make_optimizer, rate_factor
from .recipe import Recipe
from .targets import encode

require("lightning", "train", "for training")
import lightning as L  # noqa: E402


class PoseModule(L.LightningModule):
    """The network with its targets, loss, optimiser and moving average.

    Args:
        network: The network; parameters of frozen parts do not require gradients.
        recipe: The recipe of the stage.
        steps: Total number of optimiser steps.
        spec: The spec of the first head, saved with checkpoints.
    """

    scale: Float[Tensor, "c 1 1"]
    offset: Float[Tensor, "c 1 1"]
    unbiased: Bool[Tensor, " datasets"]

    def __init__(
        self, network: VitPoseForPoseEstimation, recipe: Recipe, steps: int, spec: ModelSpec
    ) -> None:
        super().__init__()
        self.network, self.recipe, self.steps, self.spec = network, recipe, steps, spec
        scale, offset = (torch.from_numpy(part)[:, None, None] for part in spec.scale_and_offset)
        conventions = [dataset.target for dataset in recipe.datasets] or [spec.dataset.target]
        unbiased = torch.tensor([convention == "udp" for convention in conventions])
        for name, values in (("scale", scale), ("offset", offset), ("unbiased", unbiased)):
            self.register_buffer(name, values, persistent=False)
        self.average: AveragedModel | None = None
        if recipe.loop.ema:
            average = get_ema_multi_avg_fn(recipe.loop.ema)
            self.average = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
            self.average.requires_grad_(False)  # DDP waits for gradients of all parameters that require them

    @property
    def result(self) -> VitPoseForPoseEstimation:
        """The resulting network: the moving average if there is one."""
        return self.network if self.average is None else cast("VitPoseForPoseEstimation", self.average.module)

    def configure_model(self) -> None:
        """Shard the weights over the processes, block by block, if the strategy is FSDP."""
        if self.recipe.loop.strategy == "fsdp":
            for network in (self.network, self.result):
                _shard(network, cast("Any", self.device_mesh)["data_parallel"])

    def save_result(self, directory: Path) -> None:
        """Save the resulting network like `save_pretrained`; called in all processes, written by the first.

        Raises:
            OutputError: A file cannot be written.
        """
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_model_state_dict(self.result, options=options)
        if self.global_rank == 0:
            config = self.result.config.with_spec(self.spec)
            write_checkpoint(config, cast("dict[str, Tensor]", state), directory)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed drop path and dropout by step and batch, so that no random state has to be restored on resuming."""
        part = batch_idx % self.recipe.loop.accumulate
        torch.manual_seed(hash((self.recipe.loop.seed, self.global_step, part, self.global_rank)))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch of `pixels`, `keypoints` (b k 2), `weights` (b k) and possibly `dataset` (b).

        Pixels are levels 0..255: bytes (b hc wc 3), or floats (b 3 hc wc) if they were computed on the device.
        """
        pixels, dataset, target = batch["pixels"], batch.get("dataset"), self.recipe.target
        if pixels.dtype == torch.uint8:
            pixels = pixels.permute(0, 3, 1, 2)
        unbiased = self.unbiased if dataset is None else self.unbiased[dataset]
        heatmaps, weights = encode(
            batch["keypoints"], batch["weights"], heatmap_size(self.spec.input_size), target.sigma, unbiased
        )
        output = self.network(
            pixels * self.scale + self.offset,
            dataset,
            labels=heatmaps,
            label_weights=weights,
            loss_average=target.loss_average,
        )
        rate = self.recipe.optimizer.lr * rate_factor(self.global_step, self.steps, self.recipe.optimizer)
        self.log_dict({"loss": output.loss, "lr": rate}, batch_size=len(pixels))
        return output.loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Run an optimiser step and update the moving average."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def configure_optimizers(self) -> Any:
        """Return the recipe's optimiser, and its schedule in steps."""
        recipe = self.recipe.optimizer
        blocks = self.network.config.backbone_config.num_hidden_layers
        optimizer = make_optimizer(self.network, blocks, recipe, self.recipe.loop.precision)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_factor(step, self.steps, recipe)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _shard(network: VitPoseForPoseEstimation, mesh: Any) -> None:
    if not any(hasattr(parameter, "device_mesh") for parameter in network.parameters()):
        for block in cast("nn.ModuleList", network.backbone.blocks):
            fully_shard(block, mesh=mesh)
        fully_shard(network, mesh=mesh)
