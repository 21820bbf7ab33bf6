"""Memory for decoding, measured in subprocesses with a limit on their memory."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from vitpose.errors import ImageError
from vitpose.images import decode as module
from vitpose.images import read_image
from vitpose.images.pillow import BYTES_PER_PIXEL

SIDE = 3000
SLACK = 24 * 2**20
"""Memory of a decoder that does not depend on the size of the image: buffers, threads, strips."""

DECODE = """
import resource, sys
from vitpose.images import read_image
path, small, pixels, allowed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
read_image(small)  # loads the libraries
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + allowed, now + allowed))
print(read_image(path, max_pixels=pixels).shape)
"""


def write(path: Path, form: str, mode: str, side: int, **options: Any) -> Path:
    image = Image.new(mode, (side, side))
    if mode == "P":
        image.putpalette(bytes(range(256)) * 3)
    if options.pop("turned", False):
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    image.save(path, form, **options)
    return path


def decode_within(folder: Path, allowed: int, form: str, mode: str, **options: Any) -> str:
    """Decodes a large image in `allowed` bytes of memory and returns the output of the process."""
    files = [
        write(folder / name, form, mode, side, **options) for name, side in (("big", SIDE), ("small", 8))
    ]
    command = [sys.executable, "-c", DECODE, *map(str, files), str(SIDE**2), str(allowed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited and measured by means of Linux")
@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        ("PNG", "RGBA", {}),
        ("PNG", "P", {"transparency": 3}),
        ("PNG", "I;16", {}),
        ("PNG", "RGB", {"turned": True}),
        ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
        ("TIFF", "RGBA", {"compression": "tiff_lzw"}),
    ],
)
def test_decoding_stays_within_the_limit(
    form: str, mode: str, options: dict[str, Any], tmp_path: Path
) -> None:
    allowed = BYTES_PER_PIXEL * SIDE**2 + SLACK
    assert decode_within(tmp_path, allowed, form, mode, **options) == f"({SIDE}, {SIDE}, 3)"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited and measured by means of Linux")
@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [("JPEG2000", "RGBA", {}), ("AVIF", "RGB", {"speed": 10}), ("TIFF", "F", {}), ("TIFF", "I", {})],
)
def test_images_beyond_the_limit_raise_before_decoding(
    form: str, mode: str, options: dict[str, Any], tmp_path: Path
) -> None:
    output = decode_within(tmp_path, SLACK, form, mode, **options)
    assert (
        f"bytes to decode {form} of mode {mode}; the limit is {BYTES_PER_PIXEL * SIDE**2}. Resize it"
        in output
    )
    enough = int(output.partition("pass max_pixels=")[2].split()[0])
    assert read_image(tmp_path / "big", max_pixels=enough).shape == (SIDE, SIDE, 3)


def test_a_small_image_in_an_enormous_tile_raises(tmp_path: Path) -> None:
    tags = {256: 1, 257: 1, 258: 8, 259: 8, 262: 1, 277: 1, 322: 60_000, 323: 60_000, 324: 8, 325: 8}
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    file = b"II*\0" + struct.pack("<I", 16) + bytes(8) + struct.pack("<H", len(tags)) + rows + bytes(4)
    assert set(tags) >= {TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH}
    with pytest.raises(
        ImageError, match=r"of 1x1 pixels requires about 3600000001 bytes to decode TIFF of mode L"
    ):
        read_image(file)


@pytest.mark.parametrize("block", [1, 7, 2**20])
def test_the_end_of_a_jpeg_is_found_across_blocks(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", block)
    data = write(tmp_path / "a.jpg", "JPEG", "RGB", 16).read_bytes()
    assert read_image(data).shape == (16, 16, 3)
    with pytest.raises(ImageError, match="is truncated: it has no end marker"):
        read_image(data[:-2])


class Endless:
    """A stream that never ends."""

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "the size of each read must be limited"
        return bytes(size)


def test_a_stream_that_is_too_large_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_DOWNLOAD_BYTES", 1000)
    message = (
        "file object Endless is larger than the limit of 1000 bytes for streams; pass the path of a file"
    )
    with pytest.raises(ImageError, match=message):
        read_image(Endless())


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_images_are_writable(mode: str, turned: bool, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tiff", "TIFF", mode, 8, turned=turned)
    for source in (path, path.read_bytes(), Image.open(path)):
        image = read_image(source)
        image += 1
        assert image.flags.c_contiguous


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 2), (4, 5, 3), (4, 5, 4), (3, 8, 8)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "bool", "float32"])
def test_read_only_arrays_are_copied(shape: tuple[int, ...], dtype: str) -> None:
    array = np.zeros(shape, dtype)
    array.flags.writeable = False
    read_image(array)[:] = 7
    assert not array.any()
