from __future__ import annotations

from typer.testing import CliRunner

from vitpose.cli import app
from vitpose.training.recipe_keys import TABLES


def test_the_command_lists_every_table() -> None:
    result = CliRunner().invoke(app, ["train", "--keys"])
    assert result.exit_code == 0
    assert all(f"## {title}" in result.output for title in TABLES)
    assert (
        "| `layer_decay` | 0.75 | Factor between the learning rates of a block and the next one. |"
        in result.output
    )
