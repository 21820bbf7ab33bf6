"""`vitpose models`: the models that have a short name."""

from __future__ import annotations

from ..files.hub import DEFAULT_MODEL, ModelCard, list_models

_HEAD = ("model", "params", "input", "skeleton", "experts", "licence")
_LEFT = {"model", "skeleton", "licence"}


def models() -> None:
    """List the models that have a short name: sizes, keypoints, licences."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    cards = list_models().values()
    head, *rows = _aligned([_HEAD, *map(_facts, cards)])
    console.print(Text(head, style="bold"), soft_wrap=True)
    for card, row in zip(cards, rows, strict=True):
        console.print(Text(row, style="cyan"), soft_wrap=True)
        # Address and note would not fit beside the rest into 80 columns.
        where = "in the package" if card.ships else card.source
        console.print(Padding(Text(f"{where}: {card.note}"), (0, 0, 0, 2), expand=False))
    console.print(f"{DEFAULT_MODEL} is the default; the others are downloaded when first used.")


def _facts(card: ModelCard) -> tuple[str, ...]:
    size = f"{card.parameters:.1f} M"
    return card.name, size, card.input, card.skeleton, str(card.experts), card.licence


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Returns each row as a line, with the first row's names saying which columns stand on the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if name in _LEFT else cell.rjust(width)
            for name, cell, width in zip(rows[0], row, widths, strict=True)
        )
        for row in rows
    ]
