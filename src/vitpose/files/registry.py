"""The models and detectors with short names: `models.toml` and `detectors.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from .schemas import Schema, check, parse_toml

DEFAULT_MODEL = "vitpose-tiny"
"""The model of `vitpose.load` and of the command line."""
DEFAULT_DETECTOR = "person"
"""The detector of `vitpose.load` and of the command line."""


class Card(Schema):
    """Description of a network with a short name.

    Attributes:
        name: The short name.
        source: Hub repository, URL of a file, or "package" for a file in the package.
        parameters: Number of parameters, in millions.
        input: Width x height of the input in pixels.
        licence: Licence of the weights.
        note: Remark in one line.
    """

    name: str
    source: str
    parameters: float
    input: str
    licence: str
    note: str

    @property
    def in_package(self) -> bool:
        """Whether the weights are in the package."""
        return self.source == "package"

    @property
    def in_repository(self) -> bool:
        """Whether the weights are in a repository of the hub."""
        return not self.in_package and "://" not in self.source


class ModelCard(Card):
    """Description of a model with a short name.

    Attributes:
        skeleton: Name of the skeleton.
        experts: Number of experts.
    """

    skeleton: str
    experts: int


class DetectorCard(Card):
    """Description of a detector with a short name.

    Attributes:
        kind: What runs it: "person" (`PersonDetector`), "rtdetr" (`RtDetrDetector`) or "onnx" (`OnnxDetector`).
        classes: What it detects.
        file: Name of the file: of one in the package's directory of weights, or of one in the ZIP archive at the URL;
            empty for the file at a URL itself and for a repository.
        size_bytes: Size of the file; 0 for a repository.
        sha256: SHA-256 of the file in hexadecimal digits; empty for a repository and for a file in the package.
    """

    kind: Literal["person", "rtdetr", "onnx"]
    classes: str
    file: str = ""
    size_bytes: int = 0
    sha256: str = ""


@cache
def list_models() -> Mapping[str, ModelCard]:
    """Returns the models with a short name, by that name."""
    return _read("models.toml", ModelCard)


@cache
def list_detectors() -> Mapping[str, DetectorCard]:
    """Returns the detectors with a short name, by that name."""
    return _read("detectors.toml", DetectorCard)


def weights_folder() -> Path:
    """Returns the directory of the weights in the package."""
    return Path(str(resources.files("vitpose") / "weights"))


def _read(listing: str, schema: type[Card]) -> Mapping[str, Any]:
    table = parse_toml((resources.files("vitpose.files") / listing).read_bytes(), listing)
    rows = {name: {"name": name, **row} for name, row in table.items()}
    return MappingProxyType(check(dict[str, schema], rows, listing))  # type: ignore[valid-type]
