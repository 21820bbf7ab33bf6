"""`vitpose models`: the models with short names."""

from __future__ import annotations

from ..files.hub import DEFAULT_MODEL, ModelCard, list_models

_HEADINGS = ("model", "params", "input", "skeleton", "experts", "licence")
_LEFT_ALIGNED = {"model", "skeleton", "licence"}


def models() -> None:
    """List the models with short names: size, input, skeleton, licence."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    cards = list_models().values()
    heading, *rows = _align([_HEADINGS, *map(_cells, cards)])
    console.print(Text(heading, style="bold"), soft_wrap=True)
    for card, row in zip(cards, rows, strict=True):
        console.print(Text(row, style="cyan"), soft_wrap=True)
        # On a second line, since source and note do not fit into 80 columns with the other cells.
        source = "in the package" if card.ships else card.source
        console.print(Padding(Text(f"{source}: {card.note}"), (0, 0, 0, 2), expand=False))
    console.print(f"Default: {DEFAULT_MODEL}. Other models are downloaded on first use.")


def _cells(card: ModelCard) -> tuple[str, ...]:
    size = f"{card.parameters:.1f} M"
    return card.name, size, card.input, card.skeleton, str(card.experts), card.licence


def _align(rows: list[tuple[str, ...]]) -> list[str]:
    """Return each row as a line of aligned columns; the first row has the headings."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if name in _LEFT_ALIGNED else cell.rjust(width)
            for name, cell, width in zip(rows[0], row, widths, strict=True)
        )
        for row in rows
    ]
