"""VitPoseImageProcessor: preprocessing and postprocessing with the interface of `transformers`.

A façade over `ModelSpec`: it applies the settings of a `preprocessor_config.json` to images and to outputs of the
network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from ..errors import BoxError, UnknownNameError
from ..geometry.boxes import Size
from ..geometry.heatmaps import Decoding, decode
from ..geometry.warp import Warp, crop_all, normalise
from ..keypoints.dataset_spec import DatasetSpec
from ..keypoints.model_spec import ModelSpec
from ..model.preprocessor_config import PreprocessorConfig
from .pixel_values import (
    BatchFeature,
    pack,
    read_boxes,
    read_boxes_inside,
    read_images,
    scales_of_boxes,
    stack_crops,
)

if TYPE_CHECKING:
    import torch

__all__ = ["BatchFeature", "VitPoseImageProcessor"]

_DECODING_FIELDS = ("decode", "blur_sigma", "border", "max_step", "shift_heatmap")


@dataclass(frozen=True)
class VitPoseImageProcessor(PreprocessorConfig):
    """Turns images and boxes into a model's input, and its heatmaps into keypoints.

    Its attributes are those of `PreprocessorConfig`.
    """

    @cached_property
    def _spec(self) -> ModelSpec:
        # Crops and decoding do not depend on the skeleton, which a processor does not have.
        return self.to_spec(DatasetSpec.load("coco"))

    def decoding(self, kernel_size: int = 11) -> Decoding:
        """Returns the settings of the decoding of heatmaps.

        Args:
            kernel_size: Side of DARK's blur kernel, cells; odd.

        Raises:
            InputError: The kernel size is not odd and positive.
        """
        return replace(self._spec.decoding, kernel_size=kernel_size)

    @property
    def scale_and_offset(self) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]:
        """See `ModelSpec.scale_and_offset`."""
        return self._spec.scale_and_offset

    def warp_boxes(self, boxes: Float[np.ndarray, "n 4"]) -> Warp:
        """Returns the warp from xyxy boxes, px of the image, to crops."""
        return self._spec.warp_boxes(boxes)

    def __call__(self, images: Any, boxes: Any = None, *options: Any, **named: Any) -> BatchFeature:
        """Calls `preprocess`."""
        return self.preprocess(images, boxes, *options, **named)

    def preprocess(
        self,
        images: Any,
        boxes: Any = None,
        do_affine_transform: bool | None = None,
        size: Any = None,
        do_rescale: bool | None = None,
        rescale_factor: float | None = None,
        do_normalize: bool | None = None,
        image_mean: Any = None,
        image_std: Any = None,
        return_tensors: str | None = None,
        data_format: str | None = None,
        input_data_format: str | None = None,
        **others: Any,
    ) -> BatchFeature:
        """Crops every box from its image and turns it into the network's input.

        Args:
            images: One image or a list, in any form that `vitpose.images.read_image` accepts. Arrays of floats have
                values from 0 to 255, as in `transformers`, or any range with do_rescale=False.
            boxes: One list of boxes per image, each box (left, top, width, height) in pixels, as in COCO. An image
                with an empty list has no crops.
            do_affine_transform: Replaces the attribute for this call, as do the next six.
            size: Size of the crops.
            do_rescale: Multiply by `rescale_factor`.
            rescale_factor: Factor of the pixel values.
            do_normalize: Subtract the mean and divide by the standard deviation.
            image_mean: Means.
            image_std: Standard deviations.
            return_tensors: "pt" for a torch tensor, "np" for a NumPy array; default: a list of arrays.
            data_format: Layout of the result, "channels_first" (default) or "channels_last".
            input_data_format: Layout of images given as arrays; default: inferred from their shape.
            **others: Other attributes to replace for this call, except those of the decoding.

        Returns:
            `pixel_values`: all crops, in the order of images and boxes, (n 3 hc wc).

        Raises:
            ImageError: An image cannot be read, or has floats from 0 to 1 that would be rescaled.
            BoxError: The boxes are invalid, or there is not one list per image.
            InputError: A value is invalid, or images treated as crops differ from `size`.
            UnknownNameError: An option is unknown.
        """
        changes = {
            "do_affine_transform": do_affine_transform,
            "size": size,
            "do_rescale": do_rescale,
            "rescale_factor": rescale_factor,
            "do_normalize": do_normalize,
            "image_mean": image_mean,
            "image_std": image_std,
            **self._call_options(others),
        }
        used = self.changed({name: value for name, value in changes.items() if value is not None})
        pixels = used._crop(images, boxes, input_data_format)
        return BatchFeature(pixel_values=pack(pixels, data_format or "channels_first", return_tensors))

    def _call_options(self, others: Mapping[str, Any]) -> Mapping[str, Any]:
        known = [f.name for f in fields(self) if f.name not in _DECODING_FIELDS]
        for name in others:
            if name not in known:
                raise UnknownNameError("option of the image processor", name, known)
        return others

    def _crop(self, images: Any, boxes: Any, input_data_format: str | None) -> Float[np.ndarray, "n 3 hc wc"]:
        read = read_images(images, input_data_format, self.do_rescale)
        if not self.do_affine_transform:
            return normalise(stack_crops(read, self.size), *self.scale_and_offset)
        warps = [self.warp_boxes(xyxy) for xyxy in read_boxes_inside(boxes, read)]
        return normalise(crop_all(read, warps, self.size), *self.scale_and_offset)

    def post_process_pose_estimation(
        self,
        outputs: Any,
        boxes: Any,
        kernel_size: int = 11,
        threshold: float | None = None,
        target_sizes: Any = None,
    ) -> list[list[dict[str, torch.Tensor]]]:
        """Decodes the network's heatmaps into keypoints in pixels of the images.

        Args:
            outputs: Output of the network (any object with `heatmaps`, n k hm wm).
            boxes: The boxes given to `preprocess`.
            kernel_size: Side of DARK's blur kernel, cells; odd.
            threshold: Keypoints with at least this score are marked as visible; default: all are. The number of
                keypoints does not depend on it.
            target_sizes: (height, width) in pixels of each image, or of each box, if the boxes are relative, 0 to 1.

        Returns:
            One list per image with one dictionary per box: `keypoints` (k 2) as (x, y) in pixels of the image,
            `scores` (k), `labels` (k), the indices of the keypoints, `visible` (k), and `bbox` (4), the box as
            (left, top, right, bottom) in pixels.

        Raises:
            BoxError: The boxes are invalid, or their number is not that of the heatmaps.
            InputError: There is not one target size per image or box, or the heatmaps hold NaN or infinity.
        """
        import torch

        heatmaps = outputs.heatmaps.detach().float().cpu().numpy()
        counts = [len(rows) for rows in boxes]
        if sum(counts) != len(heatmaps):
            raise BoxError(
                f"there are {sum(counts)} boxes but heatmaps for {len(heatmaps)}; give the boxes given to `preprocess`"
            )
        xyxy = np.concatenate([np.zeros((0, 4), np.float32), *map(read_boxes, boxes)])
        if target_sizes is not None:
            xyxy = xyxy * scales_of_boxes(target_sizes, counts)
        cells, scores = decode(heatmaps, self.decoding(kernel_size))
        grid = Size(width=heatmaps.shape[3], height=heatmaps.shape[2])
        keypoints = self.warp_boxes(xyxy).to_image(cells, grid).astype(np.float32)
        visible = scores >= (-np.inf if threshold is None else threshold)
        rows = [
            {
                "keypoints": torch.from_numpy(keypoints[row]),
                "scores": torch.from_numpy(scores[row]),
                "labels": torch.arange(heatmaps.shape[1]),
                "visible": torch.from_numpy(visible[row]),
                "bbox": torch.from_numpy(xyxy[row].astype(np.float32)),
            }
            for row in range(len(heatmaps))
        ]
        ends = np.cumsum(counts)
        return [rows[end - count : end] for end, count in zip(ends, counts, strict=True)]
