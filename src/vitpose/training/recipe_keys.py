"""The list of a recipe's keys, generated from its dataclasses. Imports no torch."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import Any

from docstring_parser import DocstringStyle, parse

from ..data.augment import Augmentation
from .recipe_tables import LoopRecipe, ModelRecipe, OptimizerRecipe, Source, Stage, TargetRecipe, Validation

TABLES: dict[str, type] = {
    "[[sources]]": Source,
    "[[validation]]": Validation,
    "[model]": ModelRecipe,
    "[target]": TargetRecipe,
    "[augmentation]": Augmentation,
    "[optimizer]": OptimizerRecipe,
    "[loop]": LoopRecipe,
    "[[stages]]": Stage,
}


def list_keys() -> str:
    """Return all keys of a recipe with defaults and meanings, as one Markdown table for each TOML table."""
    return "\n".join(_list_table(title, kind) for title, kind in TABLES.items())


def _list_table(title: str, kind: Any) -> str:
    meanings = _meanings(kind)
    rows = [f"| `{key.name}` | {_default(key)} | {meanings[key.name]} |" for key in fields(kind)]
    return "\n".join([f"## {title}", "", "| key | default | meaning |", "|---|---|---|", *rows, ""])


def _default(key: Field[Any]) -> str:
    if key.default is MISSING:
        return "required" if key.default_factory is MISSING else "none"
    if key.default is None or key.default in ("", ()):
        return "none"
    if isinstance(key.default, tuple):
        return f"[{', '.join(f'{value:.4g}' for value in key.default)}]"
    return str(key.default).lower() if isinstance(key.default, bool) else str(key.default)


def _meanings(kind: type) -> dict[str, str]:
    """Return the descriptions of the attributes in a class's docstring."""
    listed = parse(kind.__doc__ or "", DocstringStyle.GOOGLE).params
    return {key.arg_name: " ".join((key.description or "").split()) for key in listed}
