"""What the network is to predict at every cell, and how far it is from that.

The teacher's dense predictions are the target; annotated boxes correct them. For each annotated person the cells are
ranked by the teacher's score and overlap (task alignment, arXiv 2108.07755) and, where the teacher sees nothing, by a
prior over position and size. The best cells learn the annotated box and a score that falls with their rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...detectors.person_network import STRIDES, cell_centres
from .teacher import TeacherOutput

CELLS_A_PERSON = 9
LEAST_SCORE = 0.8
"""Target of the best cell of an annotated person, however unsure the teacher is."""
SIZE_IN_STRIDES = 6.0
"""Size of the people that a grid is best at, in strides."""
PRIOR = 0.02
"""Weight of the prior beside the teacher's alignment."""


class Cells(NamedTuple):
    """The cells of all grids: their centres (x, y) in pixels of the input, and their strides."""

    centres: Float[Tensor, "n 2"]
    strides: Float[Tensor, " n"]

    @classmethod
    def of(cls, height: int, width: int) -> Cells:
        """Return the cells of an input of this size."""
        grids = [cell_centres(height // stride, width // stride, stride) for stride in STRIDES]
        strides = [
            torch.full((len(grid),), float(stride)) for grid, stride in zip(grids, STRIDES, strict=True)
        ]
        return cls(torch.cat(grids), torch.cat(strides))


class Targets(NamedTuple):
    """Scores from 0 to 1 and xyxy boxes (pixels of the input) of all cells."""

    scores: Float[Tensor, "b n"]
    boxes: Float[Tensor, "b n 4"]


def assign_targets(
    teacher_output: TeacherOutput, annotated: Sequence[Float[Tensor, "_ 4"]], cells: Cells
) -> Targets:
    """Return the teacher's predictions, corrected by the annotated boxes of each image."""
    scores, boxes = teacher_output.scores.clone(), teacher_output.boxes.clone()
    for image, people in enumerate(annotated):
        if len(people):
            quality, person = rank_cells(scores[image], boxes[image], people, cells)
            scores[image] = torch.maximum(scores[image], LEAST_SCORE * quality)
            overlap, nearest = overlaps(boxes[image], people).max(dim=1)
            person = torch.where(quality > 0, person, nearest)
            known = (quality > 0) | (overlap > 0.6)
            boxes[image] = torch.where(known[:, None], people[person], boxes[image])
    return Targets(scores, boxes)


def rank_cells(
    scores: Float[Tensor, " n"], boxes: Float[Tensor, "n 4"], people: Float[Tensor, "g 4"], cells: Cells
) -> tuple[Float[Tensor, " n"], Tensor]:
    """Return for each cell how well it suits a person (1 for the person's best cell, 0 for no person), and which."""
    x, y = cells.centres[:, None].unbind(-1)
    inside = (x > people[:, 0]) & (x < people[:, 2]) & (y > people[:, 1]) & (y < people[:, 3])
    suits = scores[:, None].sqrt() * overlaps(boxes, people) ** 4 * inside + PRIOR * prior(people, cells)
    best = suits.topk(min(CELLS_A_PERSON, len(suits)), dim=0)
    quality = torch.zeros_like(suits).scatter(0, best.indices, best.values / best.values[:1].clamp(min=1e-9))
    return quality.max(dim=1)


def prior(people: Float[Tensor, "g 4"], cells: Cells) -> Float[Tensor, "n g"]:
    """Return how near a cell is to a person's centre, in strides, and how well its grid suits the person's size."""
    centre, size = (people[:, :2] + people[:, 2:]) / 2, people[:, 2:] - people[:, :2]
    apart = (cells.centres[:, None] - centre) / cells.strides[:, None, None]
    octaves = torch.log2(size.prod(dim=1).sqrt() / (SIZE_IN_STRIDES * cells.strides[:, None]))
    return torch.exp(-(apart**2).sum(dim=-1) / 2 - octaves**2)


def losses(
    logits: Float[Tensor, "b n"], boxes: Float[Tensor, "b n 4"], targets: Targets
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the losses of scores (quality focal loss, arXiv 2006.04388) and boxes (generalised IoU).

    Both are divided by the sum of the target scores, which also weight the boxes.
    """
    seen = targets.scores > 0.05
    count = targets.scores[seen].sum().clamp(min=1.0)
    entropy = F.binary_cross_entropy_with_logits(logits, targets.scores, reduction="none")
    score_loss = ((targets.scores - logits.sigmoid()).abs() ** 2 * entropy).sum() / count
    apart = 1.0 - generalised_iou(boxes[seen], targets.boxes[seen])
    return score_loss, (targets.scores[seen] * apart).sum() / count


def overlaps(boxes: Float[Tensor, "n 4"], others: Float[Tensor, "g 4"]) -> Float[Tensor, "n g"]:
    """Return the IoU of each of some boxes with each of some others."""
    return _iou(boxes[:, None], others[None])[0]


def generalised_iou(boxes: Float[Tensor, "n 4"], others: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Return the generalised IoU (arXiv 1902.09630) of pairs of boxes."""
    ratio, union = _iou(boxes, others)
    corners = torch.maximum(boxes[:, 2:], others[:, 2:]) - torch.minimum(boxes[:, :2], others[:, :2])
    hull = corners.clamp(min=0).prod(dim=-1).clamp(min=1e-6)
    return ratio - (hull - union) / hull


def _iou(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return IoU and union of boxes whose shapes broadcast."""
    sides = torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(boxes[..., :2], others[..., :2])
    shared = sides.clamp(min=0).prod(dim=-1)
    areas = [(some[..., 2:] - some[..., :2]).clamp(min=0).prod(dim=-1) for some in (boxes, others)]
    union = areas[0] + areas[1] - shared
    return shared / union.clamp(min=1e-6), union
