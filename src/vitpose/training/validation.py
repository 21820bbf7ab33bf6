"""Evaluation on the way: checkpoints are measured as `vitpose evaluate` would, and the best is kept.

What is measured is what lies in the folder, so that a training that was killed while measuring can do it again,
and nothing of the training itself is touched. Knows no trainer.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from pydantic import Field

from ..errors import InputError, require
from ..evaluation.correspondence import match_keypoints
from ..evaluation.evaluation import evaluate_model
from ..evaluation.ground_truth import read_ground_truth
from ..files.schemas import Schema, check, parse_json
from ..files.writing import replace_folder, write_json
from ..inference.loading import load
from ..keypoints.skeleton import Skeleton
from .checkpoints import step_of
from .recipe import Recipe, Validation

require("lightning", "train", "for training")
from lightning.pytorch.loggers import Logger  # noqa: E402
from lightning.pytorch.utilities import rank_zero_only  # noqa: E402

logger = logging.getLogger(__name__)

NUMBERS_FILE = "validation.json"
BEST = "best"
PCK_THRESHOLD = 0.2


class Validator:
    """Measures checkpoints on the validation sets of a recipe.

    Args:
        recipe: The training.
        steps: How many optimiser steps it has; the last is always measured.
        loggers: Where the numbers go.

    Raises:
        VitPoseError: A set cannot be used; it is said before the training begins.
    """

    def __init__(self, recipe: Recipe, steps: int, loggers: Sequence[Logger]) -> None:
        self.sets, self.every, self.steps = recipe.validation, recipe.loop.evaluate_every, steps
        self.loggers = loggers
        self.metrics = {one.title: _metrics(one, recipe.skeleton_of(one.dataset)) for one in self.sets}

    def is_due(self, step: int) -> bool:
        """Tells whether the checkpoint of a step is measured."""
        return bool(self.sets) and (step % self.every == 0 or step == self.steps)

    @rank_zero_only
    def catch_up(self, checkpoint: Path | None) -> None:
        """Measures a checkpoint that should be measured and is not; keeps it if it is the best."""
        if checkpoint is None or not self.is_due(step := step_of(checkpoint)):
            return
        if not (checkpoint / NUMBERS_FILE).is_file():
            self._note(checkpoint, step)
        found = read_numbers(checkpoint)
        if found["score"] >= read_numbers(checkpoint.parent / BEST).get("score", -1.0):
            _keep_best(checkpoint)
            logger.info("step %d is the best so far", step)

    def _note(self, checkpoint: Path, step: int) -> None:
        """Measures a checkpoint, and writes and logs the numbers."""
        numbers = {one.title: self._measure(one, checkpoint) for one in self.sets}
        flat = {f"{title}/{name}": value for title, own in numbers.items() for name, value in own.items()}
        # Of each set the first number counts: AP where there are sigmas, otherwise PCK.
        score = fmean(next(iter(own.values()), 0.0) for own in numbers.values())
        write_json(checkpoint / NUMBERS_FILE, {"step": step, "score": score, "numbers": flat})
        for log in self.loggers:
            log.log_metrics(flat, step)
            log.save()
        logger.info("step %d: %s", step, ", ".join(f"{name} {value:.4f}" for name, value in flat.items()))

    def _measure(self, one: Validation, checkpoint: Path) -> dict[str, float]:
        pipe = load(checkpoint, detector=None, dataset=one.dataset or None)
        report = evaluate_model(
            pipe,
            one.annotations,
            one.images,
            metrics=self.metrics[one.title],
            flip_test=bool(pipe.estimator.skeleton.flip_pairs),
            skeleton=one.skeleton,
            thresholds=(PCK_THRESHOLD,),
        )
        for image, reason in report.problems.images.items():
            logger.warning("%s of %s is not measured: %s", image, one.title, reason)
        wanted = {"AP": report.numbers.get("coco", {}).get("AP")} | report.numbers["pck"]
        return {name: value for name, value in wanted.items() if value is not None}


class _Numbers(Schema):
    """The file of a checkpoint's numbers; those of a measure that nothing fits may be NaN."""

    step: int
    score: Annotated[float, Field(allow_inf_nan=True)]
    numbers: dict[str, Annotated[float, Field(allow_inf_nan=True)]]


def read_numbers(checkpoint: Path) -> dict[str, Any]:
    """Returns what a checkpoint was measured at: `step`, `score`, `numbers`; nothing if it was not.

    Raises:
        InputError: The file is damaged.
    """
    path = checkpoint / NUMBERS_FILE
    if not path.is_file():
        return {}
    return check(_Numbers, parse_json(path.read_bytes(), path, allow_nan=True), path).model_dump()


def _metrics(one: Validation, bones: Skeleton) -> list[str]:
    """Returns what can be measured on a set, whose files are looked at for the purpose."""
    truth = read_ground_truth(one.annotations, one.skeleton)
    match_keypoints(truth.skeleton, bones)
    if not Path(one.images).expanduser().is_dir():
        raise InputError(f"the images of the validation set {one.title}, {one.images}, are no folder")
    if not truth.skeleton.sigmas:
        return ["pck"]
    require("pycocotools", "evaluate", "for average precision")
    return ["coco", "pck"]


def _keep_best(checkpoint: Path) -> None:
    best = checkpoint.parent / BEST
    partial = best.with_suffix(".part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(checkpoint, partial)
    replace_folder(best, partial)
