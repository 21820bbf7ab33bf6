"""Text on images, with the fonts of OpenCV 5 or of OpenCV 4."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

from .palette import Colour

IMAGE_PER_TEXT, FONT_WEIGHT = 45, 500
"""Ratio of the image's short side to the height of text; weight of the font, 100 to 1000."""
HAS_FONTS = hasattr(cv2, "FontFace")
"""OpenCV 5 renders Unicode; OpenCV 4 has a stroke font of ASCII characters and renders others as "?"."""


def text_height(canvas: UInt8[np.ndarray, "h w 3"]) -> int:
    """Returns the height of text on an image, px."""
    return int(np.clip(min(canvas.shape[:2]) / IMAGE_PER_TEXT, 10, 96))


def text_width(text: str, height: int) -> int:
    """Returns the width of text of a height, both px."""
    if not HAS_FONTS:
        return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, _stroke_scale(height), 1)[0][0])
    return int(cv2.getTextSize((0, 0), text, (0, 0), cv2.FontFace("sans"), height, FONT_WEIGHT)[2])


def write_text(canvas: UInt8[np.ndarray, "h w 3"], text: str, left: int, top: int, colour: Colour) -> None:
    """Writes text on an image in place, with its top left corner at (left, top) px."""
    height = text_height(canvas)
    corner = left, top + round(0.85 * height)
    if HAS_FONTS:
        cv2.putText(canvas, text, corner, colour, cv2.FontFace("sans"), height, FONT_WEIGHT)
    else:
        font, scale = cv2.FONT_HERSHEY_SIMPLEX, _stroke_scale(height)
        cv2.putText(canvas, text, corner, font, scale, colour, 1, cv2.LINE_AA)


def _stroke_scale(height: int) -> float:
    """Returns the scale of the stroke font of OpenCV 4 for text of this height in pixels."""
    return cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_SIMPLEX, round(0.7 * height), 1)
