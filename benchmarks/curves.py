"""Draws what the trials and the training of vitpose-tiny reached on the way.

    python benchmarks/curves.py docs/vitpose-tiny.csv docs/vitpose-tiny.png

Needs matplotlib and pandas. The rows are copied from the trainings' logs.
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import pandas as pd

MEASURES = ("lsp PCK@0.2", "coco PCK@0.2", "coco AP")


def draw(table: pd.DataFrame, path: str) -> None:
    """Draws the trials on the left, each a curve, and the stages on the right, one curve for each measure."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    stages = table[table.run.str.startswith("stage")]
    for name, rows in table.drop(stages.index).groupby("run", sort=False):
        left.plot(rows.samples / 1e3, rows[MEASURES[0]], marker="o", label=name)
    left.set(title="Leaving the mean pose: 4 layers, 128x96", ylabel=f"{MEASURES[0]}, flip test")
    for measure in MEASURES:
        right.plot(stages.samples / 1e3, stages[measure], marker="o", label=measure)
    for _, rows in stages.groupby("run"):
        right.axvline(rows.samples.max() / 1e3, color="0.85", zorder=0)
    right.set(title="The training, stage by stage")
    for axes in (left, right):
        axes.set(xlabel="samples, thousands", xlim=(0, None), ylim=(0, None))
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table")
    parser.add_argument("image")
    options = parser.parse_args()
    draw(pd.read_csv(options.table), options.image)
