"""Images in and out: anything -> RGB uint8 (h w 3), and back to a file.

    decode     files, bytes, streams and PIL images; what may be decoded at all
    arrays     arrays and tensors of any type
    download   http(s) URLs
    find       directories and globs -> paths
    write      arrays -> files

The only package that reads image files. It knows no boxes, no crops and no networks, and it leaves Pillow's switches
(`LOAD_TRUNCATED_IMAGES`, `MAX_IMAGE_PIXELS`) as the program around it has set them.
"""

from .decode import read_image, read_size
from .find import find_images
from .pillow import FORMATS, MAX_PIXELS
from .write import save_image

__all__ = ["FORMATS", "MAX_PIXELS", "find_images", "read_image", "read_size", "save_image"]
