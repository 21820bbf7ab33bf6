"""The configuration of the whole network, in the form that `transformers` reads and writes.

Names, defaults and checks of `config.json`; independent of weights, imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from ..errors import CheckpointError, InputError, UnknownNameError
from ..files.hub import CONFIG_FILE
from ..files.limits import MAX_EXPERTS, MAX_KEYPOINTS, MAX_SCALE_FACTOR
from ..files.settings import MutableSettings, at_most
from ..keypoints.dataset_spec import PLUS_DATASETS, DatasetSpec
from ..keypoints.model_spec import ModelSpec
from ..keypoints.skeleton import Skeleton, plain_name
from .backbone_config import PATCH_PADDING, RETURNED, VitPoseBackboneConfig
from .foreign_config import checked_backbone, checked_kwargs
from .presets import backbone_of_size

__all__ = ["PATCH_PADDING", "VitPoseBackboneConfig", "VitPoseConfig"]

# `transformers` does not write the labels of its default configuration, which has two.
_UNWRITTEN_LABELS = 2


def _number(value: Any) -> Any:
    """Converts a number in a string to an int: JSON keys are strings, and `transformers` accepts such values too."""
    return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) else value


def _by_number(value: Any) -> Any:
    return {_number(key): name for key, name in value.items()} if isinstance(value, Mapping) else value


def _to_number(value: Any) -> Any:
    return {name: _number(index) for name, index in value.items()} if isinstance(value, Mapping) else value


def _lists(value: Any) -> Any:
    rows = list(value) if isinstance(value, tuple) else value
    return [list(row) if isinstance(row, tuple) else row for row in rows] if isinstance(rows, list) else rows


Name = Annotated[str, Field(max_length=1024)]
Index = Annotated[int, Field(ge=0, lt=MAX_KEYPOINTS)]
Edge = Annotated[list[Index], Field(min_length=2, max_length=2)]


@dataclass(kw_only=True)
class VitPoseConfig(MutableSettings):
    """The configuration of the whole network: backbone, decoder and keypoints.

    The default is ViTPose-B with the simple decoder and COCO's 17 keypoints.

    Attributes:
        backbone_config: A `VitPoseBackboneConfig`, its dictionary form, or the dictionary of another
            `transformers` backbone with its `model_type`.
        backbone: Name of a timm or `transformers` backbone to build instead of `VitPoseBackbone`.
        use_pretrained_backbone: Load the pretrained weights of that backbone.
        use_timm_backbone: Build that backbone with timm; default: with `transformers`.
        backbone_kwargs: Arguments passed to the library that builds that backbone (`out_indices`, `img_size`, …).
        initializer_range: Stored for `transformers` only; new decoders are initialised as in the original, N(0, 0.001).
        scale_factor: Upsampling factor of the simple decoder.
        use_simple_decoder: True: simple decoder (bilinear upsampling, one convolution); False: classic decoder (two
            deconvolutions).
        id2label: Keypoint names by index.
        edges: Edges as pairs of indices.
        num_labels: Number of keypoints if no names are given.
        datasets: The `DatasetSpec` of each head, in the order of the experts; names and dictionaries are accepted too.
            The keypoints of the first are those of `id2label`. Empty: one head without a declared dataset, as
            in `transformers`.
        vitpose_spec: The JSON form of the `ModelSpec` of all heads, without their datasets; use `spec` and `with_spec`.
            Default: unknown, as in checkpoints of `transformers`.
        output_attentions: Return each block's attention weights by default.
        output_hidden_states: Return the tokens before and after each block by default.
        return_dict: Return a `VitPoseEstimatorOutput` by default; False returns a tuple.

    Raises:
        InputError: A value is invalid, or values contradict each other.
        UnknownNameError: An attribute, a dataset or a key of `backbone_kwargs` is unknown.
    """

    backbone_config: Any = None
    backbone: Name | None = None
    use_pretrained_backbone: bool = False
    use_timm_backbone: bool = False
    backbone_kwargs: dict[str, Any] | None = None
    initializer_range: Annotated[float, Field(ge=0, le=1)] = 0.02
    scale_factor: Annotated[int, Field(ge=1, le=MAX_SCALE_FACTOR)] = 4
    use_simple_decoder: bool = True
    id2label: Annotated[dict[Index, Name], BeforeValidator(_by_number), at_most(MAX_KEYPOINTS)] = field(
        default_factory=dict
    )
    label2id: Annotated[dict[Name, Index], BeforeValidator(_to_number), at_most(MAX_KEYPOINTS)] = field(
        default_factory=dict
    )
    edges: Annotated[list[Edge], BeforeValidator(_lists), at_most(MAX_KEYPOINTS)] | None = None
    num_labels: Annotated[int, Field(ge=1, le=MAX_KEYPOINTS)] | None = None
    datasets: Annotated[list[Any], BeforeValidator(_lists), at_most(MAX_EXPERTS)] = field(
        default_factory=list
    )
    vitpose_spec: dict[str, Any] | None = None
    output_attentions: bool = False
    output_hidden_states: bool = False
    return_dict: bool = True

    model_type = "vitpose"
    FILE = CONFIG_FILE

    def _complete(self) -> None:
        if self.backbone is not None and self.backbone_config is not None:
            raise InputError(f"both backbone {self.backbone!r} and backbone_config are given; give one")
        if self.backbone is None and (self.use_timm_backbone or self.use_pretrained_backbone):
            raise InputError(
                "use_timm_backbone and use_pretrained_backbone require backbone='...', "
                "the name of the backbone to build"
            )
        vars(self)["backbone_config"] = self._read_backbone()
        vars(self)["datasets"] = DatasetSpec.load_all(self.datasets, "datasets of the configuration")
        if self.backbone_kwargs is not None:
            vars(self)["backbone_kwargs"] = checked_kwargs(self.backbone_kwargs)
        self._name_keypoints()
        self._check_edges()
        if self.datasets:
            self._check_datasets()
        _ = self.spec  # raises if it is invalid

    def _reset_by(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        if "datasets" in changes:
            return {"id2label": {}, "label2id": {}, "num_labels": None, "edges": None}
        given = changes.get("id2label", self.id2label)
        count = changes.get("num_labels", self.num_labels) if given == self.id2label else None
        if given == self.id2label and count == self.num_labels:
            return {}
        reset: dict[str, Any] = {"id2label": {}, "label2id": {}, "num_labels": None, "datasets": []}
        same_count = isinstance(given, Mapping) and count is None and len(given) == self.num_labels
        return reset if same_count else {**reset, "edges": None}

    def _read_backbone(self) -> VitPoseBackboneConfig | dict[str, Any] | None:
        """Returns a `VitPoseBackboneConfig`, or the checked dictionary of another library's backbone."""
        given = self.backbone_config
        if given is None:
            return VitPoseBackboneConfig() if self.backbone is None else None
        if isinstance(given, VitPoseBackboneConfig):
            return given
        table = given.to_dict() if hasattr(given, "to_dict") else given
        if not isinstance(table, Mapping):
            raise InputError(
                f"backbone_config is a {type(given).__name__}; give a VitPoseBackboneConfig or a dictionary"
            )
        ours = table.get("model_type", VitPoseBackboneConfig.model_type) == VitPoseBackboneConfig.model_type
        if not ours:
            return checked_backbone(table)
        try:
            return VitPoseBackboneConfig(**VitPoseBackboneConfig._values_of(table))
        except InputError as error:
            raise InputError(f"backbone_config: {error}") from error

    def _name_keypoints(self) -> None:
        """Completes `id2label`, `label2id` and `num_labels` and checks that they agree."""
        labels, edges = self.id2label, self.edges
        if not labels and (self.datasets or self.num_labels is None):
            skeleton = self.datasets[0].skeleton if self.datasets else Skeleton.load("coco")
            labels = dict(enumerate(skeleton.keypoints))
            edges = edges or [list(edge) for edge in skeleton.edges]
        labels = labels or {index: f"keypoint_{index}" for index in range(self.num_labels or 0)}
        if sorted(labels) != list(range(len(labels))):
            raise InputError(
                f"id2label must number the keypoints from 0 without gaps, not {sorted(labels)[:20]}"
            )
        if self.num_labels not in (None, len(labels)):
            raise InputError(f"num_labels is {self.num_labels}, but id2label names {len(labels)} keypoints")
        numbers = {name: index for index, name in labels.items()}
        if self.label2id not in ({}, numbers):
            raise InputError(
                f"label2id {_shortened(self.label2id)} and id2label {_shortened(labels)} disagree; give one"
            )
        vars(self).update(id2label=labels, label2id=numbers, num_labels=len(labels), edges=edges)

    def _check_edges(self) -> None:
        for edge in self.edges or ():
            if max(edge) >= len(self.id2label):
                raise InputError(
                    f"edges has {edge}, but the keypoints are numbered 0 to {len(self.id2label) - 1}; change the edge"
                )

    def _check_datasets(self) -> None:
        names = [spec.name for spec in self.datasets]
        if (total := sum(len(spec.skeleton) for spec in self.datasets)) > MAX_KEYPOINTS:
            raise InputError(f"the datasets have {total} keypoints in total; the maximum is {MAX_KEYPOINTS}")
        if len(set(names)) < len(names):
            raise InputError(f"datasets {names} contain a name twice; give each head a unique name")
        if 1 < self.num_experts < len(names):
            raise InputError(
                f"there are {len(names)} datasets {names} for {self.num_experts} experts; "
                "each dataset requires an expert"
            )
        self._refuse_other_keypoints(self.datasets[0])

    def _refuse_other_keypoints(self, dataset_spec: DatasetSpec) -> None:
        labels = [self.id2label[index] for index in range(len(self.id2label))]
        nameless = all(re.fullmatch(r"(keypoint|LABEL)_\d+", label) for label in labels)
        same = [*map(plain_name, labels)] == [*map(plain_name, dataset_spec.skeleton.keypoints)]
        if len(labels) != len(dataset_spec.skeleton) or not (nameless or same):
            raise InputError(
                f"the network's {len(labels)} keypoints ({', '.join(labels[:4])}, …) are not the "
                f"{len(dataset_spec.skeleton)} of the dataset {dataset_spec.name!r} "
                f"({', '.join(dataset_spec.skeleton.keypoints[:4])}, …); choose the dataset it was trained on"
            )

    @property
    def num_experts(self) -> int:
        """Number of experts per feed-forward layer; 1 if the backbone has none."""
        return getattr(self.backbone_config, "num_experts", 1)

    @property
    def heads(self) -> list[DatasetSpec]:
        """The `DatasetSpec` of each head; one without a declared dataset gets the defaults, those of COCO (UDP)."""
        return self.datasets or [DatasetSpec.of_skeleton(self.skeleton)]

    @property
    def spec(self) -> ModelSpec | None:
        """The `ModelSpec` of the first head; None if the configuration has none."""
        table = self.vitpose_spec
        return None if table is None else ModelSpec.from_dict(table, "vitpose_spec", self.heads[0])

    def with_spec(self, spec: ModelSpec) -> VitPoseConfig:
        """Returns a copy that has a `ModelSpec`; its dataset is declared if it differs from that of the first head."""
        chosen = self if spec.dataset == self.heads[0] else self._with_head(spec.dataset)
        return replace(chosen, vitpose_spec=spec.to_dict(with_dataset=False))

    @property
    def skeleton(self) -> Skeleton:
        """The skeleton of the first head: as declared, or built from `id2label` and `edges`."""
        if self.datasets:
            return self.datasets[0].skeleton
        return Skeleton.from_labels(self.id2label, self.edges)

    def index_of(self, dataset: str | int) -> int:
        """Returns the index of a dataset's expert and head.

        Args:
            dataset: Name of the dataset, or its index, which is returned if it is valid.

        Raises:
            UnknownNameError: The network has no dataset of that name.
            InputError: The index is out of range.
            CheckpointError: The network has the expert but not the head of the dataset.
        """
        names = [spec.name for spec in self.heads]
        count = max(self.num_experts, len(names))
        released = self.num_experts == len(PLUS_DATASETS) and tuple(names) == PLUS_DATASETS[: len(names)]
        known = list(PLUS_DATASETS) if released else names
        if isinstance(dataset, str):
            if dataset not in known:
                raise UnknownNameError("dataset of this network", dataset, known)
            dataset = known.index(dataset)
        if not 0 <= dataset < count:
            raise InputError(f"expert {dataset!r} does not exist; the network has {count}, 0 to {count - 1}")
        if dataset >= len(names) and (released or self.datasets):
            wanted = repr(known[dataset]) if dataset < len(known) else f"expert {dataset}"
            raise CheckpointError(
                f"this checkpoint has no head for {wanted}, only for {', '.join(names)}: the ViTPose++ files "
                "on the hub contain only COCO's. All six heads are in the original .pth files, which "
                f"github.com/ViTAE-Transformer/ViTPose links to: vitpose.load('vitpose+_base.pth', "
                f"dataset={known[min(dataset, len(known) - 1)]!r})"
            )
        return dataset

    def with_dataset(self, dataset: str | Path | DatasetSpec) -> VitPoseConfig:
        """Returns the configuration of this one-head network with its dataset declared.

        Args:
            dataset: A dataset's name, TOML file or `DatasetSpec`.

        Raises:
            InputError: The dataset has other keypoints.
            UnknownNameError: There is no dataset of that name.
        """
        dataset_spec = DatasetSpec.load(dataset)
        self._refuse_other_keypoints(dataset_spec)
        return self._with_head(dataset_spec)

    def for_dataset(self, index: int) -> VitPoseConfig:
        """Returns the configuration of the dense one-head network for the dataset of an index."""
        chosen = self
        if isinstance(self.backbone_config, VitPoseBackboneConfig):
            dense = replace(self.backbone_config, num_experts=1, out_features=None)
            chosen = replace(self, backbone_config=dense, datasets=self.datasets[:1])
        return chosen._with_head(self.datasets[index]) if self.datasets else chosen

    def _with_head(self, dataset_spec: DatasetSpec) -> VitPoseConfig:
        labels = dict(enumerate(dataset_spec.skeleton.keypoints))
        edges = [list(edge) for edge in dataset_spec.skeleton.edges]
        return replace(
            self, datasets=[dataset_spec], id2label=labels, label2id={}, edges=edges, num_labels=len(labels)
        )

    @classmethod
    def for_skeleton(cls, skeleton: Skeleton, **options: Any) -> VitPoseConfig:
        """Returns a configuration for the keypoints of a skeleton; `options` are the other attributes."""
        return cls(
            id2label=dict(enumerate(skeleton.keypoints)),
            edges=[list(edge) for edge in skeleton.edges],
            **options,
        )

    @classmethod
    def preset(
        cls,
        size: str,
        *,
        decoder: str = "classic",
        num_experts: int = 1,
        skeleton: str | Skeleton = "coco",
        **backbone: Any,
    ) -> VitPoseConfig:
        """Returns the configuration of a published size.

        Args:
            size: "tiny" (not part of the paper), "small", "base", "large", "huge" or "giant", or its first letter.
            decoder: "classic" or "simple".
            num_experts: 1, or 6 as in ViTPose++.
            skeleton: The keypoints: a skeleton's name, TOML file or `Skeleton`.
            **backbone: Attributes of `VitPoseBackboneConfig` that differ from the preset.

        Raises:
            UnknownNameError: The size, the decoder or the skeleton is unknown.
        """
        if decoder not in ("classic", "simple"):
            raise UnknownNameError("decoder", decoder, ("classic", "simple"))
        table = {**backbone_of_size(size), "num_experts": num_experts, **backbone}
        return cls.for_skeleton(
            Skeleton.load(skeleton),
            backbone_config=VitPoseBackboneConfig(**table),
            use_simple_decoder=decoder == "simple",
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the dictionary of a `config.json` that `transformers` reads."""
        table = {f.name: getattr(self, f.name) for f in fields(self)}
        left_out = {key for key, usual in RETURNED.items() if table[key] == usual}
        # num_labels follows from id2label, and `transformers` would overwrite one with the other.
        left_out |= {"num_labels", "backbone_config"} | {
            key for key in ("datasets", "vitpose_spec") if not table[key]
        }
        if self.backbone is None:
            left_out |= {"backbone", "use_pretrained_backbone", "use_timm_backbone", "backbone_kwargs"}
        table["datasets"] = [spec.to_dict() for spec in self.datasets]
        table["id2label"] = {str(index): name for index, name in self.id2label.items()}
        kept = {key: value for key, value in table.items() if key not in left_out}
        backbone = self.backbone_config
        if backbone is not None:
            kept["backbone_config"] = backbone.to_dict() if hasattr(backbone, "to_dict") else dict(backbone)
        return {"architectures": ["VitPoseForPoseEstimation"], "model_type": self.model_type, **kept}

    @classmethod
    def _values_of(cls, table: Mapping[str, Any]) -> dict[str, Any]:
        kind = table.get("model_type", cls.model_type)
        if kind != cls.model_type:
            raise InputError(
                f"the configuration is of a {kind!r} model, not of {cls.model_type!r}; give a ViTPose checkpoint"
            )
        values = super()._values_of(table)
        named = values.get("datasets")
        for name in named if isinstance(named, list) else ():
            if (
                isinstance(name, str) and name not in DatasetSpec.available()
            ):  # or a file could name any path to read
                raise UnknownNameError("dataset", name, DatasetSpec.available())
        if values.get("id2label") is None:
            return {"num_labels": _UNWRITTEN_LABELS, **values}
        values.pop("num_labels", None)  # follows from id2label
        return values


def _shortened(labels: Mapping[Any, Any]) -> str:
    string = str(labels)
    return string if len(string) <= 200 else f"{string[:200]}…"
