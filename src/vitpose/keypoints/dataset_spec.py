"""DatasetSpec: everything that belongs to a dataset, and so to the head that was trained on it.

One declaration is what training, estimation, evaluation and export go by; it travels in the checkpoint.
The published datasets' are TOML files in `datasets/`, a user's own has the same form:

    name = "scissors"
    skeleton = "scissors.toml"      # a shipped name, a file (beside this one), or a table [skeleton]
    warp = "udp"                    # or "plain": how crops are cut
    aspect = "keep"                 # or "stretch": how a box fills its crop
    target = "udp"                  # or "msra": how the maps it learns from are made
    decode = "dark"                 # or "quarter", "argmax": how a point is read from its map
    shift_heatmap = false           # of a flip test; the plain warp needs it
    shift_centre = true             # training may move the middle of a crop
    half_body = 8                   # training may look at one half alone where more points have labels; 0: never
    classes = ["scissors"]          # what detectors call these things

    [evaluation]
    boxes = "given"                 # or "detections": what the published figures looked in
    metrics = ["coco"]
    area = "annotated"              # or "box": OKS takes 0.53 x the box
    uncounted = []                  # keypoints that no measure counts
    max_oks = 1.0                   # of two poses more alike the worse is left out, in given boxes too

Only `name` and `skeleton` are needed; the others default to the values above, but `half_body` to 0 and `classes`
and `metrics` to none.
Knows no network.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ..errors import InputError, UnknownNameError
from ..files.schemas import Row, Schema, check, parse_toml
from .skeleton import Skeleton

PLUS_DATASETS = ("coco", "aic", "mpii", "ap10k", "apt36k", "coco-wholebody")
"""The datasets of the released ViTPose++, in the order of their experts and heads."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRules:
    """How a dataset's published figures are measured.

    Attributes:
        boxes: "given": in the annotated boxes; "detections": in those of a detector.
        metrics: Of `vitpose.evaluation.METRICS`; empty takes what fits the file.
        area: "annotated", or "box" where OKS takes 0.53 x the box, whatever the file says.
        uncounted: Keypoints that no measure counts.
        max_oks: Of two poses more alike than this the worse is left out, in whatever boxes; 1 keeps all. In a
            detector's boxes the limit is `vitpose.evaluation`'s own where this is 1.
    """

    boxes: str = "given"
    metrics: tuple[str, ...] = ()
    area: str = "annotated"
    uncounted: tuple[str, ...] = ()
    max_oks: float = 1.0


class _EvaluationForm(Schema):
    """The table [evaluation] of a declaration's file."""

    boxes: Literal["given", "detections"] = "given"
    metrics: Row[str] = ()
    area: Literal["annotated", "box"] = "annotated"
    uncounted: Row[str] = ()
    max_oks: Annotated[float, Field(ge=0, le=1)] = 1.0


class _Form(Schema):
    """A declaration's file; what its skeleton is, `Skeleton` judges."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    skeleton: Any
    title: str = ""
    warp: Literal["udp", "plain"] = "udp"
    aspect: Literal["keep", "stretch"] = "keep"
    target: Literal["udp", "msra"] = "udp"
    decode: Literal["dark", "quarter", "argmax"] = "dark"
    shift_heatmap: bool = False
    shift_centre: bool = True
    half_body: Annotated[int, Field(ge=0, le=10_000)] = 0
    classes: Row[str] = ()
    evaluation: _EvaluationForm = _EvaluationForm()


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """The conventions of one dataset.

    Attributes:
        name: Short name, as in `DatasetSpec.load`.
        skeleton: What the keypoints are, with sigmas and halves of the body.
        title: One line for people.
        warp: How crops are cut: "udp" or "plain"; see `vitpose.geometry.warp.Warp`.
        aspect: How a box fills its crop: "keep" or "stretch"; see `vitpose.geometry.warp.Warp.from_boxes`.
        target: How target maps are made: "udp" (centred on the point) or "msra" (centred on its cell).
        decode: How maps are read: "dark", "quarter" or "argmax"; see `vitpose.geometry.heatmaps.Decoding`.
        shift_heatmap: Shift the mirrored maps of a flip test by one cell.
        shift_centre: Training may move the middle of a crop.
        half_body: Training may look at the upper or the lower half alone where more than so many points have
            a label; 0 is never.
        classes: What detectors call the things that have these keypoints, in COCO's class names.
        evaluation: How published figures are measured.

    Raises:
        InputError: A value has another type, or is none of the choices.
        UnknownNameError: A keypoint that is not counted is none of the skeleton's.
    """

    name: str
    skeleton: Skeleton
    title: str = ""
    warp: str = "udp"
    aspect: str = "keep"
    target: str = "udp"
    decode: str = "dark"
    shift_heatmap: bool = False
    shift_centre: bool = True
    half_body: int = 0
    classes: tuple[str, ...] = ()
    evaluation: EvaluationRules = field(default_factory=EvaluationRules)

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        check(_Form, values | {"evaluation": asdict(self.evaluation)}, f"the dataset {self.name!r}")
        for name in self.evaluation.uncounted:
            self.skeleton.index(name)

    @staticmethod
    def available() -> list[str]:
        """Returns the names of the shipped declarations."""
        names = (entry.name for entry in _shipped().iterdir())
        return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))

    @classmethod
    def load(cls, name: str | Path | DatasetSpec) -> DatasetSpec:
        """Returns a shipped declaration by its name, or reads one from a `.toml` file.

        Raises:
            UnknownNameError: The name is neither shipped nor an existing file.
            InputError: There is no such `.toml` file, it cannot be read, or it does not hold together.
        """
        if isinstance(name, DatasetSpec):
            return name
        if not isinstance(name, str | Path):
            raise InputError(
                f"a dataset must be a name, a .toml file or a vitpose.DatasetSpec, not {name!r:.80}; shipped names: "
                f"{', '.join(cls.available())}"
            )
        if str(name) in cls.available():
            return _load_shipped(str(name))
        path = Path(name).expanduser()
        if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises for a name that no file can have
            if path.suffix == ".toml":
                raise InputError(
                    f"there is no file {path.absolute()}; give the path of a declaration's .toml file, or a shipped "
                    f"name: {', '.join(cls.available())}"
                )
            hint = "A path to a declaration's .toml file works too."
            raise UnknownNameError("dataset", str(name), cls.available(), hint)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(
                f"{path} cannot be read ({error.strerror}); give a readable .toml file"
            ) from error
        return cls.from_dict(parse_toml(content, path), str(path), path.parent)

    @classmethod
    def load_all(cls, given: Any, source: str) -> list[DatasetSpec]:
        """Returns the declarations of a list of names, tables and declarations.

        Args:
            given: The list, as a configuration holds it.
            source: How messages call it.

        Raises:
            InputError: It is not such a list, or an entry is wrong.
        """
        if not isinstance(given, list | tuple):
            raise InputError(f"{source} is {given!r:.80}; it must be a list of datasets, as names or tables")
        return [
            cls.from_dict(entry, f"{source}[{number}]") if isinstance(entry, Mapping) else cls.load(entry)
            for number, entry in enumerate(given)
        ]

    @classmethod
    def from_dict(
        cls, table: Mapping[Any, Any], source: str = "dataset", folder: Path | None = None
    ) -> DatasetSpec:
        """Reads a declaration from a table of the files' form.

        Args:
            table: The table.
            source: How messages call it.
            folder: Where a skeleton's file is looked for.

        Raises:
            InputError: A key is missing, unknown, or has a value that cannot be.
        """
        form = check(_Form, table, source)
        values = {name: getattr(form, name) for name in _Form.model_fields}
        values["skeleton"] = _read_skeleton(form.skeleton, source, folder)
        values["evaluation"] = EvaluationRules(**form.evaluation.model_dump())
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns the table of the files' form, the skeleton inside, of plain values."""
        table = {f.name: getattr(self, f.name) for f in fields(self)}
        rules = {key: _plain(value) for key, value in asdict(self.evaluation).items()}
        own = {"skeleton": self.skeleton.to_dict(), "evaluation": rules}
        return {key: _plain(value) for key, value in (table | own).items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _read_skeleton(given: Any, source: str, folder: Path | None) -> Skeleton:
    if isinstance(given, Skeleton):
        return given
    if isinstance(given, Mapping):
        return Skeleton.from_dict(given, f"{source}, [skeleton]")
    if not isinstance(given, str):
        raise InputError(f"{source}: skeleton must be a name, a file or a table, not {given!r:.80}")
    beside = None if folder is None else folder / given
    found = beside is not None and os.path.isfile(beside)  # noqa: PTH113 - as in `load`
    return Skeleton.load(beside if found and beside is not None else given)


def _shipped() -> Any:
    return resources.files("vitpose.keypoints") / "datasets"


@cache
def _load_shipped(name: str) -> DatasetSpec:
    table = parse_toml((_shipped() / f"{name}.toml").read_bytes(), f"{name}.toml")
    return DatasetSpec.from_dict(table, f"{name}.toml")
