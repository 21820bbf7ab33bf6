"""Validation during training: checkpoints are evaluated as by `vitpose evaluate`, and the best one is kept.

The written checkpoint is evaluated, so that a run that was killed during validation repeats it on resuming, and the
state of the training run is not affected. Independent of the trainer.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from ..errors import InputError, require
from ..evaluation.correspondence import match_keypoints
from ..evaluation.evaluation import evaluate_model
from ..evaluation.ground_truth import read_ground_truth
from ..files.paths import user_path
from ..files.writing import replace_folder, write_json
from ..inference.loading import load
from ..keypoints.skeleton import Skeleton
from .recipe import Recipe
from .recipe_tables import Validation
from .run_directory import BEST, NUMBERS_FILE, read_numbers, step_of

require("lightning", "train", "for training")
from lightning.pytorch.loggers import Logger  # noqa: E402
from lightning.pytorch.utilities import rank_zero_only  # noqa: E402

logger = logging.getLogger(__name__)

PCK_THRESHOLD = 0.2


class Validator:
    """Evaluate checkpoints on the validation sets of a recipe.

    Args:
        recipe: The recipe of the stage.
        steps: Total number of optimiser steps; the last checkpoint is always evaluated.
        loggers: Loggers of the metrics.

    Raises:
        VitPoseError: A validation set cannot be used.
        MissingDependencyError: A required package is not installed.
    """

    def __init__(self, recipe: Recipe, steps: int, loggers: Sequence[Logger]) -> None:
        self.sets, self.every, self.steps = recipe.validation, recipe.loop.evaluate_every, steps
        self.loggers = loggers
        self.metrics = {
            validation.title: _metrics(validation, recipe.skeleton_of(validation.dataset))
            for validation in self.sets
        }

    def is_due(self, step: int) -> bool:
        """Return whether the checkpoint of a step is to be evaluated."""
        return bool(self.sets) and (step % self.every == 0 or step == self.steps)

    @rank_zero_only
    def evaluate_if_due(self, checkpoint: Path | None) -> None:
        """Evaluate a checkpoint if that is due and has not been done; copy it to `best` if its score is the highest.

        Raises:
            VitPoseError: The checkpoint cannot be evaluated.
        """
        if checkpoint is None or not self.is_due(step := step_of(checkpoint)):
            return
        if not (checkpoint / NUMBERS_FILE).is_file():
            self._evaluate(checkpoint, step)
        found = read_numbers(checkpoint)
        if found["score"] >= read_numbers(checkpoint.parent / BEST).get("score", -1.0):
            _keep_best(checkpoint)
            logger.info("step %d is the best so far", step)

    def _evaluate(self, checkpoint: Path, step: int) -> None:
        """Evaluate a checkpoint, and write and log the metrics."""
        by_set = {validation.title: self._measure(validation, checkpoint) for validation in self.sets}
        flat = {
            f"{title}/{name}": value for title, numbers in by_set.items() for name, value in numbers.items()
        }
        # The score of a set is its first metric: AP if its skeleton has sigmas, otherwise PCK.
        score = fmean(next(iter(numbers.values()), 0.0) for numbers in by_set.values())
        write_json(checkpoint / NUMBERS_FILE, {"step": step, "score": score, "numbers": flat})
        for log in self.loggers:
            log.log_metrics(flat, step)
            log.save()
        logger.info("step %d: %s", step, ", ".join(f"{name} {value:.4f}" for name, value in flat.items()))

    def _measure(self, validation: Validation, checkpoint: Path) -> dict[str, float]:
        pipe = load(checkpoint, detector=None, dataset=validation.dataset or None)
        report = evaluate_model(
            pipe,
            validation.annotations,
            validation.images,
            metrics=self.metrics[validation.title],
            flip_test=bool(pipe.estimator.skeleton.flip_pairs),
            skeleton=validation.skeleton,
            thresholds=(PCK_THRESHOLD,),
        )
        for image, reason in report.problems.images.items():
            logger.warning("%s of %s is skipped: %s", image, validation.title, reason)
        metrics = {"AP": report.numbers.get("coco", {}).get("AP")} | report.numbers["pck"]
        return {name: value for name, value in metrics.items() if value is not None}


def _metrics(validation: Validation, skeleton: Skeleton) -> list[str]:
    """Return the metrics for a validation set; raise errors in its files before the training run starts."""
    truth = read_ground_truth(validation.annotations, validation.skeleton)
    match_keypoints(truth.skeleton, skeleton)
    if not user_path(validation.images).is_dir():
        raise InputError(
            f"images of the validation set {validation.title} is {validation.images!r}, which is not a directory; give "
            "the directory of its images"
        )
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
