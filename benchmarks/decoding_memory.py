"""Measure the memory per pixel of decoding, by format and mode; source of the estimates in `vitpose.images.pillow`.

    python benchmarks/decoding_memory.py

Each image of 36 megapixels is decoded in a separate process (Linux). About 0.4 bytes per pixel of the result are
buffers of the process that do not grow with the image.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

SIDE = 6000
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("PNG", "L", {}),
    ("PNG", "RGB", {}),
    ("PNG", "RGBA", {}),
    ("PNG", "I;16", {}),
    ("JPEG", "RGB", {}),
    ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
    ("JPEG", "CMYK", {"progressive": True}),
    ("WEBP", "RGB", {}),
    ("AVIF", "RGB", {"speed": 10}),
    ("JPEG2000", "L", {}),
    ("JPEG2000", "RGB", {}),
    ("JPEG2000", "RGBA", {}),
    ("TIFF", "RGB", {"compression": "tiff_deflate"}),
    ("TIFF", "I", {}),
    ("TIFF", "F", {}),
]
DECODE = """
import sys
from vitpose.images import read_image
def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
pixels = read_image(sys.argv[1], max_pixels=10**9)
print((peak() - before) / (pixels.shape[0] * pixels.shape[1]))
"""


def measure(form: str, mode: str, options: dict[str, Any], directory: Path) -> float:
    path = directory / "image"
    Image.new(mode, (SIDE, SIDE)).save(path, form, **options)
    done = subprocess.run(
        [sys.executable, "-c", DECODE, str(path)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        for form, mode, options in CASES:
            per_pixel = measure(form, mode, options, Path(directory))
            print(f"{form:9} {mode:5} {per_pixel:5.1f} bytes per pixel  {options or ''}")


if __name__ == "__main__":
    main()
