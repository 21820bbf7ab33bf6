"""The whole network: backbone, decoder, loss.

Knows tensors only: no image, no box. What stands in files is `checkpoint`'s business.
"""

from __future__ import annotations

import operator
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import CheckpointError, InputError, UnknownNameError
from ..files.hub import find_file, upload_folder
from .backbone import VitPoseBackbone
from .checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from .config import VitPoseBackboneConfig, VitPoseConfig
from .decoder import ClassicDecoder, SimpleDecoder
from .experts import Routing, route
from .outputs import VitPoseEstimatorOutput
from .pretrained import PretrainedModule, refuse_quantised
from .quantisation import is_quantised

if TYPE_CHECKING:
    from .foreign import ForeignBackbone

_PROCESSOR_FILE = "preprocessor_config.json"


LOSS_AVERAGES = ("batch", "dataset")
"""What the loss of each of several heads is divided by; see `VitPoseForPoseEstimation.forward`."""


def flip_back(maps: Float[Tensor, "b k hm wm"], flip_pairs: Any) -> Float[Tensor, "b k hm wm"]:
    """Returns the maps of a mirrored crop as maps of the crop itself: paired channels swap, columns turn.

    Args:
        maps: Heatmaps of mirrored crops.
        flip_pairs: Pairs of keypoint indices, as a list or tensor (p, 2).

    Raises:
        InputError: `flip_pairs` are no pairs of keypoints.
    """
    return maps[:, _mirrored_order(flip_pairs, maps.shape[1])].flip(-1)


def _mirrored_order(flip_pairs: Any, count: int) -> list[int]:
    own = list(range(count))
    order = dict(zip(own, own, strict=True))
    refusal = f"flip_pairs must be pairs of 0 to {count - 1}, each in one pair at most, not {flip_pairs!r}"
    try:
        for a, b in torch.as_tensor(flip_pairs).tolist():
            order[operator.index(a)], order[operator.index(b)] = b, a
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(refusal) from error
    if sorted(order) != own or sorted(order.values()) != own:
        raise InputError(refusal)
    return list(order.values())


def heatmap_loss(
    heatmaps: Float[Tensor, "b k hm wm"],
    labels: Float[Tensor, "b k hm wm"],
    weights: Float[Tensor, "b k"] | None = None,
) -> Float[Tensor, ""]:
    """The paper's loss: per-keypoint mean squared error of the weighted maps, in float32.

    Args:
        heatmaps: Predicted maps.
        labels: Target maps.
        weights: Weight of each keypoint, 0 for one without a label; multiplies prediction and target
            alike, so it enters squared, as in the original's `JointsMSELoss`.

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
            f"label_weights have the shape {tuple(weights.shape)} and need {tuple(heatmaps.shape[:2])}, "
            "one a keypoint"
        )
    errors = (heatmaps.float() - labels.float()).square()
    return errors.mean() if weights is None else (errors * weights.float().square()[:, :, None, None]).mean()


class VitPoseForPoseEstimation(PretrainedModule):
    """ViTPose and ViTPose++: crops in, one heatmap a keypoint out.

    Args:
        config: Sizes and keypoints; ViTPose-B with 17 COCO keypoints without one.
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
        counts = [self.config.num_labels or 0, *(len(own.skeleton) for own in self.config.datasets[1:])]
        self.head, *others = map(self._make_head, counts)
        self.associate_heads = nn.ModuleList(others)

    def _make_head(self, count: int) -> nn.Module:
        width = self.backbone.config.hidden_size
        head = (
            SimpleDecoder(width, count, self.config.scale_factor)
            if self.config.use_simple_decoder
            else ClassicDecoder(width, count)
        )
        # The original draws the decoder from N(0, 0.001) for both kinds of convolution. Weights without memory are
        # left alone: torch imports its whole compiler to draw them, which takes longer than all the rest of loading.
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
        """Trades time for memory in training: blocks are computed again in the backward pass.

        Args:
            gradient_checkpointing_kwargs: Arguments of `torch.utils.checkpoint.checkpoint`, as a dictionary.

        Raises:
            InputError: They are none, or the backbone is another library's.
        """
        self.backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs)

    def gradient_checkpointing_disable(self) -> None:
        """Computes each block once again."""
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
            dataset_index: Which expert and head, one for all or one a sample; required with several of either.
            flip_pairs: If given, the crops are taken as mirrored, and the maps are returned as those of the
                crops before mirroring. The pixels themselves are not touched: mirror them first.
            labels: Target maps; the loss is returned too: the sum of the heads' losses, each of its own samples and
                keypoints. Maps beyond a sample's keypoints are left aside.
            output_attentions: Return each block's attention; default: as the configuration says.
            output_hidden_states: Return the tokens before and after each block; default: as the configuration says.
            return_dict: False returns a tuple; default: as the configuration says.
            label_weights: Weight of each keypoint in the loss.
            loss_average: What a head's sum over its samples is divided by: the size of the whole "batch", as in the
                released code of ViTPose++, so that a dataset counts by its share of the batch; or the number of its own
                samples ("dataset"), so that all datasets of a batch count the same.

        Raises:
            InputError: An argument does not fit the network or another argument.
        """
        routing = route(dataset_index, len(self.heads), pixel_values.shape[0], "head")
        expert = dataset_index if self.config.num_experts > 1 or routing is None else None
        features = self.backbone(
            pixel_values,
            expert,
            # None leaves it to the backbone's configuration.
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
                    "flip_pairs are of one skeleton, and these samples meet several; mirror them here"
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
        """Returns the maps of each sample's head, and runs no head for any other sample."""
        if routing is None:
            return self.head(grid)
        if routing.rows is None:
            return self.heads[routing.experts[0]](grid)
        parts = [self.heads[own](grid[rows]) for own, rows in zip(routing.experts, routing.rows, strict=True)]
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
        everyone = torch.arange(len(heatmaps), device=heatmaps.device)
        losses = []
        for own, rows in zip(routing.experts, routing.rows or (everyone,), strict=True):
            k = len(self.config.heads[own].skeleton)
            parts = None if weights is None else weights[rows, :k]
            share = len(rows) / len(heatmaps) if average == "batch" else 1.0
            losses.append(heatmap_loss(heatmaps[rows, :k], labels[rows, :k], parts) * share)
        return torch.stack(losses).sum()

    def _on_grid(self, tokens: Float[Tensor, "..."], pixels: Tensor) -> Float[Tensor, "b d h w"]:
        if tokens.ndim == 4:  # other libraries' backbones return maps, not tokens
            return tokens
        rows = pixels.shape[2] // self.backbone.config.patch_size[0]
        return tokens.transpose(1, 2).unflatten(2, (rows, -1)).contiguous()

    def fold_expert(self, dataset: int | str) -> VitPoseForPoseEstimation:
        """Returns a dense network with one head and the same output as this one for one dataset.

        Args:
            dataset: Its `dataset_index`, or its name.

        Raises:
            InputError: The network has nothing to choose from, or not that, or its weights are quantised.
            CheckpointError: The network has the dataset's expert, but not its head.
        """
        if is_quantised(self):
            raise InputError(
                "the weights are quantised, and an expert can only be folded into whole ones; fold first "
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
        """Chooses how attention is computed.

        Args:
            name: "sdpa" (fused kernels) or "eager" (plain matrix products).

        Raises:
            UnknownNameError: There is no such implementation.
        """
        self.backbone.set_attn_implementation(name)

    def get_input_embeddings(self) -> nn.Module:
        """Returns what turns crops into tokens."""
        return self.backbone.get_input_embeddings()

    @classmethod
    def _read(cls, name: str | Path, config: Any, **options: Any) -> Checkpoint:
        return read_checkpoint(name, config, **options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `config.json` and `model.safetensors` as `transformers` reads them.

        Heads beside the first go to `heads.safetensors`, which only vitpose reads.

        Args:
            folder: Where to; made if need be. Files of that name are replaced, each whole or not at all.

        Raises:
            OutputError: They cannot be written.
            InputError: The weights are quantised.
        """
        refuse_quantised(self)
        write_checkpoint(self.config, self.state_dict(), folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        processor: Any = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload ViTPose",
    ) -> str:
        """Uploads what `save_pretrained` writes, and the image processor, to a hub repository, made if need be.

        Args:
            repo_id: The repository; one of the token's owner where only its second half is given.
            processor: The image processor; default: that of the checkpoint that the network was loaded from.
            private: Whether a new repository is private.
            token: Access token for the hub; default: the stored one.
            revision: Branch to upload to.
            commit_message: What the commit says.

        Returns:
            The address of the commit.

        Raises:
            InputError: There is no image processor, without which neither `vitpose.load` nor `transformers` can use
                the repository; or the weights are quantised.
            CheckpointError: The hub cannot be reached or does not let us.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            if processor is not None:
                processor.save_pretrained(folder)
            else:
                (Path(folder) / _PROCESSOR_FILE).write_bytes(self._processor_file(token).read_bytes())
            return upload_folder(
                folder, repo_id, private=private, token=token, revision=revision, message=commit_message
            )

    def _processor_file(self, token: str | bool | None) -> Path:
        missing = (
            "the network does not know its image processor, which a repository needs; give it: "
            "push_to_hub(..., processor=VitPoseImageProcessor(size={'height': ..., 'width': ...}))"
        )
        if self.source is None:
            raise InputError(missing)
        name, hub = self.source
        try:
            return find_file(name, _PROCESSOR_FILE, token=token, **hub)
        except (CheckpointError, UnknownNameError) as error:
            raise InputError(missing) from error
