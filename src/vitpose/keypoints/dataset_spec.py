"""DatasetSpec: the declaration of a dataset, and so of the head that was trained on it.

Training, inference, evaluation and export use the same declaration; it is stored in the checkpoint. The declarations of
the published datasets are TOML files in `datasets/`; custom ones have the same format:

    name = "scissors"
    skeleton = "scissors.toml"      # a known name, a file (relative to this one), or a table [skeleton]
    warp = "udp"                    # or "plain": convention of the affine transform of crops
    aspect = "keep"                 # or "stretch": how a box is fitted to its crop
    target = "udp"                  # or "msra": encoding of the target heatmaps
    decode = "dark"                 # or "quarter", "argmax": decoding of keypoints from heatmaps
    shift_heatmap = false           # shift flipped heatmaps by a cell in the flip test; required for the plain warp
    shift_centre = true             # training augments the centre of the crop
    half_body = 8                   # half-body augmentation for instances with more labelled keypoints; 0: never
    classes = ["scissors"]          # classes of detectors to estimate poses for

    [evaluation]
    boxes = "given"                 # or "detections": boxes of the published results
    metrics = ["coco"]
    area = "annotated"              # or "box": OKS uses 0.53 x the area of the box
    excluded = []                  # keypoints excluded from all metrics
    max_oks = 1.0                   # suppress the worse of two poses with a higher OKS, in given boxes too

Only `name` and `skeleton` are required. The other keys default to the values above, except `half_body` (0), `classes`
and `metrics` (empty).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ..errors import InputError
from ..files.paths import existing_path, read_toml_file
from ..files.schemas import Row, Schema, check, parse_toml
from .skeleton import Skeleton

PLUS_DATASETS = ("coco", "aic", "mpii", "ap10k", "apt36k", "coco-wholebody")
"""The datasets of the released ViTPose++, in the order of their experts and heads."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRules:
    """The evaluation protocol of a dataset's published results.

    Attributes:
        boxes: "given": annotated boxes; "detections": boxes of a detector.
        metrics: Names from `vitpose.evaluation.METRICS`; empty: those that suit the annotations.
        area: Area of OKS: "annotated", or "box": 0.53 x the area of the box, even if the file has areas.
        excluded: Names of keypoints excluded from all metrics.
        max_oks: The worse of two poses with a higher OKS is suppressed; 1 keeps all. In a detector's boxes 1 stands
            for the default of `vitpose.evaluation`.
    """

    boxes: str = "given"
    metrics: tuple[str, ...] = ()
    area: str = "annotated"
    excluded: tuple[str, ...] = ()
    max_oks: float = 1.0


class _EvaluationForm(Schema):
    """The schema of the table [evaluation]."""

    boxes: Literal["given", "detections"] = "given"
    metrics: Row[str] = ()
    area: Literal["annotated", "box"] = "annotated"
    excluded: Row[str] = ()
    max_oks: Annotated[float, Field(ge=0, le=1)] = 1.0


class _Form(Schema):
    """The schema of a declaration's file; the skeleton is validated by `Skeleton`."""

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
    """The declaration of one dataset.

    Attributes:
        name: Short name, as in `DatasetSpec.load`.
        skeleton: Keypoints, with OKS sigmas and halves of the body.
        title: Description in one line.
        warp: Convention of the crops' affine transform: "udp" or "plain"; see `vitpose.geometry.warp.Warp`.
        aspect: How a box is fitted to its crop: "keep" or "stretch"; see `vitpose.geometry.warp.Warp.from_boxes`.
        target: Encoding of target heatmaps: "udp" (centred on the keypoint) or "msra" (centred on its cell).
        decode: Decoding of heatmaps: "dark", "quarter" or "argmax"; see `vitpose.geometry.heatmaps.Decoding`.
        shift_heatmap: Shift the flipped heatmaps of a flip test by one cell.
        shift_centre: Training augments the centre of the crop.
        half_body: Training augments instances with more labelled keypoints than this by cropping to the upper or lower
            half; 0: never.
        classes: Classes of detectors whose instances have these keypoints, in COCO's class names.
        evaluation: Evaluation protocol of the published results.

    Raises:
        InputError: A value has another type, or is not one of the choices.
        UnknownNameError: A name in `evaluation.excluded` is not a keypoint of the skeleton.
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
        for name in self.evaluation.excluded:
            self.skeleton.index(name)

    @classmethod
    def of_skeleton(cls, skeleton: Skeleton, **others: Any) -> DatasetSpec:
        """Returns the declaration of an unknown dataset with the keypoints of a skeleton; `others` are attributes."""
        return cls(name=skeleton.name, skeleton=skeleton, **others)

    @staticmethod
    def available() -> list[str]:
        """Returns the names of the shipped datasets."""
        names = (entry.name for entry in _shipped().iterdir())
        return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))

    @classmethod
    def load(cls, name: str | Path | DatasetSpec) -> DatasetSpec:
        """Returns a shipped dataset by its name, or reads one from a `.toml` file.

        Args:
            name: Name of a shipped dataset, path of a `.toml` file (`~` is expanded), or a declaration, which is
                returned as it is.

        Raises:
            UnknownNameError: The name is neither a shipped dataset nor an existing file.
            InputError: The `.toml` file does not exist, cannot be read, or is invalid.
        """
        if isinstance(name, DatasetSpec):
            return name
        if isinstance(name, str | Path) and str(name) in cls.available():
            return _load_shipped(str(name))
        path, content = read_toml_file(name, "dataset", "vitpose.DatasetSpec", cls.available(), InputError)
        return cls.from_dict(parse_toml(content, path), str(path), path.parent)

    @classmethod
    def load_all(cls, given: Any, source: str) -> list[DatasetSpec]:
        """Returns the datasets of a list of names, tables and declarations.

        Args:
            given: The list, as in a configuration.
            source: Name of the list in messages.

        Raises:
            InputError: It is not such a list, or an entry is invalid.
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
        """Makes a declaration from a dictionary in the format of the files.

        Args:
            table: The dictionary.
            source: Name of the file or argument in messages.
            folder: Directory that the path of a skeleton's file is relative to; default: the working directory.

        Raises:
            InputError: A key is missing, unknown, or has an invalid value.
        """
        form = check(_Form, table, source)
        values = {name: getattr(form, name) for name in _Form.model_fields}
        values["skeleton"] = _read_skeleton(form.skeleton, source, folder)
        values["evaluation"] = EvaluationRules(**form.evaluation.model_dump())
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns a dictionary in the format of the files, including the skeleton, of lists, strings and numbers."""
        table = {f.name: getattr(self, f.name) for f in fields(self)}
        rules = {key: _plain(value) for key, value in asdict(self.evaluation).items()}
        nested = {"skeleton": self.skeleton.to_dict(), "evaluation": rules}
        return {key: _plain(value) for key, value in (table | nested).items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _read_skeleton(given: Any, source: str, folder: Path | None) -> Skeleton:
    if isinstance(given, Skeleton):
        return given
    if isinstance(given, Mapping):
        return Skeleton.from_dict(given, f"{source}, [skeleton]")
    if not isinstance(given, str):
        raise InputError(f"{source}: skeleton must be a name, a file or a table, not {given!r:.80}")
    relative = None if folder is None else existing_path(folder / given)
    return Skeleton.load(relative if relative is not None and relative.is_file() else given)


def _shipped() -> Any:
    return resources.files("vitpose.keypoints") / "datasets"


@cache
def _load_shipped(name: str) -> DatasetSpec:
    table = parse_toml((_shipped() / f"{name}.toml").read_bytes(), f"{name}.toml")
    return DatasetSpec.from_dict(table, f"{name}.toml")
