"""Packing: images decoded once into crops with a margin, so that a training run reads only the pack.

A pack is a directory of parts (`pack_parts`) and `pack.json` (`pack_index`), which is written last: a directory
without it is incomplete. A crop contains every possible view of the augmentation and ends at the borders of the image,
beyond which views are black anyway. `pack.json` records this margin (`Margin`); training runs whose views could exceed
it raise an error. Crops keep the pixels of the image unless they would be larger than `side`; then they are
reduced by the same factor in both directions, so that a view of the image is a view of the crop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from ..errors import ImageError, InputError, counted
from ..files.paths import user_path
from ..files.schemas import check
from ..files.writing import replace_file
from ..geometry.boxes import Size
from ..keypoints.model_spec import INPUT_SIZE, ModelSpec
from ..keypoints.skeleton import Skeleton
from .annotations import AnnotationReport, TrainingAnnotations, shared_skeleton
from .augment import Augmentation
from .pack_index import INDEX_FILE, VERSION, Margin, read_index
from .pack_parts import COLUMNS, PartWriter, read_code, read_part

MAX_PART_BYTES = 50_000_000
SIDE_PX = 384
"""Longest side of a packed crop. A crop is about 2.8 times as high as its person, so persons up to a height of 140 px,
and larger ones near the borders of their image, keep their resolution. In a plain crop of 256x192, a person is 205 px
high."""
QUALITY = 95
"""Quality of JPEG, without chroma subsampling (measured: benchmarks/loading.py)."""


@dataclass(frozen=True, eq=False)
class Packed(TrainingAnnotations):
    """n instances of a pack: annotations whose images are the crops in the pack's parts.

    All coordinates are in px of the instance's crop.

    Attributes:
        rows: Index of each instance in its part.
        ends: For each part, the byte offsets at which its crops end.
        sources: Index of each instance's source in `source_names`.
        sizes: Width and height of each crop, px.
        origins: Top left corner of each crop in its image, px.
        factors: Pixels of the image per pixel of the crop; 1 where the crop was not reduced.
        source_names: The packed annotation files.
        margins: Margin of the crops of each source.
    """

    rows: Int[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0, np.int64))
    ends: tuple[Int[np.ndarray, " _"], ...] = ()
    sources: Int[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0, np.int64))
    sizes: Int[np.ndarray, "n 2"] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    origins: Int[np.ndarray, "n 2"] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    factors: Float[np.ndarray, " n"] = field(default_factory=lambda: np.zeros(0))
    source_names: tuple[str, ...] = ()
    margins: tuple[Margin, ...] = ()

    columns: ClassVar[tuple[str, ...]] = (
        *TrainingAnnotations.columns,
        "rows",
        "sources",
        "sizes",
        "origins",
        "factors",
    )

    def by_source(self) -> list[Packed]:
        """Return the instances of each source, to mix them with weights."""
        return [self.select(self.sources == source) for source in range(len(self.source_names))]

    def refuse_short_margin(self, augmentation: Augmentation | None, spec: ModelSpec) -> None:
        """Check that no view exceeds the crops where their images continue.

        Args:
            augmentation: The augmentation of the training run; None for none.
            spec: Size and aspect of its crops.

        Raises:
            InputError: Pixels could be missing in views of some instances.
        """
        wanted = Margin.of(augmentation, spec)
        for source, margin in enumerate(self.margins):
            instances = self.select(self.sources == source)
            short = margin.count_short(instances, instances.sizes, wanted)
            if short:
                raise InputError(
                    f"the margin of the pack {self.report.source} is too small for {short} of "
                    f"{counted(len(instances), 'instance')} in this training run ({margin.differences(wanted)}); "
                    "pack the dataset again, with 'vitpose data pack --dataset' for another dataset or "
                    "vitpose.data.pack.write_pack for another augmentation or size, or reduce the augmentation"
                )

    def read_image(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """Decode the crop of an instance.

        Args:
            row: Index of the instance.

        Raises:
            ImageError: The part is missing or damaged.
        """
        part, index = int(self.image_index[row]), int(self.rows[row])
        path, ends = self.images[part], self.ends[part]
        code = read_code(path, index, int(ends[index - 1]) if index else 0, int(ends[index]))
        crop = cv2.imdecode(code, cv2.IMREAD_COLOR)
        if crop is None:
            raise ImageError(f"crop {index} of {path} is damaged; pack the dataset again")
        return cv2.cvtColor(crop, cv2.COLOR_BGR2RGB, dst=crop)


def write_pack(
    sources: Sequence[TrainingAnnotations],
    directory: str | Path,
    *,
    augmentation: Augmentation | None = None,
    size: Size = INPUT_SIZE,
    aspect: str = "keep",
    side: int = SIDE_PX,
    quality: int | None = QUALITY,
    max_part_bytes: int = MAX_PART_BYTES,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[AnnotationReport]:
    """Pack the instances of sources that share a skeleton.

    Args:
        sources: The annotations.
        directory: Directory of the pack; created if it is missing, and must not contain a pack.
        augmentation: The strongest augmentation of training runs on the pack. Default: the published recipe.
        size: Size of the crops of these training runs; only their aspect matters.
        aspect: How boxes fill these crops, "keep" or "stretch"; see `vitpose.geometry.warp.Warp.from_boxes`.
        side: Longest side of a packed crop, px.
        quality: Quality of JPEG, 1 to 100; None for PNG, which is lossless and four times as large.
        max_part_bytes: Largest part, bytes.
        advance: Called after every instance with the numbers of processed and of all instances.

    Returns:
        The report of each source, with images that could not be read, whose instances are not packed.

    Raises:
        InputError: There are no sources, their skeletons differ, the directory contains a pack, or no instance could
            be packed.
        OutputError: A file cannot be written.
    """
    directory = user_path(directory)
    skeleton = shared_skeleton(sources)
    if (directory / INDEX_FILE).exists():
        raise InputError(f"{directory} already contains a pack; choose another directory, or delete the pack")
    directory.mkdir(parents=True, exist_ok=True)
    margin = Margin(augmentation=augmentation or Augmentation(), size=size, aspect=aspect)
    writer = PartWriter(directory, max_part_bytes)
    reports, done, total = [], 0, sum(map(len, sources))
    for number, instances in enumerate(sources):
        cuts, failed = margin.reach(instances), []
        for row in np.argsort(instances.image_index, kind="stable").tolist():  # an image is decoded once
            try:
                crop, origin, factor = cut_out(instances.read_image(row), cuts[row], side)
            except ImageError:
                failed.append(
                    f"annotation {instances.ids[row]} ({instances.images[instances.image_index[row]].name})"
                )
            else:
                writer.add(_encode(crop, quality), _columns(instances, row, number, crop, origin, factor))
            done += 1
            advance(done, total)
        kept = len(instances) - len(failed)
        problem = "image cannot be read"
        reports.append(instances.report.with_problems(problem, failed, kept) if failed else instances.report)
    parts = writer.finish()
    if not parts:
        raise InputError(
            "no instance could be packed: "
            + "; ".join(map(str, reports))
            + "; correct the sources listed above"
        )
    table = {
        "version": VERSION,
        "skeleton": skeleton.to_dict(),
        "sources": [
            {"file": r.source, "instances": r.instances, "problems": dict(r.problems)} for r in reports
        ],
        "margin": asdict(margin),
        "side": side,
        "quality": quality,
        "parts": parts,
    }
    with replace_file(directory / INDEX_FILE) as path:
        path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return reports


def read_pack(directory: str | Path) -> Packed:
    """Read the annotations of a pack; crops are decoded on access.

    Args:
        directory: Directory of the pack.

    Raises:
        InputError: The directory contains no pack, or one that is incomplete or damaged.
        SkeletonError: The skeleton in its index is invalid.
    """
    directory = user_path(directory)
    index = read_index(directory)
    paths = tuple(directory / part.file for part in index.parts)
    source = f"{directory / INDEX_FILE}"
    skeleton = Skeleton.from_dict(index.skeleton, f"{source}, skeleton")
    columns = [
        read_part(path, part.instances, len(skeleton), len(index.sources))
        for path, part in zip(paths, index.parts, strict=True)
    ]
    counts = [len(part["boxes"]) for part in columns]
    joined = {name: np.concatenate([part[name] for part in columns]) for name in COLUMNS}
    return Packed(
        images=paths,
        image_index=np.repeat(np.arange(len(paths)), counts),
        rows=np.concatenate([np.arange(count) for count in counts]),
        ends=tuple(part["ends"] for part in columns),
        skeleton=skeleton,
        report=AnnotationReport(str(directory), sum(counts), sum(counts)),
        source_names=tuple(packed.file for packed in index.sources),
        margins=(check(Margin, index.margin, f"{source}, margin"),) * len(index.sources),
        **joined,
    )


def join_packs(packs: Sequence[Packed]) -> Packed:
    """Concatenate packs.

    Raises:
        InputError: There are no packs, or their skeletons differ.
    """
    skeleton = shared_skeleton(packs)
    columns = {name: np.concatenate([getattr(pack, name) for pack in packs]) for name in Packed.columns}
    for name, counts in (
        ("image_index", [len(pack.images) for pack in packs]),
        ("sources", [len(pack.source_names) for pack in packs]),
    ):
        # In each pack the indices of parts and sources start at 0.
        starts = np.cumsum([0, *counts[:-1]])
        columns[name] = columns[name] + np.repeat(starts, list(map(len, packs)))
    n = len(columns["boxes"])
    return Packed(
        images=tuple(path for pack in packs for path in pack.images),
        ends=tuple(ends for pack in packs for ends in pack.ends),
        skeleton=skeleton,
        report=AnnotationReport(", ".join(pack.report.source for pack in packs), n, n),
        source_names=tuple(name for pack in packs for name in pack.source_names),
        margins=tuple(margin for pack in packs for margin in pack.margins),
        **columns,
    )


def cut_out(
    image: UInt8[np.ndarray, "h w 3"], box: Float[np.ndarray, " 4"], side: int
) -> tuple[UInt8[np.ndarray, "hc wc 3"], Int[np.ndarray, " 2"], float]:
    """Crop a box from an image, at integer pixels and within the image.

    Args:
        image: The image.
        box: The box as xyxy in px.
        side: Larger crops are reduced to this longest side, px.

    Returns:
        The crop, its top left corner in the image in px, and the number of image pixels per pixel of the crop.
    """
    limit = np.array([image.shape[1], image.shape[0]])
    # At least one pixel, for boxes outside the image.
    low = np.clip(np.floor(box[:2]), 0, limit - 1).astype(int)
    high = np.clip(np.ceil(box[2:]) + 1, low + 1, limit).astype(int)
    crop = image[low[1] : high[1], low[0] : high[0]]
    factor = max(1.0, float((high - low).max() / side))
    if factor > 1:
        sides = [max(1, round(float(length) / factor)) for length in high - low]  # at least one pixel
        crop = cv2.resize(crop, sides, interpolation=cv2.INTER_AREA)
    return crop, low, factor


def _encode(crop: np.ndarray, quality: int | None) -> np.ndarray:
    if quality is None:
        return cv2.imencode(".png", crop[:, :, ::-1])[1]
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", crop[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling])[1]


def _columns(
    instances: TrainingAnnotations, row: int, source: int, crop: np.ndarray, origin: np.ndarray, factor: float
) -> dict[str, Any]:
    # The centre of a reduced pixel is the centre of the image pixels that it covers.
    shift = origin - 0.5 + factor / 2 if factor > 1 else origin
    labelled = instances.labelled[row][:, None]
    return {
        "boxes": ((instances.boxes[row] - np.tile(shift, 2)) / factor).astype(np.float32),
        "xy": np.where(labelled, (instances.xy[row] - shift) / factor, 0).astype(np.float32),
        "visibility": instances.visibility[row],
        "areas": np.float32(instances.areas[row] / factor**2),
        "ids": np.int64(instances.ids[row]),
        "sources": np.int64(source),
        "sizes": np.array([crop.shape[1], crop.shape[0]], np.int64),
        "origins": origin.astype(np.int64),
        "factors": np.float64(factor),
    }
