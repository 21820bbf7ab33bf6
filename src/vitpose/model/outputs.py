"""What networks return: dictionaries whose entries are attributes and are counted too.

They are pytrees, so that `torch.export` and the wrappers of torch take them apart and put them together again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import GetAttrKey, register_pytree_node


class ModelOutput(dict[str, Any]):
    """Named results in a fixed order. Those that are absent are None as attributes and no entries.

    A dictionary, because code written for `transformers`, `torch.jit.trace(..., strict=False)` and the wrappers of
    torch look for one: iterating gives the names.

    Args:
        given: Results by name, as of a dictionary.
        **values: Results by name; None is the same as leaving one out.

    Raises:
        TypeError: There is no result of that name.
    """

    names: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls.names = tuple(cls.__annotations__)
        torch.jit.unused(cls)  # or the tracer would take it for a class to compile, not for a dictionary
        register_pytree_node(
            cls,
            lambda output: (list(output.values()), list(output)),
            lambda values, names: cls(zip(names, values, strict=True)),
            serialized_type_name=f"{cls.__module__}.{cls.__name__}",
            to_dumpable_context=list,
            from_dumpable_context=list,
            flatten_with_keys_fn=lambda output: (
                [(GetAttrKey(name), value) for name, value in output.items()],
                list(output),
            ),
        )

    def __init__(self, given: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **values: Any) -> None:
        super().__init__()
        values = {**dict(given), **values}
        if unknown := [name for name in values if name not in self.names]:
            raise TypeError(f"{type(self).__name__} has no {unknown[0]!r}; there are {', '.join(self.names)}")
        for name in self.names:
            if values.get(name) is not None:
                self[name] = values[name]

    def __getattr__(self, name: str) -> Any:
        if name in type(self).names:
            return self.get(name)
        raise AttributeError(f"{type(self).__name__} has no {name!r}; there are {', '.join(self.names)}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.names:
            raise AttributeError(f"{type(self).__name__} has no {name!r}; there are {', '.join(self.names)}")
        self.pop(name, None) if value is None else self.__setitem__(name, value)

    def __getitem__(self, key: str | int | slice) -> Any:
        """Returns the result of a name, or by its position among those that are there."""
        if isinstance(key, int | slice):
            return self.to_tuple()[key]
        if key not in self:
            raise KeyError(f"{key!r} is no entry of this output; there are {list(self)}")
        return super().__getitem__(key)

    def to_tuple(self) -> tuple[Any, ...]:
        """Returns the results without those that are absent, in the order of `names`."""
        return tuple(self.get(name) for name in self.names if name in self)


class BackboneOutput(ModelOutput):
    """What a backbone returns: ours tokens (b t d), another library's feature maps (b d h w) of any sizes.

    Attributes:
        feature_maps: The normalised tokens of each stage in `out_features`.
        hidden_states: The tokens after the embedding and after each block, if asked for.
        attentions: The attention of each block (b heads t t; rows sum to one), if asked for.
    """

    feature_maps: tuple[Float[Tensor, "..."], ...]
    hidden_states: tuple[Float[Tensor, "..."], ...] | None
    attentions: tuple[Float[Tensor, "..."], ...] | None


class VitPoseEstimatorOutput(ModelOutput):
    """What the network returns.

    Attributes:
        loss: The loss, if labels were given.
        heatmaps: One heatmap a keypoint, a quarter of the input's size, in float32 also where the network computes in
            half precision. Where the samples meet heads of different numbers of keypoints, as many as the largest of
            these has; what is beyond a sample's keypoints is 0.
        hidden_states: Tokens before and after each block (b t d), if asked for.
        attentions: Attention of each block (b heads t t), if asked for.
    """

    loss: Float[Tensor, ""] | None
    heatmaps: Float[Tensor, "b k hm wm"]
    hidden_states: tuple[Float[Tensor, "..."], ...] | None
    attentions: tuple[Float[Tensor, "..."], ...] | None
