"""Conventions: everything that belongs to a data set, and so to the head that was trained on it.

One declaration is what training, estimation, evaluation and export go by; it travels in the checkpoint.
The published data sets' are TOML files in `datasets/`, a user's own has the same form:

    name = "scissors"
    skeleton = "scissors.toml"      # a shipped name, a file (beside this one), or a table [skeleton]
    warp = "udp"                    # or "plain": how crops are cut
    target = "udp"                  # or "msra": how the maps it learns from are made
    decode = "dark"                 # or "quarter", "argmax": how a point is read from its map
    shift_heatmap = false           # of a flip test; the plain warp needs it
    half_body = 8                   # training may look at one half alone where more points have labels; 0: never
    classes = ["scissors"]          # what detectors call these things

    [evaluation]
    boxes = "given"                 # or "detections": what the published figures looked in
    metrics = ["coco"]
    area = "annotated"              # or "box": OKS takes 0.53 x the box
    uncounted = []                  # keypoints that no measure counts

Only `name` and `skeleton` are needed; the others default to the values above, but `half_body` to 0 and `classes`
and `metrics` to none.
Knows no network.
"""

from __future__ import annotations

import tomllib
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from .crop import WARPS
from .errors import InputError, UnknownNameError
from .heatmap import REFINEMENTS
from .skeleton import Skeleton

TARGETS = ("udp", "msra")
BOXES = ("given", "detections")
AREAS = ("annotated", "box")

PLUS_DATASETS = ("coco", "aic", "mpii", "ap10k", "apt36k", "coco-wholebody")
"""The data sets of the released ViTPose++, in the order of their experts and heads."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRules:
    """How a data set's published figures are measured.

    Attributes:
        boxes: "given": in the annotated boxes; "detections": in those of a detector.
        metrics: Of `vitpose.evaluate.METRICS`; empty takes what fits the file.
        area: "annotated", or "box" where OKS takes 0.53 x the box, whatever the file says.
        uncounted: Keypoints that no measure counts.
    """

    boxes: str = "given"
    metrics: tuple[str, ...] = ()
    area: str = "annotated"
    uncounted: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """The conventions of one data set.

    Attributes:
        name: Short name, as in `Conventions.load`.
        skeleton: What the keypoints are, with sigmas and halves of the body.
        title: One line for people.
        warp: How crops are cut: "udp" or "plain"; see `vitpose.crop.Warp`.
        target: How target maps are made: "udp" (centred on the point) or "msra" (centred on its cell).
        decode: How maps are read: "dark", "quarter" or "argmax"; see `vitpose.heatmap.Decoding`.
        shift_heatmap: Shift the mirrored maps of a flip test by one cell.
        half_body: Training may look at the upper or the lower half alone where more than so many points have
            a label; 0 is never.
        classes: What detectors call the things that have these keypoints, in COCO's class names.
        evaluation: How published figures are measured.

    Raises:
        UnknownNameError: A value is none of the choices.
    """

    name: str
    skeleton: Skeleton
    title: str = ""
    warp: str = "udp"
    target: str = "udp"
    decode: str = "dark"
    shift_heatmap: bool = False
    half_body: int = 0
    classes: tuple[str, ...] = ()
    evaluation: EvaluationRules = field(default_factory=EvaluationRules)

    def __post_init__(self) -> None:
        choices = [
            ("warp", self.warp, WARPS),
            ("target", self.target, TARGETS),
            ("decoding", self.decode, REFINEMENTS),
            ("kind of boxes", self.evaluation.boxes, BOXES),
            ("kind of area", self.evaluation.area, AREAS),
        ]
        for kind, value, known in choices:
            if value not in known:
                raise UnknownNameError(f"{kind} of the data set {self.name!r}", value, known)
        for name in self.evaluation.uncounted:
            self.skeleton.index(name)

    @staticmethod
    def available() -> list[str]:
        """Returns the names of the shipped declarations."""
        names = (entry.name for entry in _shipped().iterdir())
        return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))

    @classmethod
    def load(cls, name: str | Path | Conventions) -> Conventions:
        """Returns a shipped declaration by its name, or reads one from a `.toml` file.

        Raises:
            UnknownNameError: The name is neither shipped nor an existing file.
            InputError: There is no such `.toml` file, or it does not hold together.
        """
        if isinstance(name, Conventions):
            return name
        if str(name) in cls.available():
            return _load_shipped(str(name))
        path = Path(name).expanduser()
        if not path.is_file():
            if path.suffix == ".toml":
                raise InputError(
                    f"there is no file {path.absolute()}; give the path of a declaration's .toml file, or a shipped "
                    f"name: {', '.join(cls.available())}"
                )
            hint = "A path to a declaration's .toml file works too."
            raise UnknownNameError("data set", str(name), cls.available(), hint)
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path} is not valid TOML: {error}; see docs/plus-plus.md for the form"
            ) from error
        return cls.from_dict(table, str(path), path.parent)

    @classmethod
    def from_dict(
        cls, table: Mapping[str, Any], source: str = "data set", folder: Path | None = None
    ) -> Conventions:
        """Reads a declaration from a table of the files' form.

        Args:
            table: The table.
            source: How messages call it.
            folder: Where a skeleton's file is looked for.

        Raises:
            InputError: A key is missing, unknown, or has a value of another type.
        """
        values = _checked(cls, table, source)
        for key in ("name", "skeleton"):
            if not values.get(key):
                raise InputError(f"{source} has no {key!r}, which a data set needs")
        values["skeleton"] = _read_skeleton(values["skeleton"], source, folder)
        if "evaluation" in values:
            rules = _checked(EvaluationRules, values["evaluation"], f"{source}, [evaluation]")
            values["evaluation"] = EvaluationRules(**rules)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns the table of the files' form, the skeleton inside, of plain values."""
        table = {f.name: getattr(self, f.name) for f in fields(self)}
        rules = {key: _plain(value) for key, value in asdict(self.evaluation).items()}
        own = {"skeleton": self.skeleton.to_dict(), "evaluation": rules}
        return {key: _plain(value) for key, value in (table | own).items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _checked(kind: type, table: Any, source: str) -> dict[str, Any]:
    """Returns the values of a table for a dataclass, lists as tuples."""
    if not isinstance(table, Mapping):
        raise InputError(f"{source} must be a table, not {table!r}")
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in table.items():
        if key not in hints:
            raise UnknownNameError(f"key of {source}", key, hints)
        if hints[key] in (str, bool, int) and type(value) is not hints[key]:
            raise InputError(f"{source}: {key} must be of the type {hints[key].__name__}, not {value!r}")
        if hints[key] == tuple[str, ...]:
            if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
                raise InputError(f"{source}: {key} must be a list of texts, not {value!r}")
            value = tuple(value)
        values[key] = value
    return values


def _read_skeleton(given: Any, source: str, folder: Path | None) -> Skeleton:
    if isinstance(given, Skeleton):
        return given
    if isinstance(given, Mapping):
        return Skeleton.from_dict(given, f"{source}, [skeleton]")
    if not isinstance(given, str):
        raise InputError(f"{source}: skeleton must be a name, a file or a table, not {given!r}")
    beside = None if folder is None else folder / given
    return Skeleton.load(beside if beside is not None and beside.is_file() else given)


def _shipped() -> Any:
    return resources.files("vitpose") / "datasets"


@cache
def _load_shipped(name: str) -> Conventions:
    text = (_shipped() / f"{name}.toml").read_text(encoding="utf-8")
    return Conventions.from_dict(tomllib.loads(text), f"{name}.toml")
