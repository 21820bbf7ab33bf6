"""The recipe of a detector's training run, read from TOML."""

from __future__ import annotations

from pathlib import Path

from ...files.schemas import Row, Schema, check, parse_toml


class DetectorSource(Schema):
    """Images to train on.

    Attributes:
        annotations: A COCO file.
        images: The directory of its images.
        weight: How often its images are drawn, relative to other sources.
    """

    annotations: str
    images: str
    weight: float


class DetectorPhase(Schema):
    """Part of a run.

    Attributes:
        until: Share of the run after which the next phase begins.
        side_px: Side of the square training images.
        mosaic: Probability of four images in one.
        background: Probability of a window without people.
        scale_octaves: Half the range of the scale, in powers of two.
    """

    until: float
    side_px: int
    mosaic: float
    background: float
    scale_octaves: float


class DetectorRecipe(Schema):
    """A training run, whose length is a time, so that it ends when it should on a machine of unknown speed.

    Attributes:
        teacher: An RTMDet person detector in ONNX.
        minutes: Length of the run; the learning rate falls to zero with the time.
        sources: Images to train on.
        phases: Parts of the run.
        batch_size: Images of a step.
        lr: Highest learning rate of AdamW.
        weight_decay: Weight decay of AdamW, of convolutions only.
        warmup_steps: Steps in which the learning rate rises.
        ema: Decay of the moving average of the weights, which is what is evaluated and shipped.
        feature_weight: Weight of the loss between the features and the teacher's.
        checkpoint_minutes: Time between checkpoints.
        seed: Seed of all random numbers.
    """

    teacher: str
    minutes: float
    sources: Row[DetectorSource]
    phases: Row[DetectorPhase]
    batch_size: int = 8
    lr: float = 1.5e-3
    weight_decay: float = 0.05
    warmup_steps: int = 500
    ema: float = 0.999
    feature_weight: float = 1.0
    checkpoint_minutes: float = 5.0
    seed: int = 0

    @classmethod
    def read(cls, path: Path) -> DetectorRecipe:
        """Read a recipe; an unknown key is an error.

        Raises:
            InputError: The file is not a recipe.
        """
        return check(cls, parse_toml(path.read_bytes(), path), path)

    def phase(self, progress: float) -> DetectorPhase:
        """Return the phase at a share of the run."""
        return next((phase for phase in self.phases if progress < phase.until), self.phases[-1])
