"""The configurations of the network, in the form that `transformers` reads and writes.

Owns names, defaults, presets and checks of `config.json`. Knows no weights and imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..conventions import PLUS_DATASETS, Conventions
from ..errors import CheckpointError, InputError, UnknownNameError
from ..files import write_json
from ..hub import read_json
from ..skeleton import Skeleton, plain_name

CONFIG_FILE = "config.json"

PATCH_PADDING = 2
"""The patch convolution pads by two pixels a side, in the original and so in every checkpoint."""

# Width, layers, heads, expert width, drop path: facts of the paper (table 1) and of the released
# configurations. G is the paper's plain ViT of about one billion parameters; it was never released.
_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 192, "num_attention_heads": 3, "part_features": 48, "drop_path_rate": 0.0},
    "small": {"hidden_size": 384, "num_attention_heads": 12, "part_features": 96, "drop_path_rate": 0.1},
    "base": {"hidden_size": 768, "num_attention_heads": 12, "part_features": 192, "drop_path_rate": 0.3},
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "part_features": 256,
        "drop_path_rate": 0.5,
    },
    "huge": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "part_features": 320,
        "drop_path_rate": 0.55,
    },
    "giant": {
        "hidden_size": 1408,
        "num_hidden_layers": 40,
        "num_attention_heads": 16,
        "part_features": 352,
        "drop_path_rate": 0.55,
        "image_size": (576, 432),
    },
}

# What a forward pass returns is written only where it differs from these.
_RETURNED = {"output_attentions": False, "output_hidden_states": False, "return_dict": True}

# `transformers` leaves the names of its own default, two, out of the file.
_UNWRITTEN_LABELS = 2


def _pair(name: str, value: Any) -> tuple[int, int]:
    try:
        height, width = (value, value) if isinstance(value, int) else value
        return int(height), int(width)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is {value!r}; give one number, or height and width") from error


@dataclass(kw_only=True)
class VitPoseBackboneConfig:
    """The configuration of the plain vision transformer.

    Attributes:
        image_size: Height and width of the input in pixels, in this order, as the files have it.
        patch_size: Height and width of a patch in pixels.
        num_channels: Colour channels of the input.
        hidden_size: Width d of the tokens.
        num_hidden_layers: Number of blocks.
        num_attention_heads: Heads of each attention; divides `hidden_size`.
        mlp_ratio: Inner width of the feed-forward layers over `hidden_size`.
        num_experts: Experts of each feed-forward layer (ViTPose++); 1 is a dense network.
        part_features: The last rows of a feed-forward output that belong to the expert.
        hidden_act: Activation: "gelu", "gelu_new", "relu" or "silu".
        hidden_dropout_prob: Dropout after embeddings and projections, in training.
        attention_probs_dropout_prob: Dropout of the attention, in training.
        initializer_range: Standard deviation of fresh weights.
        layer_norm_eps: 1e-12 as `transformers` has it; the original trained with 1e-6.
        qkv_bias: Whether query, key and value have a bias.
        out_features: Names of the stages whose feature maps are returned ("stem", "stage1", …).
        out_indices: The same as indices, 0 being the stem; the last stage unless given.
        drop_path_rate: Stochastic depth of the last block, growing linearly from 0, in training.
        output_attentions: Return each block's attention unless the call says otherwise.
        output_hidden_states: Return the tokens before and after each block unless the call says otherwise.
        return_dict: False returns a tuple unless the call says otherwise.

    Raises:
        InputError: A value is impossible; the message names it.
    """

    image_size: Any = (256, 192)
    patch_size: Any = (16, 16)
    num_channels: int = 3
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    mlp_ratio: int | float = 4
    num_experts: int = 1
    part_features: int = 256
    hidden_act: str = "gelu"
    hidden_dropout_prob: int | float = 0.0
    attention_probs_dropout_prob: int | float = 0.0
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    qkv_bias: bool = True
    out_features: list[str] | None = None
    out_indices: list[int] | None = None
    drop_path_rate: int | float = 0.0
    output_attentions: bool = False
    output_hidden_states: bool = False
    return_dict: bool = True

    model_type = "vitpose_backbone"

    def __post_init__(self) -> None:
        self.image_size = _pair("image_size", self.image_size)
        self.patch_size = _pair("patch_size", self.patch_size)
        self._check_numbers()
        if self.mlp_ratio == int(self.mlp_ratio):
            self.mlp_ratio = int(self.mlp_ratio)  # `transformers` reads no other
        self._align_outputs()

    def _check_numbers(self) -> None:
        for name in ("num_channels", "hidden_size", "num_hidden_layers", "num_attention_heads"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}; it must be a whole number from 1")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be from 0 to below 1")
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads "
                f"{self.num_attention_heads}; change one of them"
            )
        if min(self.patch_size) <= 2 * PATCH_PADDING:
            raise InputError(
                f"patch_size is {self.patch_size}; its sides must be longer than {2 * PATCH_PADDING}, "
                f"as the patch convolution pads by {PATCH_PADDING}"
            )
        for what, side, patch in zip(("height", "width"), self.image_size, self.patch_size, strict=True):
            if side <= 0 or side % patch:
                raise InputError(
                    f"image_size has the {what} {side}, not a positive multiple of the patch's {patch}"
                )
        if self.num_experts < 1:
            raise InputError(f"num_experts is {self.num_experts}; 1 is a dense network, ViTPose++ has 6")
        if self.num_experts > 1 and not 0 < self.part_features < self.hidden_size:
            raise InputError(
                f"part_features is {self.part_features}; with {self.num_experts} experts it must lie "
                f"between 0 and hidden_size {self.hidden_size}"
            )

    def _align_outputs(self) -> None:
        """Makes `out_indices` and `out_features` say the same."""
        names = self.stage_names
        if self.out_indices is None:
            for name in self.out_features or ():
                if name not in names:
                    raise UnknownNameError("stage in out_features", name, names)
            self.out_indices = [names.index(name) for name in self.out_features or names[-1:]]
        for index in self.out_indices:
            if not -len(names) <= index < len(names):
                raise InputError(
                    f"out_indices has {index}, but the stages go from 0 (the stem) to "
                    f"{self.num_hidden_layers}"
                )
        self.out_indices = [index % len(names) for index in self.out_indices]
        # The decoder takes the last one, and `transformers` refuses any other order.
        if not self.out_indices or self.out_indices != sorted(set(self.out_indices)):
            raise InputError(
                f"out_indices {self.out_indices} must name at least one stage, in ascending order, each once"
            )
        named = [names[index] for index in self.out_indices]
        if self.out_features is not None and list(self.out_features) != named:
            raise InputError(
                f"out_features {self.out_features} and out_indices {self.out_indices} disagree; give one"
            )
        self.out_features = named

    @property
    def stage_names(self) -> list[str]:
        """Names of all stages: the stem, then one a block."""
        return ["stem", *(f"stage{index}" for index in range(1, self.num_hidden_layers + 1))]

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches of an image of `image_size`."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    def to_dict(self) -> dict[str, Any]:
        """Returns the plain dictionary that `transformers` stores under `backbone_config`."""
        table = {
            "model_type": self.model_type,
            **asdict(self),
            "image_size": list(self.image_size),
            "patch_size": list(self.patch_size),
            "stage_names": self.stage_names,
        }
        return _without_defaults(table)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> VitPoseBackboneConfig:
        """Reads the dictionary of a file; keys that are not the network's are left aside."""
        return cls(**_own_keys(cls, table))


@dataclass(kw_only=True)
class VitPoseConfig:
    """The configuration of the whole network: backbone, decoder and keypoints.

    Used bare it is ViTPose-B with the simple decoder and COCO's 17 keypoints.

    Attributes:
        backbone_config: A `VitPoseBackboneConfig`, a dictionary of one, or the dictionary of another
            backbone of `transformers` with its `model_type`.
        backbone: Name of a backbone to build through timm or `transformers` in place of ours.
        use_pretrained_backbone: Load that backbone's weights too.
        use_timm_backbone: Build it through timm.
        backbone_kwargs: Arguments handed to whoever builds it (`out_indices`, `img_size`, …).
        initializer_range: Carried for `transformers`; fresh decoders are drawn as the original's are, N(0, 0.001).
        scale_factor: The simple decoder's upsampling.
        use_simple_decoder: Simple (bilinear, one convolution) or classic (two deconvolutions) decoder.
        id2label: Keypoint names by index.
        edges: Limbs as pairs of indices.
        num_labels: Number of keypoints, where no names are given.
        datasets: The conventions of each head, in the order of the experts; also as names or tables. The first
            one's keypoints are those of `id2label`. Empty where nothing is declared: one head, and
            `transformers` knows no other.
        output_attentions: Return each block's attention unless the call says otherwise.
        output_hidden_states: Return the tokens before and after each block unless the call says otherwise.
        return_dict: False returns a tuple unless the call says otherwise.

    Raises:
        InputError: The values contradict each other.
    """

    backbone_config: Any = None
    backbone: str | None = None
    use_pretrained_backbone: bool = False
    use_timm_backbone: bool = False
    backbone_kwargs: dict[str, Any] | None = None
    initializer_range: float = 0.02
    scale_factor: int = 4
    use_simple_decoder: bool = True
    id2label: dict[int, str] = field(default_factory=dict)
    label2id: dict[str, int] = field(default_factory=dict)
    edges: list[list[int]] | None = None
    num_labels: int | None = None
    datasets: list[Any] = field(default_factory=list)
    output_attentions: bool = False
    output_hidden_states: bool = False
    return_dict: bool = True

    model_type = "vitpose"

    def __post_init__(self) -> None:
        if self.backbone is not None and self.backbone_config is not None:
            raise InputError(f"both backbone {self.backbone!r} and backbone_config are given; give one")
        if self.backbone is None and (self.use_timm_backbone or self.use_pretrained_backbone):
            raise InputError(
                "use_timm_backbone and use_pretrained_backbone need backbone='...', the name of what to build"
            )
        self._read_backbone()
        self.datasets = Conventions.load_all(self.datasets, "datasets of the configuration")
        if self.datasets and not self.id2label:
            self.id2label = dict(enumerate(self.datasets[0].skeleton.keypoints))
            self.edges = self.edges or [list(limb) for limb in self.datasets[0].skeleton.limbs]
        self._name_keypoints()
        if self.datasets:
            self._check_datasets()

    def _read_backbone(self) -> None:
        """Turns what describes our own backbone into its configuration, and any other into a dictionary."""
        given = self.backbone_config
        if given is None:
            self.backbone_config = VitPoseBackboneConfig() if self.backbone is None else None
            return
        if isinstance(given, VitPoseBackboneConfig):
            return
        table = given.to_dict() if hasattr(given, "to_dict") else given
        if not isinstance(table, Mapping):
            raise InputError(
                f"backbone_config is a {type(given).__name__}; give a VitPoseBackboneConfig or a dictionary"
            )
        own = table.get("model_type", VitPoseBackboneConfig.model_type) == VitPoseBackboneConfig.model_type
        self.backbone_config = VitPoseBackboneConfig.from_dict(table) if own else dict(table)

    def _name_keypoints(self) -> None:
        if not self.id2label and self.num_labels is None:
            coco = Skeleton.load("coco")
            self.id2label = dict(enumerate(coco.keypoints))
            self.edges = self.edges or [list(limb) for limb in coco.limbs]
        elif not self.id2label:
            self.id2label = {index: f"keypoint_{index}" for index in range(self.num_labels or 0)}
        if sorted(self.id2label) != list(range(len(self.id2label))) or not self.id2label:
            raise InputError(
                f"id2label must number the keypoints from 0 without gaps, not {sorted(self.id2label)}"
            )
        if self.num_labels not in (None, len(self.id2label)):
            raise InputError(
                f"num_labels is {self.num_labels}, but id2label names {len(self.id2label)} keypoints"
            )
        self.num_labels = len(self.id2label)
        numbers = {name: index for index, name in self.id2label.items()}
        if self.label2id and self.label2id != numbers:
            raise InputError(f"label2id {self.label2id} and id2label {self.id2label} disagree; give one")
        self.label2id = numbers

    def _check_datasets(self) -> None:
        names = [own.name for own in self.datasets]
        if len(set(names)) < len(names):
            raise InputError(f"datasets {names} have a name twice; each head needs a name of its own")
        if 1 < self.num_experts < len(names):
            raise InputError(
                f"datasets {names} are {len(names)} for {self.num_experts} experts; each needs an expert"
            )
        self._refuse_other_keypoints(self.datasets[0])

    def _refuse_other_keypoints(self, own: Conventions) -> None:
        labels = [self.id2label[index] for index in range(len(self.id2label))]
        nameless = all(re.fullmatch(r"(keypoint|LABEL)_\d+", label) for label in labels)
        same = [*map(plain_name, labels)] == [*map(plain_name, own.skeleton.keypoints)]
        if len(labels) != len(own.skeleton) or not (nameless or same):
            raise InputError(
                f"the network's {len(labels)} keypoints ({', '.join(labels[:4])}, …) are not the "
                f"{len(own.skeleton)} of the data set {own.name!r} ({', '.join(own.skeleton.keypoints[:4])}, …)"
            )

    @property
    def num_experts(self) -> int:
        """Experts of each feed-forward layer; 1 where the backbone has none."""
        return getattr(self.backbone_config, "num_experts", 1)

    @property
    def heads(self) -> list[Conventions]:
        """The conventions of each head; what is not declared is taken for COCO's, and so UDP."""
        return self.datasets or [Conventions(name=self.skeleton.name, skeleton=self.skeleton)]

    @property
    def skeleton(self) -> Skeleton:
        """The skeleton of the first head: as declared, or what `id2label` and `edges` describe."""
        if self.datasets:
            return self.datasets[0].skeleton
        return Skeleton.from_labels(self.id2label, self.edges)

    def index_of(self, dataset: str | int) -> int:
        """Returns the number of a data set's expert and head.

        Args:
            dataset: Its name; or its number, which is returned if it can be used.

        Raises:
            UnknownNameError: This network knows no data set of that name.
            InputError: There is no expert or head of that number.
            CheckpointError: The network has the expert, but not the head.
        """
        names = [own.name for own in self.heads]
        count = max(self.num_experts, len(names))
        released = self.num_experts == len(PLUS_DATASETS) and tuple(names) == PLUS_DATASETS[: len(names)]
        known = list(PLUS_DATASETS) if released else names
        if isinstance(dataset, str):
            if dataset not in known:
                raise UnknownNameError("data set of this network", dataset, known)
            dataset = known.index(dataset)
        if not 0 <= dataset < count:
            raise InputError(f"expert {dataset!r} does not exist; the network has {count}, 0 to {count - 1}")
        if dataset >= len(names) and (released or self.datasets):
            wanted = repr(known[dataset]) if dataset < len(known) else f"expert {dataset}"
            raise CheckpointError(
                f"this checkpoint has no head for {wanted}, only for {', '.join(names)}: the hub's files of "
                "ViTPose++ have COCO's alone. All six heads are in the original .pth files (docs/plus-plus.md says "
                f"where they are): vitpose.load('vitpose+_base.pth', dataset={known[min(dataset, len(known) - 1)]!r})"
            )
        return dataset

    def declare(self, dataset: str | Path | Conventions) -> VitPoseConfig:
        """Returns the configuration of the same network, with one head, as that of a data set.

        Raises:
            InputError: The data set has other keypoints.
        """
        own = Conventions.load(dataset)
        self._refuse_other_keypoints(own)
        return self._with_head(own)

    def for_dataset(self, index: int) -> VitPoseConfig:
        """Returns the configuration of the dense network that is left of this one for one data set."""
        chosen = self
        if isinstance(self.backbone_config, VitPoseBackboneConfig):
            dense = replace(self.backbone_config, num_experts=1, out_features=None)
            chosen = replace(self, backbone_config=dense, datasets=self.datasets[:1])
        return chosen._with_head(self.datasets[index]) if self.datasets else chosen

    def _with_head(self, own: Conventions) -> VitPoseConfig:
        labels = dict(enumerate(own.skeleton.keypoints))
        limbs = [list(limb) for limb in own.skeleton.limbs]
        return replace(
            self, datasets=[own], id2label=labels, label2id={}, edges=limbs, num_labels=len(labels)
        )

    @classmethod
    def for_skeleton(cls, skeleton: Skeleton, **options: Any) -> VitPoseConfig:
        """Returns a configuration for the keypoints of a skeleton; `options` are the other attributes."""
        return cls(
            id2label=dict(enumerate(skeleton.keypoints)),
            edges=[list(limb) for limb in skeleton.limbs],
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
            size: "tiny" (ours), "small", "base", "large", "huge" or "giant", or its first letter.
            decoder: "classic" or "simple".
            num_experts: 1, or 6 as in ViTPose++.
            skeleton: Which keypoints.
            **backbone: Attributes of `VitPoseBackboneConfig` that differ from the preset.

        Raises:
            UnknownNameError: There is no such size or decoder.
        """
        names = {name: name for name in _SIZES} | {name[0]: name for name in _SIZES}
        if size.lower() not in names:
            raise UnknownNameError("size", size, _SIZES)
        if decoder not in ("classic", "simple"):
            raise UnknownNameError("decoder", decoder, ("classic", "simple"))
        # The original's epsilon; `transformers`' default is another.
        table = {
            "layer_norm_eps": 1e-6,
            **_SIZES[names[size.lower()]],
            "num_experts": num_experts,
            **backbone,
        }
        return cls.for_skeleton(
            Skeleton.load(skeleton),
            backbone_config=VitPoseBackboneConfig(**table),
            use_simple_decoder=decoder == "simple",
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the plain dictionary of a `config.json` that `transformers` reads."""
        table = {f.name: getattr(self, f.name) for f in fields(self)}
        backbone = table.pop("backbone_config")
        del table[
            "num_labels"
        ]  # follows from id2label, and `transformers` would overwrite one with the other
        if not self.datasets:
            del table["datasets"]
        else:
            table["datasets"] = [own.to_dict() for own in self.datasets]
        if self.backbone is None:
            for name in ("backbone", "use_pretrained_backbone", "use_timm_backbone", "backbone_kwargs"):
                del table[name]
        if backbone is not None:
            table["backbone_config"] = backbone.to_dict() if hasattr(backbone, "to_dict") else dict(backbone)
        table["id2label"] = {str(index): name for index, name in self.id2label.items()}
        table = {"architectures": ["VitPoseForPoseEstimation"], "model_type": self.model_type, **table}
        return _without_defaults(table)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> VitPoseConfig:
        """Reads the dictionary of a file; keys that are not the network's are left aside.

        Raises:
            CheckpointError: It is the configuration of something else, or damaged.
        """
        kind = table.get("model_type", cls.model_type)
        if kind != cls.model_type:
            raise CheckpointError(
                f"the configuration is of a {kind!r} model, not of {cls.model_type!r}; "
                "give a ViTPose checkpoint"
            )
        own = _own_keys(cls, table)
        if "id2label" not in own:
            return cls(**{"num_labels": _UNWRITTEN_LABELS, **own})
        own.pop("num_labels", None)  # follows from id2label
        try:  # JSON has no numbers for keys
            own["id2label"] = {int(index): name for index, name in own["id2label"].items()}
        except (AttributeError, ValueError) as error:
            raise CheckpointError(
                f"id2label of the configuration does not map numbers to names: {error}"
            ) from error
        return cls(**own)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `config.json` into a folder, made if need be.

        Raises:
            OutputError: It cannot be written.
        """
        write_json(Path(folder) / CONFIG_FILE, self.to_dict())

    @classmethod
    def from_pretrained(cls, name: str | Path, **hub: Any) -> VitPoseConfig:
        """Reads the `config.json` of a folder or hub repository; `hub` is what `find_file` takes."""
        return cls.from_dict(read_json(name, CONFIG_FILE, **hub))


def _own_keys(cls: type, table: Mapping[str, Any]) -> dict[str, Any]:
    # Files carry keys of every version of `transformers` (dtype, torchscript, …); only ours matter here.
    return {f.name: table[f.name] for f in fields(cls) if f.name in table}


def _without_defaults(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key not in _RETURNED or value != _RETURNED[key]}
