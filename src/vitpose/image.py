"""Pictures in and out: anything -> RGB uint8 (h w 3), and back to a file.

The only module that reads image files, fetches pictures and looks for them in folders. It knows no
boxes, no crops and no networks, and it leaves Pillow's switches (`LOAD_TRUNCATED_IMAGES`,
`MAX_IMAGE_PIXELS`) as the program around it has set them.
"""

from __future__ import annotations

import difflib
import glob
import http.client
import io
import itertools
import os
import re
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import ExifTags, Image

from .boxes import Size
from .errors import ImageError, UnknownNameError

MAX_PIXELS = 200_000_000
"""Pictures of more pixels are refused unless the caller says otherwise. The largest sensors in phones
make photographs of 200 million (16320x12240); as RGB that is 0.6 GB, and about 1.4 GB while decoding."""

MAX_DOWNLOAD_BYTES = 256 * 1024**2
"""Downloads that are larger are refused: more than any JPEG of `MAX_PIXELS` takes."""

URL_TIMEOUT_S = 30.0
"""A server that says nothing for this long is given up."""

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "HEIF", "JPEG2000", "TIFF", "BMP", "GIF", "PPM")
"""What photographs are kept in, by Pillow's names; no other format is opened. HEIF needs a plugin such as
pillow-heif. Left out on purpose: icons, vector graphics, and formats that start other programs (EPS)."""

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    # No chroma subsampling: it would smear the thin coloured lines of drawn poses.
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".png": {"format": "PNG"},
    ".webp": {"format": "WEBP", "quality": 95},
    ".bmp": {"format": "BMP"},
    ".tif": {"format": "TIFF", "compression": "tiff_deflate"},
    ".tiff": {"format": "TIFF", "compression": "tiff_deflate"},
}

# EXIF 2.32, tag 0x0112: what has to be done to the stored pixels. 1 is upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# As `warnings.filterwarnings` stores it: action, message, category, module, line.
_PILLOW_IGNORED = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_JPEG_END = b"\xff\xd9"
_HALF_A_LEVEL = 0.5 / 255
_MAX_NAMES_COMPARED = 5000  # keeps the message about a missing file quick in a folder of any size


def read_image(source: Any, max_pixels: int = MAX_PIXELS) -> UInt8[np.ndarray, "h w 3"]:
    """Reads a picture from wherever it is and returns it as upright RGB.

    Args:
        source: One picture, as one of:

            - a path (`~` is expanded) or an `http(s)://` address;
            - the bytes of a picture file, or a binary file object (read from its start where it can
              be rewound, else from where it stands);
            - a PIL image (of several frames, the one it stands at);
            - an array or tensor: (h w), (h w 1), (h w 2) grey and alpha, (h w 3) RGB or (h w 4) RGBA,
              of uint8, of uint16 (scaled to 8 bit), of bool, or of floats in 0..1. Channels first,
              (1 h w) or (3 h w), are understood unless the last axis could be the channels too, in
              which case it is. The colours are taken as RGB: turn OpenCV's BGR first.
        max_pixels: The largest width x height that is decoded. A file is refused by its header,
            before its pixels cost memory. Arrays, already in memory, are not limited.

    Returns:
        The picture, C-contiguous, possibly read-only. An array that already has this form is
        returned itself. Files and PIL images are turned upright as their EXIF says. What is
        transparent shows white, as in most viewers. 16 bits become 8 by dropping the low ones,
        without stretching the contrast. An animation gives its first frame.

    Raises:
        ImageError: There is no such picture, it is damaged, cut off, too large, or of a form not
            listed here. The message names the source.
    """
    if isinstance(source, Image.Image):
        name = f"the PIL image ({source.mode}, {source.width}x{source.height})"
        with _pillow_contained(name):
            return _rgb_from_pillow(source, name, max_pixels)
    if hasattr(source, "cpu") or hasattr(source, "__array__"):
        array = _array_from(source)
        return _rgb_from_array(array, f"the array of shape {array.shape} and type {array.dtype}")
    file, name = _open(source)
    with file:
        return _decode(file, name, max_pixels)


def read_size(path: str | os.PathLike[str]) -> Size:
    """Returns the size of a picture file, upright, by its header alone.

    Raises:
        ImageError: There is no such picture, or its header is damaged.
    """
    file, name = _open(path)
    with file, _pillow_contained(name):
        opener = _find_opener(file.read(16), name)
        file.seek(0)
        image = opener(file, "")
        width, height = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # a quarter turn, mirrored or not
    return Size(height, width) if turned else Size(width, height)


def find_images(sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str | Path]:
    """Turns files, folders, globs and addresses into a list of pictures, each of which `read_image` takes.

    Args:
        sources: One or several of:

            - a file, taken whatever its suffix and even if its name looks like a glob (`a[1].jpg`);
            - a folder, which gives the pictures in it and in the folders under it, sorted; hidden
              files and folders (a leading dot) and links to folders are passed over. Pictures are
              told by the suffixes of `FORMATS`;
            - a glob (`*`, `?`, `[…]`, and `**` for any depth), which gives the files it matches,
              sorted: the pictures among them, or all if it spells out a suffix (`*.dat`);
            - an `http(s)://` address, which is passed on.

    Returns:
        Addresses as text and files as paths, in the order of `sources`, each only once.

    Raises:
        ImageError: A file does not exist, a folder holds no pictures or cannot be listed, or a glob
            matches none.
    """
    several = isinstance(sources, Iterable) and not isinstance(sources, (str, os.PathLike))
    found: dict[str, str | Path] = {}
    for source in cast("Iterable[Any]", sources if several else [sources]):
        if isinstance(source, str) and _is_url(source):
            found.setdefault(source, source)
            continue
        for path in _find_files(_path_from(source)):
            found.setdefault(os.path.normpath(path.absolute()), path)
    return list(found.values())


def save_image(path: str | os.PathLike[str], image: Any) -> None:
    """Writes a picture in the format of the path's suffix, and makes the folders that are missing.

    Args:
        path: Where to; .jpg, .jpeg (quality 95, full colour resolution), .png, .webp (quality 95),
            .bmp, .tif or .tiff.
        image: RGB uint8 (h w 3), or any other array that `read_image` takes.

    Raises:
        UnknownNameError: The suffix is not one of these.
        ImageError: The array is no picture, or the file cannot be written.
    """
    path = _path_from(path)
    if path.suffix.lower() not in _SAVE_OPTIONS:
        hint = f"Give {path} one of these to say in which format it shall be written."
        raise UnknownNameError("picture suffix", path.suffix, _SAVE_OPTIONS, hint)
    pixels = Image.fromarray(read_image(image))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels.save(path, **_SAVE_OPTIONS[path.suffix.lower()])
    except (OSError, ValueError) as error:
        raise ImageError(
            f"{path} cannot be written: {error}; choose another place, or another format if the "
            f"picture of {pixels.width}x{pixels.height} is too large for this one"
        ) from error


def _path_from(source: Any) -> Path:
    if source == "":  # which pathlib would take for the current folder
        raise ImageError("the path is an empty text; name a file or a folder ('.' is the current one)")
    try:
        return Path(source).expanduser()
    except (TypeError, RuntimeError) as error:
        raise ImageError(
            f"{source!r:.200} cannot be a path: {error}; pass a text or a pathlib.Path"
        ) from error


def _is_url(source: Any) -> bool:
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def _open(source: Any) -> tuple[io.BufferedIOBase, str]:
    """Returns a file to decode, seekable and at its start, and how messages shall call it."""
    if _is_url(source):
        return io.BytesIO(_download(source)), source
    if isinstance(source, (str, os.PathLike)):
        path = _path_from(source)
        return _open_path(path), str(path)
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        return io.BytesIO(data), f"the bytes object of {len(data)} bytes"
    if hasattr(source, "read"):
        name = f"the file object {getattr(source, 'name', None) or type(source).__name__}"
        return io.BytesIO(_bytes_from_file_object(source, name)), name
    raise ImageError(
        f"{source!r:.200} of type {type(source).__name__} is not a picture; pass one path, http(s) address, "
        "bytes object, binary file object, PIL image, array or tensor at a time"
    )


def _open_path(path: Path) -> io.BufferedIOBase:
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise _missing(path) from error
    except IsADirectoryError as error:
        raise ImageError(f"{path} is a folder; vitpose.find_images lists the pictures in it") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} cannot be opened: {error}; check its name and permissions") from error
    if file.seekable():
        return file
    with file:  # a pipe, such as /dev/stdin
        return io.BytesIO(file.read())


def _bytes_from_file_object(file: Any, name: str) -> bytes:
    try:
        if getattr(file, "seekable", lambda: False)():
            file.seek(0)
        data = file.read()
    except (OSError, ValueError) as error:
        raise ImageError(f"{name} cannot be read: {error}; pass one that is open for reading") from error
    if not isinstance(data, bytes):
        raise ImageError(
            f"{name} gives {type(data).__name__}, not bytes; open the file in binary mode: open(path, 'rb')"
        )
    return data


def _missing(path: Path) -> ImageError:
    """Says that a file does not exist and which names in its folder are nearest."""
    if not path.parent.is_dir():
        return ImageError(f"{path} does not exist, nor does the folder {path.parent}; check the path")
    entries = itertools.islice(path.parent.iterdir(), _MAX_NAMES_COMPARED)
    names = {entry.name.casefold(): entry.name for entry in entries if entry.name != path.name}
    near = difflib.get_close_matches(path.name.casefold(), names, n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(names[name] for name in near)}?" if near else "check the path"
    return ImageError(f"{path} does not exist; {advice}")


def _download(url: str) -> bytes:
    # Addresses are often pasted with spaces and accents; what is already escaped stays as it is.
    quoted = urllib.parse.quote(url, safe="%/:=&?~#+!$,;'@()*[]")
    try:
        request = urllib.request.Request(quoted, headers={"User-Agent": "vitpose"})
        with urllib.request.urlopen(request, timeout=URL_TIMEOUT_S) as reply:
            announced = int(reply.headers.get("Content-Length", 0))
            data = reply.read(MAX_DOWNLOAD_BYTES + 1) if announced <= MAX_DOWNLOAD_BYTES else b""
    except urllib.error.HTTPError as error:
        error.close()
        raise ImageError(f"{url} cannot be fetched: the server answers {error}; check the address") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ImageError(f"{url} cannot be fetched: {reason}; check the address and the network") from error
    if max(announced, len(data)) > MAX_DOWNLOAD_BYTES:
        raise ImageError(
            f"{url} is larger than the limit of {MAX_DOWNLOAD_BYTES} bytes for downloads; "
            "fetch it yourself and pass the file"
        )
    if len(data) < announced:
        raise ImageError(f"{url} broke off after {len(data)} of {announced} bytes; try again")
    return data


def _decode(file: io.BufferedIOBase, name: str, max_pixels: int) -> UInt8[np.ndarray, "h w 3"]:
    start = file.read(16)
    if not start:
        raise ImageError(f"{name} is empty; fetch or save the picture again")
    with _pillow_contained(name):
        opener = _find_opener(start, name)
        file.seek(0)
        image = opener(file, "")
        if image.format in ("JPEG", "JPEG2000"):
            _refuse_without_end(file, name)
        return _rgb_from_pillow(image, name, max_pixels)


def _find_opener(start: bytes, name: str) -> Callable[[io.BufferedIOBase, str], Image.Image]:
    """Finds the plugin for a file that begins with these bytes.

    `PIL.Image.open` does this too, but refuses large pictures by a limit for the whole program, which
    could not be raised for one call, and before the size is known for the message.
    """
    Image.init()
    for opener, accept in (Image.OPEN[key] for key in FORMATS if key in Image.OPEN):
        accepted = accept(start) if accept else False
        if isinstance(accepted, str):  # the plugin knows the format and lacks the library to read it
            raise ImageError(f"{name} cannot be read: {accepted}; save the picture as JPEG or PNG")
        if accepted:
            return cast("Callable[[io.BufferedIOBase, str], Image.Image]", opener)
    raise ImageError(
        f"{name} is not a picture: it begins with {start!r}, and pictures must be one of {', '.join(FORMATS)}"
    )


def _refuse_without_end(file: io.BufferedIOBase, name: str) -> None:
    """Refuses a JPEG without the marker that ends it.

    Pillow notices a file that stops early, but not one whose tail was never written and reads as zeros:
    there it returns half a picture and a grey rest. In the data of a scan the marker cannot occur.
    """
    if _JPEG_END not in file.read():
        raise ImageError(f"{name} is cut off: its last part is missing or was never written; fetch it again")


@contextmanager
def _pillow_contained(name: str) -> Iterator[None]:
    """Turns whatever Pillow raises into ImageError, and its warnings (odd metadata) into nothing."""
    # Not `warnings.catch_warnings`: it puts back what it found, so with several threads the filter of one
    # could stay in place for ever. Each reader adds an entry of its own and takes that away again.
    filters = cast("list[Any]", warnings.filters)
    filters.insert(0, _PILLOW_IGNORED)
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name} is refused by Pillow's own limit: {error} If you trust it, raise that limit, "
            "PIL.Image.MAX_IMAGE_PIXELS, in your program"
        ) from error
    except Exception as error:  # plugins raise almost anything on damaged files
        raise ImageError(
            f"{name} cannot be read: {error or type(error).__name__}; if it is damaged or cut off fetch it "
            "again, otherwise save it as an RGB picture in JPEG or PNG"
        ) from error
    finally:
        with suppress(ValueError):  # another thread reset all filters meanwhile
            filters.remove(_PILLOW_IGNORED)


def _rgb_from_pillow(image: Image.Image, name: str, max_pixels: int) -> UInt8[np.ndarray, "h w 3"]:
    pixels = image.width * image.height
    if not pixels:
        raise ImageError(f"{name} has no pixels; it needs a width and a height of at least 1")
    if pixels > max_pixels:
        raise ImageError(
            f"{name} is {image.width}x{image.height}, {pixels} pixels, and the limit is {max_pixels}; "
            f"make it smaller, or pass max_pixels={pixels} if you trust it"
        )
    image.load()
    image = _turn_upright(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _rgb_from_array(_sixteen_bit(np.asarray(image), name), name)
    return np.asarray(_flatten(image))


def _turn_upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged metadata, of which there is no end, must not lose the picture
        return image
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _sixteen_bit(levels: Shaped[np.ndarray, "h w"], name: str) -> Shaped[np.ndarray, "h w"]:
    """Takes Pillow's 32-bit integers for the 16-bit levels that they hold in PNG, PGM and TIFF files."""
    if levels.dtype != np.int32:
        return levels
    if levels.min() < 0 or levels.max() > 65535:
        raise ImageError(
            f"{name} holds integers from {levels.min()} to {levels.max()}, and grey levels must lie in "
            "0..65535; scale it and save it with 8 or 16 bits"
        )
    return levels.astype(np.uint16)


def _flatten(image: Image.Image) -> Image.Image:
    """Returns RGB, with what is transparent shown on white."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def _array_from(source: Any) -> np.ndarray:
    try:
        return np.asarray(source.detach().cpu().numpy() if hasattr(source, "cpu") else source)
    except Exception as error:  # every array library has its own
        raise ImageError(
            f"the {type(source).__name__} cannot be read as an array: {error}; convert it to uint8 first"
        ) from error


def _rgb_from_array(array: np.ndarray, name: str) -> UInt8[np.ndarray, "h w 3"]:
    levels = _eight_bit(_channels_last(array, name), name)
    channels = levels.shape[2]
    if channels == 1:
        return np.repeat(levels, 3, axis=2)
    if channels == 3:
        return np.ascontiguousarray(levels)
    with _pillow_contained(name):
        return np.asarray(_flatten(Image.fromarray(levels)))


def _channels_last(array: np.ndarray, name: str) -> Shaped[np.ndarray, "h w c"]:
    if array.ndim == 4:
        raise ImageError(f"{name} has four axes, like a batch; pass one picture at a time")
    if array.ndim not in (2, 3):
        raise ImageError(f"{name} is not a picture; it needs the axes (h w) or (h w 3)")
    if not array.size:
        raise ImageError(f"{name} has no pixels; it needs a width and a height of at least 1")
    if array.ndim == 2:
        return array[:, :, None]
    if array.shape[2] <= 4:
        return array
    if array.shape[0] in (1, 3):
        return np.moveaxis(array, 0, 2)
    raise ImageError(
        f"{name} has no axis that is clearly the channels; pass (h w 3), or one picture at a time of a batch"
    )


def _eight_bit(array: np.ndarray, name: str) -> UInt8[np.ndarray, "h w c"]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return (array >> 8).astype(np.uint8)
    if array.dtype.kind != "f":
        raise ImageError(
            f"{name} has an unsuitable type; pass uint8, uint16, bool or floats in 0..1 "
            "(levels 0..255 of another type: image.astype('uint8'))"
        )
    low, high = array.min(), array.max()
    # Written so that NaN fails too. Half a level of overshoot is what rounding leaves behind.
    if not (low >= -_HALF_A_LEVEL and high <= 1 + _HALF_A_LEVEL):
        raise ImageError(
            f"{name} has values from {low:.6g} to {high:.6g}, and floats must lie in 0..1; divide levels "
            "0..255 by 255, and undo a normalisation first"
        )
    return np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)


def _find_files(path: Path) -> list[Path]:
    try:
        if path.is_dir():
            return _pictures_under(path)
        if path.exists():
            return [path]
        if any(sign in str(path) for sign in "*?["):
            return _pictures_matching(path)
        raise _missing(path)
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} cannot be looked up: {error}; check its name and permissions") from error


def _picture_suffixes() -> set[str]:
    return {suffix for suffix, key in Image.registered_extensions().items() if key in FORMATS}


def _pictures_under(folder: Path) -> list[Path]:
    suffixes, found = _picture_suffixes(), []
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        visible = (Path(place, name) for name in names if not name.startswith("."))
        found += [path for path in visible if path.suffix.lower() in suffixes]
    if not found:
        raise ImageError(
            f"the folder {folder} holds no pictures, nor do the folders in it; pictures are told by their "
            f"suffix: {' '.join(sorted(suffixes))}"
        )
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _pictures_matching(pattern: Path) -> list[Path]:
    # From the deepest folder that exists, so that brackets in the names of folders mean themselves.
    base = next(folder for folder in pattern.parents if folder.is_dir())
    names = glob.glob(str(pattern.relative_to(base)), root_dir=base, recursive=True)  # noqa: PTH207 (skips hidden)
    matches = [base / name for name in names if (base / name).is_file()]
    suffix, suffixes = pattern.suffix, _picture_suffixes()
    spelt_out = suffix and not any(sign in suffix for sign in "*?[")
    found = [path for path in matches if spelt_out or path.suffix.lower() in suffixes]
    if not found:
        others = f"; {len(matches)} other files do" if matches else ""
        raise ImageError(
            f"no picture matches {pattern}{others}; check the pattern, in which ** stands for any depth"
        )
    return sorted(found)
