"""Instances: what `Poses` and `MixedPoses` have in common: iteration, JSON, drawing, and their form in notebooks."""

from __future__ import annotations

import html
import io
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageShow

from ..errors import InputError, OutputError, VitPoseError
from ..geometry.boxes import Size
from ..images import save_image
from .drawing import DrawingOptions, draw

if TYPE_CHECKING:
    from .poses import Poses

_ROWS_SHOWN = 10
"""Instances in a `repr`."""
_NOTEBOOK_SIDE_PX = 800
"""Longer side of a drawing in a notebook, which stores it."""


class Instances(ABC):
    """The n instances in one image, in the order of their boxes."""

    @property
    @abstractmethod
    def path(self) -> str | None:
        """Path or URL that the image was read from; None: unknown, as for arrays."""

    @property
    @abstractmethod
    def image_size(self) -> Size | None:
        """Size of the image; None: unknown."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: Any) -> Any: ...

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Returns lists and dictionaries that JSON can represent."""

    @abstractmethod
    def _title(self) -> str:
        """Returns what follows the number of poses in a `repr`."""

    @abstractmethod
    def _name(self, row: int) -> str:
        """Returns the name of an instance in a `repr`."""

    def __iter__(self) -> Iterator[Poses]:
        """Yields each instance as `Poses` of length 1."""
        return (self[index] for index in range(len(self)))

    def to_json(self, indent: int | None = None) -> str:
        """Returns `to_dict()` as a JSON string."""
        return json.dumps(self.to_dict(), indent=indent)

    def draw(self, image: Any = None, **options: Unpack[DrawingOptions]) -> UInt8[np.ndarray, "h w 3"]:
        """Returns a copy of the image with the poses drawn on it.

        Args:
            image: The image, from any source that `read_image` takes; default: the file or URL that the poses were
                estimated in, which is read again. Poses do not keep the pixels of their image.
            **options: See `vitpose.draw`.

        Raises:
            InputError: The image was not read from a file or URL and must be passed, it has another size than the image
                of the poses, or an option is invalid.
            ImageError: The image cannot be read.
        """
        source = self.path if image is None else image
        if source is None:
            raise InputError(
                "the image of these poses is unknown, because it was not read from a file or URL; pass it: "
                "poses.draw(image)"
            )
        return draw(source, self, **options)

    def save(
        self, path: str | os.PathLike[str], image: Any = None, **options: Unpack[DrawingOptions]
    ) -> None:
        """Writes the drawing to an image file such as "drawn.jpg".

        Args:
            path: Path of the file; its suffix selects the format, see `vitpose.save_image`.
            image: See `draw`.
            **options: See `vitpose.draw`.

        Raises:
            InputError: See `draw`.
            ImageError: The image cannot be read, or the file cannot be written.
            UnknownNameError: The suffix is not that of a supported format.
        """
        save_image(path, self.draw(image, **options))

    def show(self, image: Any = None, **options: Unpack[DrawingOptions]) -> None:
        """Shows the drawing in the notebook, or in the system's image viewer.

        Args:
            image: See `draw`.
            **options: See `vitpose.draw`.

        Raises:
            InputError: See `draw`.
            ImageError: The image cannot be read.
            OutputError: This system has no image viewer.
        """
        drawing = Image.fromarray(self.draw(image, **options))
        shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
        if getattr(shell, "kernel", None) is not None:  # Pillow prefers the system's viewer even there
            from IPython.display import display

            display(drawing)
        elif not ImageShow.show(drawing, title="vitpose"):
            raise OutputError(
                "no program that shows images was found; write the drawing to a file with save(path)"
            )

    def __repr__(self) -> str:
        count = "1 pose" if len(self) == 1 else f"{len(self)} poses"
        lines = [f"{type(self).__name__}: {count}{self._title()}"]
        for name, keypoints, score, box in self._summary():
            lines.append(f"  {name}: {keypoints} keypoints score 0.3 or more, pose {score}, box [{box}]")
        if len(self) > _ROWS_SHOWN:
            lines.append(f"  ... and {len(self) - _ROWS_SHOWN} more")
        return "\n".join(lines)

    def _summary(self) -> Iterator[tuple[str, str, str, str]]:
        """Yields name, visible keypoints, score and box of the first instances."""
        for row in range(min(len(self), _ROWS_SHOWN)):
            pose = self[row]
            keypoints = f"{int(pose.visible().sum())} of {len(pose.skeleton)}"
            box = " ".join(f"{value:.0f}" for value in pose.boxes[0])
            yield self._name(row), keypoints, f"{pose.pose_scores[0]:.2f}", box

    def _has_file(self) -> bool:
        return self.path is not None and Path(self.path).is_file()

    def _repr_png_(self) -> bytes | None:
        """Returns the drawing for a notebook, or None if the image is not a file that can be read."""
        if not self._has_file():
            return None
        try:
            drawing = Image.fromarray(self.draw())
        except VitPoseError:  # the file was changed
            return None
        drawing.thumbnail((_NOTEBOOK_SIDE_PX, _NOTEBOOK_SIDE_PX))
        file = io.BytesIO()
        drawing.save(file, "PNG")
        return file.getvalue()

    def _repr_html_(self) -> str | None:
        """Returns a table for a notebook, or None if there is a drawing, which notebooks would not show beside it."""
        if self._has_file():
            return None
        rows = [("", "keypoints scoring 0.3 or more", "pose score", "box"), *self._summary()]
        cells = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
        title = html.escape(repr(self).splitlines()[0])
        return f"<p>{title}</p><table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
