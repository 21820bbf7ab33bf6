"""Outputs of networks: dictionaries whose entries can also be read as attributes and by index.

They are registered as pytrees, so that `torch.export` and wrappers such as DataParallel can flatten and rebuild them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import GetAttrKey, register_pytree_node


class ModelOutput(dict[str, Any]):
    """Named results in a fixed order. Absent results are None as attributes and have no entry.

    A dictionary, as code written for `transformers`, `torch.jit.trace(..., strict=False)` and the wrappers of torch
    expect: iterating yields the names.

    Args:
        given: Results by name, as for `dict`.
        **values: Results by name; None is the same as leaving the result out.

    Raises:
        TypeError: A name is not one of the class's results.
    """

    names: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls.names = tuple(cls.__annotations__)
        torch.jit.unused(
            cls
        )  # or the tracer would compile it as a class instead of treating it as a dictionary
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
        """Returns a result by name, or by index or slice among the results that are present.

        Raises:
            KeyError: The result is absent.
            IndexError: The index is out of range.
        """
        if isinstance(key, int | slice):
            return self.to_tuple()[key]
        if key not in self:
            raise KeyError(f"this output has no {key!r}; it has {list(self)}")
        return super().__getitem__(key)

    def to_tuple(self) -> tuple[Any, ...]:
        """Returns the present results in the order of `names`."""
        return tuple(self.get(name) for name in self.names if name in self)


class BackboneOutput(ModelOutput):
    """The output of a backbone.

    `VitPoseBackbone` returns tokens (b t d), backbones of other libraries feature maps (b d h w) of any sizes.

    Attributes:
        feature_maps: The normalised features of each stage in `out_features`.
        hidden_states: The tokens after the embedding and after each block, if requested.
        attentions: The attention weights of each block (b heads t t; rows sum to one), if requested.
    """

    feature_maps: tuple[Float[Tensor, "..."], ...]
    hidden_states: tuple[Float[Tensor, "..."], ...] | None
    attentions: tuple[Float[Tensor, "..."], ...] | None


class VitPoseEstimatorOutput(ModelOutput):
    """The output of `VitPoseForPoseEstimation`.

    Attributes:
        loss: The loss, if labels are given.
        heatmaps: One heatmap per keypoint, a quarter of the input's size, at least float32 even if the network computes
            in half precision. If the samples of a batch belong to heads with different numbers of keypoints, k is the
            largest of these, and the heatmaps beyond a sample's keypoints are 0.
        hidden_states: Tokens before and after each block (b t d), if requested.
        attentions: Attention weights of each block (b heads t t), if requested.
    """

    loss: Float[Tensor, ""] | None
    heatmaps: Float[Tensor, "b k hm wm"]
    hidden_states: tuple[Float[Tensor, "..."], ...] | None
    attentions: tuple[Float[Tensor, "..."], ...] | None
