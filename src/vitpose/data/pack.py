"""Packing: images decoded once into crops with margin, from which a training runs alone.

A pack is a folder of parts (safetensors files) and `pack.json`, which is written last: a folder without it is
no pack. Each part holds encoded crops end to end and the annotations of its people in pixels of their
crops. A crop reaches as far as the augmentation can look and is cut off at the borders of its image, beyond
which everything is black anyway. `pack.json` says how far that was (`Margin`), and a training run that could look
further is refused. It keeps the image's own pixels unless it would be larger than
`side`; then it is reduced, by the same factor both ways, so that a view of the image is a view of the crop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import ImageError, InputError
from ..files.writing import replace_file
from ..geometry.boxes import Size
from ..keypoints.skeleton import Skeleton
from ..processing.image_processor import INPUT_SIZE, VitPoseImageProcessor
from .annotations import AnnotationReport, TrainingAnnotations, shared_skeleton
from .augment import Augmentation
from .pack_index import INDEX_FILE, VERSION, Margin, read_index

MAX_PART_BYTES = 50_000_000
SIDE_PX = 384
"""Longest side of a packed crop. A crop reaches some 2.8 times as far as its person is tall, so people up to 140 px
keep all their pixels; where the image ends nearer, larger ones do. At 256x192 a person of the plain crop
is 205 px tall."""
QUALITY = 95
"""Of JPEG, without chroma subsampling (measured: benchmarks/loading.py)."""

_COLUMNS = {
    "boxes": ("f4", (4,)),
    "xy": ("f4", (-1, 2)),
    "visibility": ("u1", (-1,)),
    "areas": ("f4", ()),
    "ids": ("i8", ()),
    "sources": ("i8", ()),
    "sizes": ("i8", (2,)),
    "origins": ("i8", (2,)),
    "factors": ("f8", ()),
}
"""The columns of a part: their type, and their shape behind that of the people; -1 is the number of keypoints."""


@dataclass(frozen=True, eq=False)
class Packed(TrainingAnnotations):
    """n people of a pack: annotations whose images are the crops of the pack's parts.

    All coordinates are px of the person's own crop.

    Attributes:
        rows: Where in its part each person is.
        ends: For each part, where each crop's bytes end.
        sources: Which of `source_names` each person is from.
        sizes: Width and height of each crop, px.
        origins: Left top corner of each crop in its image, px.
        factors: Pixels of the image a pixel of the crop, 1 where it was not reduced.
        source_names: The files that were packed.
        margins: How far the crops of each of them reach.
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
        """Returns the people of each source, to be mixed with weights."""
        return [self.select(self.sources == source) for source in range(len(self.source_names))]

    def refuse_short_margin(
        self, augmentation: Augmentation | None, processor: VitPoseImageProcessor
    ) -> None:
        """Refuses views that can look beyond the crops, where the image goes on.

        Args:
            augmentation: What is varied; nothing without one.
            processor: Size and aspect of the crops.

        Raises:
            InputError: For some of the people pixels would be missing.
        """
        wanted = Margin.of(augmentation, processor)
        for source, margin in enumerate(self.margins):
            own = self.select(self.sources == source)
            short = margin.count_short(own, own.sizes, wanted)
            if short:
                raise InputError(
                    f"the pack {self.report.source} ends too near {short} of {len(own)} people for this training run "
                    f"({margin.differences(wanted)}); pack it again, with 'vitpose data pack --dataset' for another "
                    "dataset or vitpose.data.pack.write_pack for another augmentation or size, or vary less"
                )

    def read_image(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """Decodes the crop of a person.

        Raises:
            ImageError: The part is damaged.
        """
        part, place = int(self.image_index[row]), int(self.rows[row])
        ends = self.ends[part]
        start, end = int(ends[place - 1]) if place else 0, int(ends[place])
        name = self.images[part]
        try:
            code = _open_part(name).get_slice("crops")[start:end]
        except (OSError, SafetensorError) as error:
            raise ImageError(f"crop {place} of {name} cannot be read: {error}; pack the set again") from error
        crop = cv2.imdecode(code, cv2.IMREAD_COLOR)
        if crop is None:
            raise ImageError(f"crop {place} of {name} is damaged; pack the set again")
        return cv2.cvtColor(crop, cv2.COLOR_BGR2RGB, dst=crop)


def _open_part(path: Path) -> Any:
    return _map_part(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1024)
def _map_part(path: Path, written_ns: int) -> Any:
    # Mapped into memory, which all workers of a machine share. A part written anew is another part.
    return safe_open(path, framework="numpy")


def write_pack(
    sources: Sequence[TrainingAnnotations],
    folder: str | Path,
    *,
    augmentation: Augmentation | None = None,
    size: Size = INPUT_SIZE,
    aspect: str = "keep",
    side: int = SIDE_PX,
    quality: int | None = QUALITY,
    max_part_bytes: int = MAX_PART_BYTES,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[AnnotationReport]:
    """Packs the people of sources that share a skeleton.

    Args:
        sources: Whom to pack.
        folder: Where to; made if need be, and must hold no pack.
        augmentation: What a training on it may do at most; the published recipe without one.
        size: Size of the crops of such a training run; what counts is their aspect.
        aspect: How its boxes fill them, "keep" or "stretch"; see `vitpose.geometry.warp.Warp.from_boxes`.
        side: Longest side of a packed crop, px.
        quality: Of JPEG, 1 to 100; None packs PNG, without any loss and four times as large.
        max_part_bytes: Largest part.
        advance: Called once a person with how many are done, of how many.

    Returns:
        The report of each source; images that could not be read are new in it, their people are not packed.

    Raises:
        InputError: The skeletons differ, the folder holds a pack, or nobody could be packed.
        OutputError: A part cannot be written.
    """
    folder = Path(folder).expanduser()
    skeleton = shared_skeleton(sources)
    if (folder / INDEX_FILE).exists():
        raise InputError(f"{folder} holds a pack already; choose another folder, or delete that one")
    folder.mkdir(parents=True, exist_ok=True)
    margin = Margin(augmentation=augmentation or Augmentation(), size=size, aspect=aspect)
    writer = _Writer(folder, max_part_bytes)
    final, done, total = [], 0, sum(map(len, sources))
    for number, people in enumerate(sources):
        cuts, failed = margin.reach(people), []
        for row in _by_image(people):
            try:
                crop, origin, factor = cut_out(people.read_image(row), cuts[row], side)
            except ImageError:
                failed.append(f"annotation {people.ids[row]} ({people.images[people.image_index[row]].name})")
            else:
                writer.add(_encode(crop, quality), _columns(people, row, number, crop, origin, factor))
            done += 1
            advance(done, total)
        report = people.report
        final.append(
            report.with_problems("image cannot be read", failed, len(people) - len(failed))
            if failed
            else report
        )
    parts = writer.finish()
    if not parts:
        raise InputError("nobody could be packed: " + "; ".join(map(str, final)))
    table = {
        "version": VERSION,
        "skeleton": skeleton.to_dict(),
        "sources": [{"file": r.source, "people": r.people, "problems": dict(r.problems)} for r in final],
        "margin": margin.to_dict(),
        "side": side,
        "quality": quality,
        "parts": parts,
    }
    with replace_file(folder / INDEX_FILE) as path:
        path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return final


def read_pack(folder: str | Path) -> Packed:
    """Opens a pack: all annotations, and crops when they are asked for.

    Raises:
        InputError: The folder holds no pack, or not all of it.
    """
    folder = Path(folder).expanduser()
    index = read_index(folder)
    paths = tuple(folder / part.file for part in index.parts)
    source = f"{folder / INDEX_FILE}"
    skeleton = Skeleton.from_dict(index.skeleton, f"{source}, skeleton")
    columns = [
        _read_part(path, part.people, len(skeleton), len(index.sources))
        for path, part in zip(paths, index.parts, strict=True)
    ]
    counts = [len(part["boxes"]) for part in columns]
    joined = {name: np.concatenate([part[name] for part in columns]) for name in _COLUMNS}
    return Packed(
        images=paths,
        image_index=np.repeat(np.arange(len(paths)), counts),
        rows=np.concatenate([np.arange(count) for count in counts]),
        ends=tuple(part["ends"] for part in columns),
        skeleton=skeleton,
        report=AnnotationReport(str(folder), sum(counts), sum(counts)),
        source_names=tuple(one.file for one in index.sources),
        margins=(Margin.from_form(index.margin, source),) * len(index.sources),
        **joined,
    )


def join_packs(packs: Sequence[Packed]) -> Packed:
    """Returns the people of several packs as those of one, in this order.

    Raises:
        InputError: There is no pack, or their skeletons differ.
    """
    skeleton = shared_skeleton(packs)
    columns = {name: np.concatenate([getattr(one, name) for one in packs]) for name in Packed.columns}
    for name, counts in (
        ("image_index", [len(one.images) for one in packs]),
        ("sources", [len(one.source_names) for one in packs]),
    ):
        # Each pack counts its parts and its sources from 0.
        starts = np.cumsum([0, *counts[:-1]])
        columns[name] = columns[name] + np.repeat(starts, list(map(len, packs)))
    names = tuple(name for one in packs for name in one.source_names)
    return Packed(
        images=tuple(path for one in packs for path in one.images),
        ends=tuple(ends for one in packs for ends in one.ends),
        skeleton=skeleton,
        report=AnnotationReport(
            ", ".join(one.report.source for one in packs), len(columns["boxes"]), len(columns["boxes"])
        ),
        source_names=names,
        margins=tuple(margin for one in packs for margin in one.margins),
        **columns,
    )


def cut_out(
    image: UInt8[np.ndarray, "h w 3"], box: Float[np.ndarray, " 4"], side: int
) -> tuple[UInt8[np.ndarray, "hc wc 3"], Int[np.ndarray, " 2"], float]:
    """Cuts a box out of an image, at whole pixels and no larger than the image.

    Args:
        image: The image.
        box: xyxy, px.
        side: A larger crop is reduced to this longest side, px.

    Returns:
        The crop, its left top corner in the image, and how much it was reduced: pixels of the image a
        pixel of the crop.
    """
    limit = np.array([image.shape[1], image.shape[0]])
    # A box beyond the image still gets one pixel, or there would be no crop.
    low = np.clip(np.floor(box[:2]), 0, limit - 1).astype(int)
    high = np.clip(np.ceil(box[2:]) + 1, low + 1, limit).astype(int)
    crop = image[low[1] : high[1], low[0] : high[0]]
    factor = max(1.0, float((high - low).max() / side))
    if factor > 1:
        sides = [max(1, round(float(length) / factor)) for length in high - low]  # of a line one pixel stays
        crop = cv2.resize(crop, sides, interpolation=cv2.INTER_AREA)
    return crop, low, factor


def _by_image(people: TrainingAnnotations) -> Iterator[int]:
    yield from np.argsort(people.image_index, kind="stable").tolist()


def _encode(crop: np.ndarray, quality: int | None) -> np.ndarray:
    if quality is None:
        return cv2.imencode(".png", crop[:, :, ::-1])[1]
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", crop[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling])[1]


def _columns(
    people: TrainingAnnotations, row: int, source: int, crop: np.ndarray, origin: np.ndarray, factor: float
) -> dict[str, Any]:
    # The middle of a reduced pixel is the middle of the pixels that it stands for.
    shift = origin - 0.5 + factor / 2 if factor > 1 else origin
    labelled = people.labelled[row][:, None]
    return {
        "boxes": ((people.boxes[row] - np.tile(shift, 2)) / factor).astype(np.float32),
        "xy": np.where(labelled, (people.xy[row] - shift) / factor, 0).astype(np.float32),
        "visibility": people.visibility[row],
        "areas": np.float32(people.areas[row] / factor**2),
        "ids": np.int64(people.ids[row]),
        "sources": np.int64(source),
        "sizes": np.array([crop.shape[1], crop.shape[0]], np.int64),
        "origins": origin.astype(np.int64),
        "factors": np.float64(factor),
    }


@dataclass
class _Writer:
    """Fills parts up to their limit."""

    folder: Path
    limit: int
    codes: list[np.ndarray] = field(default_factory=list)
    columns: list[dict[str, Any]] = field(default_factory=list)
    bytes: int = 0
    parts: list[dict[str, Any]] = field(default_factory=list)

    def add(self, code: np.ndarray, columns: dict[str, Any]) -> None:
        # The end of its code is a number a person, too; the header takes a kilobyte.
        size = code.size + 8 + sum(value.nbytes for value in columns.values())
        if self.codes and self.bytes + size > self.limit - 4096:
            self._flush()
        self.codes.append(code.ravel())
        self.columns.append(columns)
        self.bytes += size

    def finish(self) -> list[dict[str, Any]]:
        if self.codes:
            self._flush()
        return self.parts

    def _flush(self) -> None:
        tensors = {name: np.stack([row[name] for row in self.columns]) for name in _COLUMNS}
        tensors["crops"] = np.concatenate(self.codes)
        tensors["ends"] = np.cumsum([code.size for code in self.codes]).astype(np.int64)
        name = f"part-{len(self.parts):04d}.safetensors"
        with replace_file(self.folder / name) as path:
            path.write_bytes(save(tensors))  # unlike save_file it fails with an OSError
        self.parts.append({"file": name, "people": len(self.codes)})
        self.codes, self.columns, self.bytes = [], [], 0


def _read_part(path: Path, people: int, keypoints: int, sources: int) -> dict[str, np.ndarray]:
    try:
        part = _open_part(path)
        columns = {name: part.get_tensor(name) for name in (*_COLUMNS, "ends")}
        crops = part.get_slice("crops")
        told = crops.get_dtype(), crops.get_shape()
    except (
        OSError,
        SafetensorError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:  # the latter for odd types
        raise InputError(f"{path} cannot be read: {error}; pack the set again") from error
    if columns["boxes"].shape[:1] != (people,):
        raise InputError(
            f"{path} holds {len(np.atleast_1d(columns['boxes']))} people instead of {people}; pack the set again"
        )
    for name, (kind, rest) in _COLUMNS.items():
        wanted = np.dtype(kind), (people, *(keypoints if side < 0 else side for side in rest))
        found = columns[name].dtype, columns[name].shape
        if found != wanted:
            raise InputError(f"{path}: {name} is of {found} instead of {wanted}; pack the set again")
    ends = columns["ends"]
    if told != ("U8", [ends[-1] if ends.shape == (people,) else -1]) or (np.diff(ends, prepend=0) <= 0).any():
        raise InputError(f"{path}: its crops do not end where it says; pack the set again")
    if not ((columns["sources"] >= 0) & (columns["sources"] < sources)).all():
        raise InputError(f"{path}: it names a source that {INDEX_FILE} does not list; pack the set again")
    return columns
