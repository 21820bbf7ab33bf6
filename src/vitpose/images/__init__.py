"""Reading and writing images as RGB uint8 (h w 3).

    decode     files, URLs, bytes, streams and PIL images -> RGB
    pillow     formats, memory limits and conversion of PIL images
    arrays     arrays and tensors -> RGB
    download   http(s) URLs -> bytes
    find       directories and globs -> paths
    write      arrays -> files

The only package that reads image files. It does not change Pillow's global settings (`LOAD_TRUNCATED_IMAGES`,
`MAX_IMAGE_PIXELS`).
"""

from .decode import read_image, read_size
from .find import find_images
from .pillow import FORMATS, MAX_PIXELS
from .write import save_image

__all__ = ["FORMATS", "MAX_PIXELS", "find_images", "read_image", "read_size", "save_image"]
