"""Trains the person detector in the package: `python -m vitpose.training.detector RECIPE --out DIRECTORY`."""
