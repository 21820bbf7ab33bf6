"""The training run: steps, the learning rate by the clock, the moving average, checkpoints."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from safetensors.torch import save_file
from torch import Tensor, nn

from ...detectors.person_network import NECK, PersonNetwork
from ...engines.torch import has_bf16_units
from ...files.writing import replace_file
from .recipe import DetectorRecipe
from .samples import ImageSource, Sample, SampleComposer
from .targets import Cells, assign_targets, losses
from .teacher import Teacher, TeacherOutput

LOG_STEPS = 50


class DetectorTraining:
    """A training run in a directory, continued from its last checkpoint if there is one.

    Args:
        recipe: The recipe.
        out: Directory of checkpoints: `state.pt` to resume, `person.safetensors` with the averaged weights in float16.
        teacher: Predictions for a batch of images; default: the recipe's.
    """

    def __init__(
        self,
        recipe: DetectorRecipe,
        out: Path,
        teacher: Callable[[UInt8[np.ndarray, "b h w 3"]], TeacherOutput] | None = None,
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.out = recipe, out
        self.teacher = teacher or Teacher(recipe.teacher, torch.get_num_threads())
        self.sources = [ImageSource(source) for source in recipe.sources]
        self.network = PersonNetwork()
        self.adapters = nn.ModuleList(nn.Conv2d(NECK, NECK, 1) for _ in range(3))
        self.average = copy.deepcopy(self.network).eval()
        self.optimizer = torch.optim.AdamW(self._groups(), lr=recipe.lr, betas=(0.9, 0.99), fused=True)
        self.step, self.elapsed_s = 0, 0.0
        self._resume()

    def train(self) -> None:
        """Train to the end of the recipe's time."""
        begin_s, saved_s = time.monotonic() - self.elapsed_s, self.elapsed_s
        recent: list[Tensor] = []
        while self.elapsed_s < self.recipe.minutes * 60:
            recent.append(self.train_step(self.elapsed_s / (self.recipe.minutes * 60)))
            self.elapsed_s = time.monotonic() - begin_s
            if self.step % LOG_STEPS == 0:
                self._log(torch.stack(recent).mean(dim=0))
                recent.clear()
            if self.elapsed_s - saved_s > self.recipe.checkpoint_minutes * 60:
                self._save()
                saved_s = self.elapsed_s
        self._save()

    def train_step(self, progress: float) -> Float[Tensor, " 3"]:
        """Train on one batch and return the losses of scores, boxes and features."""
        phase = self.recipe.phase(progress)
        composer = SampleComposer(self.sources, phase.mosaic, phase.background, phase.scale_octaves)
        random = np.random.default_rng([self.recipe.seed, self.step])
        samples = [composer.draw(random, phase.side_px) for _ in range(self.recipe.batch_size)]
        parts = self._losses(samples)
        rate = (
            self.recipe.lr * min(1.0, (self.step + 1) / self.recipe.warmup_steps) * max(1.0 - progress, 0.002)
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        (parts[0] + 2.0 * parts[1] + self.recipe.feature_weight * parts[2]).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return parts.detach()

    def _losses(self, samples: list[Sample]) -> Float[Tensor, " 3"]:
        stack = np.stack([sample.image for sample in samples])
        teacher_output = self.teacher(stack)
        cells = Cells.of(*stack.shape[1:3])
        targets = assign_targets(
            teacher_output, [torch.from_numpy(sample.boxes) for sample in samples], cells
        )
        images = torch.from_numpy(stack).permute(0, 3, 1, 2).float()
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16_units()):
            features = self.network.features(images)
            logits, boxes = self.network.predict(features)
            adapted = [adapter(level) for adapter, level in zip(self.adapters, features, strict=True)]
        return torch.stack([*losses(logits, boxes, targets), feature_loss(adapted, teacher_output)])

    def _update_average(self) -> None:
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        mine, other = (list(tensors_of(network).values()) for network in (self.average, self.network))
        torch._foreach_lerp_(mine, other, 1.0 - decay)

    def _groups(self) -> list[dict[str, Any]]:
        parameters = [*self.network.parameters(), *self.adapters.parameters()]
        kernels = [value for value in parameters if value.ndim > 1]
        others = [value for value in parameters if value.ndim <= 1]
        return [
            {"params": kernels, "weight_decay": self.recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]

    def _parts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("network", "average", "adapters", "optimizer")}

    def _save(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        state = {name: part.state_dict() for name, part in self._parts().items()}
        with replace_file(self.out / "state.pt") as partial:
            torch.save(state | {"step": self.step, "elapsed_s": self.elapsed_s}, partial)
        weights = {name: value.half().contiguous() for name, value in tensors_of(self.average).items()}
        with replace_file(self.out / "person.safetensors") as partial:
            save_file(weights, partial)

    def _resume(self) -> None:
        path = self.out / "state.pt"
        if path.exists():
            state = torch.load(path, weights_only=True)
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.step, self.elapsed_s = state["step"], state["elapsed_s"]

    def _log(self, parts: Float[Tensor, " 3"]) -> None:
        score, box, feature = parts.tolist()
        print(
            f"step {self.step} · {self.elapsed_s / 60:.1f} min · scores {score:.3f} · boxes {box:.3f} · "
            f"features {feature:.3f} · lr {self.optimizer.param_groups[0]['lr']:.2e}",
            flush=True,
        )


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Return parameters and statistics by name, without the counters of batches, which nothing reads."""
    return {name: value for name, value in network.state_dict().items() if value.is_floating_point()}


def feature_loss(
    features: list[Float[Tensor, "b c _ _"]], teacher_output: TeacherOutput
) -> Float[Tensor, ""]:
    """Return the mean squared difference to the teacher's features, standardised by channel."""
    total = torch.zeros(())
    for mine, level in zip(features, teacher_output.features, strict=True):
        mean, std = level.mean(dim=(0, 2, 3), keepdim=True), level.std(dim=(0, 2, 3), keepdim=True)
        total = total + F.mse_loss(mine.float(), (level - mean) / (std + 1e-3))
    return total / len(features)
