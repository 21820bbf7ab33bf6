"""Train the person detector: `python -m vitpose.training.detector recipes/detectors/person.toml --out runs/person`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .loop import DetectorTraining
from .recipe import DetectorRecipe


def main() -> None:
    """Read the recipe and train, or resume a run that was interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path, help="the recipe, a TOML file")
    parser.add_argument("--out", type=Path, required=True, help="directory of the run")
    options = parser.parse_args()
    DetectorTraining(DetectorRecipe.read(options.recipe), options.out).train()


if __name__ == "__main__":
    main()
