"""`vitpose models`."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

import vitpose
from vitpose.cli import app


@pytest.mark.parametrize("columns", [80, 200])
def test_every_model_is_listed_with_its_facts(columns: int) -> None:
    result = CliRunner().invoke(app, ["models"], env={"COLUMNS": str(columns)})
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert max(map(len, lines)) <= columns
    text = " ".join(result.output.split())
    for name, card in vitpose.list_models().items():
        (line,) = [line for line in lines if line.split()[0] == name and line.endswith(card.licence)]
        facts = [f"{card.parameters:.1f}", "M", card.input, card.skeleton, str(card.experts), card.licence]
        assert line.split()[1:] == facts
        assert f"{'in the package' if card.ships else card.source}: {card.note}" in text


def test_cells_align_with_their_headings() -> None:
    head, *lines = CliRunner().invoke(app, ["models"], env={"COLUMNS": "100"}).output.splitlines()
    for line in lines[:-1:2]:
        assert line.index(" coco ") + 1 == head.index("skeleton")
        assert line.index("Apache") == head.index("licence")
