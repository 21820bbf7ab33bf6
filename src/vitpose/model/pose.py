"""The whole network: backbone, decoders and loss. Files are read and written by `checkpoint`."""

from __future__ import annotations

import operator
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import CheckpointError, InputError, UnknownNameError
from ..files.hub import ModelFiles, upload_folder
from .backbone import VitPoseBackbone
from .checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from .config import VitPoseBackboneConfig, VitPoseConfig
from .decoder import ClassicDecoder, SimpleDecoder
from .experts import Routing, route
from .outputs import VitPoseEstimatorOutput
from .preprocessor_config import PROCESSOR_FILE
from .pretrained import PretrainedModule, refuse_quantised
from .quantisation import is_quantised

if TYPE_CHECKING:
    from .foreign import ForeignBackbone

LOSS_AVERAGES = ("batch", "dataset")
"""Divisors of each head's loss; see `VitPoseForPoseEstimation.forward`."""


def flip_back(heatmaps: Float[Tensor, "b k hm wm"], flip_pairs: Any) -> Float[Tensor, "b k hm wm"]:
    """Turns heatmaps of mirrored crops into those of the original crops: paired channels swapped, columns reversed.

    Args:
        heatmaps: Heatmaps of mirrored crops.
        flip_pairs: Pairs of keypoint indices, as a list or tensor (p, 2).

    Raises:
        InputError: `flip_pairs` are not pairs of keypoint indices, or a keypoint is in two pairs.
    """
    return heatmaps[:, _mirrored_order(flip_pairs, heatmaps.shape[1])].flip(-1)


def _mirrored_order(flip_pairs: Any, count: int) -> list[int]:
    indices = list(range(count))
    order = dict(zip(indices, indices, strict=True))
    message = (
        f"flip_pairs must be pairs of keypoint indices, 0 to {count - 1}, each in one pair at most, "
        f"not {flip_pairs!r}"
    )
    try:
        for a, b in torch.as_tensor(flip_pairs).tolist():
            order[operator.index(a)], order[operator.index(b)] = b, a
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(message) from error
    if sorted(order) != indices or sorted(order.values()) != indices:
        raise InputError(message)
    return list(order.values())


def heatmap_loss(
    heatmaps: Float[Tensor, "b k hm wm"],
    labels: Float[Tensor, "b k hm wm"],
    weights: Float[Tensor, "b k"] | None = None,
) -> Float[Tensor, ""]:
    """Returns the paper's loss: the mean squared error of the weighted heatmaps, in float32.

    Args:
        heatmaps: Predicted heatmaps.
        labels: Target heatmaps.
        weights: Weight of each keypoint, 0 for one without a label. It multiplies prediction and target, so the
            error is scaled by its square, as in the original's `JointsMSELoss`.

    Raises:
        InputError: The shapes differ.
    """
    if labels.shape != heatmaps.shape:
        raise InputError(
            f"labels have the shape {tuple(labels.shape)}, the heatmaps {tuple(heatmaps.shape)}; "
            "make targets of that size"
        )
    if weights is not None and weights.shape != heatmaps.shape[:2]:
        raise InputError(
            f"label_weights have the shape {tuple(weights.shape)}; give the shape {tuple(heatmaps.shape[:2])}, "
            "one weight per keypoint"
        )
    errors = (heatmaps.float() - labels.float()).square()
    return errors.mean() if weights is None else (errors * weights.float().square()[:, :, None, None]).mean()


class VitPoseForPoseEstimation(PretrainedModule):
    """ViTPose and ViTPose++: crops in, one heatmap per keypoint out.

    Args:
        config: The configuration; default: ViTPose-B with the 17 keypoints of COCO.

    Raises:
        UnknownNameError: The activation in `hidden_act` is unknown.
        MissingDependencyError: The library of another backbone is not installed.
        CheckpointError: Another library's backbone cannot be built.
    """

    config_class = VitPoseConfig

    def __init__(self, config: VitPoseConfig | None = None) -> None:
        super().__init__()
        self.config = config or VitPoseConfig()
        self.backbone: VitPoseBackbone | ForeignBackbone
        if isinstance(self.config.backbone_config, VitPoseBackboneConfig):
            self.backbone = VitPoseBackbone(self.config.backbone_config)
        else:
            from .foreign import ForeignBackbone

            self.backbone = ForeignBackbone(self.config)
            self.computes_tables = True
        counts = [self.config.num_labels or 0, *(len(spec.skeleton) for spec in self.config.datasets[1:])]
        self.head, *others = map(self._make_head, counts)
        self.associate_heads = nn.ModuleList(others)

    def _make_head(self, count: int) -> nn.Module:
        width = self.backbone.config.hidden_size
        head = (
            SimpleDecoder(width, count, self.config.scale_factor)
            if self.config.use_simple_decoder
            else ClassicDecoder(width, count)
        )
        # As in the original, N(0, 0.001) for both kinds of convolution. Meta tensors are skipped: to initialise them,
        # torch imports its compiler, which takes longer than the rest of loading.
        for module in head.modules():
            if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
                continue
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=0.001)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        return head

    @property
    def heads(self) -> list[nn.Module]:
        """The heads, in the order of `config.heads`."""
        return [self.head, *self.associate_heads]

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Any = None) -> None:
        """Enables gradient checkpointing, which saves memory by recomputing blocks in the backward pass.

        Args:
            gradient_checkpointing_kwargs: Arguments of `torch.utils.checkpoint.checkpoint`, as a dictionary.

        Raises:
            InputError: They are not a dictionary, or the backbone is another library's.
            UnknownNameError: An argument is unknown.
        """
        self.backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs)

    def gradient_checkpointing_disable(self) -> None:
        """Disables gradient checkpointing."""
        self.backbone.gradient_checkpointing_disable()

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether gradient checkpointing is enabled."""
        return self.backbone.is_gradient_checkpointing

    def forward(
        self,
        pixel_values: Float[Tensor, "b c hc wc"],
        dataset_index: int | Sequence[int] | Int[Tensor, "..."] | None = None,
        flip_pairs: Any = None,
        labels: Float[Tensor, "b k hm wm"] | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        label_weights: Float[Tensor, "b k"] | None = None,
        loss_average: str = "batch",
    ) -> VitPoseEstimatorOutput | tuple[Any, ...]:
        """Returns the heatmaps of a batch of crops.

        Args:
            pixel_values: Normalised crops; any size that the patch divides.
            dataset_index: Index of the expert and head, one for all samples or one per sample; required with several of
                either.
            flip_pairs: If given, the crops are treated as mirrored, and the heatmaps are returned as those of the
                crops before mirroring. The pixels are not changed: mirror them first.
            labels: Target heatmaps; the loss is returned too: the sum of the heads' losses, each over its samples and
                keypoints. Target heatmaps beyond a sample's keypoints are ignored.
            output_attentions: Return each block's attention weights too; default: as in the configuration.
            output_hidden_states: Return the tokens before and after each block too; default: as in the configuration.
            return_dict: False returns a tuple; default: as in the configuration.
            label_weights: Weight of each keypoint in the loss.
            loss_average: Divisor of a head's sum over its samples: "batch", the size of the whole batch as in the
                released code of ViTPose++, so that a dataset is weighted by its share of the batch; or "dataset", the
                number of its samples, so that all datasets of a batch have the same weight.

        Raises:
            InputError: An argument does not fit the network or another argument.
            UnknownNameError: `loss_average` is unknown.
        """
        routing = route(dataset_index, len(self.heads), pixel_values.shape[0], "head")
        expert = dataset_index if self.config.num_experts > 1 or routing is None else None
        features = self.backbone(
            pixel_values,
            expert,
            # None selects the value in the backbone's configuration.
            self.config.output_attentions or None if output_attentions is None else output_attentions,
            self.config.output_hidden_states or None
            if output_hidden_states is None
            else output_hidden_states,
            return_dict=True,
        )
        grid = self._on_grid(features.feature_maps[-1], pixel_values)
        heatmaps = self._decode(grid, routing)
        if flip_pairs is not None:
            if routing is not None and routing.rows is not None:
                raise InputError(
                    "flip_pairs belong to one skeleton, but the samples of this batch have several heads; "
                    "run one batch per dataset, or call flip_back on the heatmaps of each"
                )
            heatmaps = flip_back(heatmaps, flip_pairs)
        loss = None if labels is None else self._loss(heatmaps, labels, label_weights, routing, loss_average)
        output = VitPoseEstimatorOutput(
            loss=loss,
            heatmaps=heatmaps,
            hidden_states=features.hidden_states,
            attentions=features.attentions,
        )
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return output if as_dict else output.to_tuple()

    def _decode(self, grid: Float[Tensor, "b d h w"], routing: Routing | None) -> Float[Tensor, "b k hm wm"]:
        """Returns the heatmaps of each sample's head; every head runs on its samples only."""
        if routing is None:
            return self.head(grid)
        if routing.rows is None:
            return self.heads[routing.experts[0]](grid)
        parts = [
            self.heads[index](grid[rows]) for index, rows in zip(routing.experts, routing.rows, strict=True)
        ]
        most = max(part.shape[1] for part in parts)
        padded = [F.pad(part, (0, 0, 0, 0, 0, most - part.shape[1])) for part in parts]
        return torch.cat(padded)[torch.cat(routing.rows).argsort()]

    def _loss(
        self, heatmaps: Tensor, labels: Tensor, weights: Tensor | None, routing: Routing | None, average: str
    ) -> Float[Tensor, ""]:
        if average not in LOSS_AVERAGES:
            raise UnknownNameError("loss_average", average, LOSS_AVERAGES)
        if routing is None:
            return heatmap_loss(heatmaps, labels, weights)
        all_rows = torch.arange(len(heatmaps), device=heatmaps.device)
        losses = []
        for index, rows in zip(routing.experts, routing.rows or (all_rows,), strict=True):
            k = len(self.config.heads[index].skeleton)
            parts = None if weights is None else weights[rows, :k]
            share = len(rows) / len(heatmaps) if average == "batch" else 1.0
            losses.append(heatmap_loss(heatmaps[rows, :k], labels[rows, :k], parts) * share)
        return torch.stack(losses).sum()

    def _on_grid(self, tokens: Float[Tensor, "..."], pixels: Tensor) -> Float[Tensor, "b d h w"]:
        if tokens.ndim == 4:  # feature maps of another library's backbone
            return tokens
        rows = pixels.shape[2] // self.backbone.config.patch_size[0]
        return tokens.transpose(1, 2).unflatten(2, (rows, -1)).contiguous()

    def fold_expert(self, dataset: int | str) -> VitPoseForPoseEstimation:
        """Returns the dense one-head network with the output of this one for one dataset.

        Args:
            dataset: Name of the dataset, or its `dataset_index`.

        Raises:
            InputError: The network is dense already, the index is out of range, or the weights are quantised.
            UnknownNameError: The network has no dataset of that name.
            CheckpointError: The network has the dataset's expert but not its head.
        """
        if is_quantised(self):
            raise InputError(
                "the weights are quantised, and an expert can only be folded before that; fold first "
                "(vitpose.load does both, given dataset and quantization_config)"
            )
        if self.config.num_experts == 1 and not self.associate_heads:
            raise InputError("this network has no experts to fold; it is dense already")
        dense = Checkpoint(self.config, self.state_dict(), "this network").for_dataset(dataset)
        with torch.device("meta"):
            folded = VitPoseForPoseEstimation(dense.config)
        copies = {name: tensor.clone() for name, tensor in dense.state.items()}
        folded.load_state_dict(copies, assign=True)
        return folded.train(self.training)

    def set_attn_implementation(self, name: str) -> None:
        """Sets the implementation of attention.

        Args:
            name: "sdpa" (fused kernels) or "eager" (plain matrix products).

        Raises:
            UnknownNameError: The implementation is unknown.
            InputError: Another library's backbone does not support it.
        """
        self.backbone.set_attn_implementation(name)

    def get_input_embeddings(self) -> nn.Module:
        """Returns the patch embedding.

        Raises:
            InputError: The backbone is another library's.
        """
        return self.backbone.get_input_embeddings()

    @classmethod
    def _read(cls, files: ModelFiles, config: Any, **options: Any) -> Checkpoint:
        return read_checkpoint(files, config, **options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `config.json` and `model.safetensors` as `transformers` reads them.

        Heads after the first are written to `heads.safetensors`, which only vitpose reads.

        Args:
            folder: The directory; created if missing. Existing files are replaced, each atomically.

        Raises:
            OutputError: A file cannot be written.
            InputError: The weights are quantised.
        """
        refuse_quantised(self)
        write_checkpoint(self.config, self.state_dict(), folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        processor: Any = None,
        token: str | bool | None = None,
        **upload: Any,
    ) -> str:
        """Uploads the files of `save_pretrained` and the image processor to a hub repository, created if missing.

        Args:
            repo_id: The repository, "owner/name"; "name" alone is a repository of the token's owner.
            processor: The image processor; default: that of the checkpoint the network was loaded from.
            token: Access token for the hub; default: the stored one.
            **upload: private, revision and commit_message, as in `vitpose.files.hub.upload_folder`.

        Returns:
            The URL of the commit.

        Raises:
            InputError: There is no image processor, which both `vitpose.load` and `transformers` require in a
                repository; or the weights are quantised.
            CheckpointError: The hub cannot be reached or denies access.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            if processor is not None:
                processor.save_pretrained(folder)
            elif self.config.spec is None:
                (Path(folder) / PROCESSOR_FILE).write_bytes(self._processor_file(token).read_bytes())
            return upload_folder(folder, repo_id, token=token, **upload)

    def _processor_file(self, token: str | bool | None) -> Path:
        missing = (
            "no image processor is known for this network, and a repository requires one; give it: "
            "push_to_hub(..., processor=VitPoseImageProcessor(size={'height': ..., 'width': ...}))"
        )
        if self.source is None:
            raise InputError(missing)
        try:
            return replace(self.source, hub={**self.source.hub, "token": token}).find(PROCESSOR_FILE)
        except CheckpointError as error:
            raise InputError(missing) from error
