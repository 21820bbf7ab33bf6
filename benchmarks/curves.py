"""Draw the validation curves of the experiments and of the training run of vitpose-tiny.

    python benchmarks/curves.py docs/assets/vitpose-tiny.csv docs/assets/vitpose-tiny.png

Needs matplotlib and pandas. The rows are copied from the logs of the training runs.
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import pandas as pd

METRICS = ("lsp PCK@0.2", "coco PCK@0.2", "coco AP")


def draw(table: pd.DataFrame, path: str) -> None:
    """Draw one curve per experiment on the left, and the stages with one curve per metric on the right."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    stages = table[table.run.str.startswith("stage")]
    for name, rows in table.drop(stages.index).groupby("run", sort=False):
        left.plot(rows.samples / 1e3, rows[METRICS[0]], marker="o", label=name)
    left.set(title="Experiments: 4 layers, 128x96", ylabel=f"{METRICS[0]}, flip test")
    for metric in METRICS:
        right.plot(stages.samples / 1e3, stages[metric], marker="o", label=metric)
    for _, rows in stages.groupby("run"):
        right.axvline(rows.samples.max() / 1e3, color="0.85", zorder=0)
    right.set(title="Training run, by stage")
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
