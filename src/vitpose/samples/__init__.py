"""Two photographs and a clip of people in the package, for examples that run without a download.

    pipe = vitpose.load("vitpose-tiny", detector="whole-image")
    poses = pipe(vitpose.samples.person())

Sample videos by Intel Corporation, CC BY 4.0; the frames and the cut were changed, see README.md beside them.
"""

from pathlib import Path

_DIRECTORY = Path(__file__).parent


def person() -> Path:
    """Returns the path of a JPEG of one person, 332 x 432 px."""
    return _DIRECTORY / "person.jpg"


def group() -> Path:
    """Returns the path of a JPEG of two people, 624 x 582 px."""
    return _DIRECTORY / "group.jpg"


def clip() -> Path:
    """Returns the path of an MP4 of one person who turns and walks, 448 x 432 px, 22 frames at 10 per second."""
    return _DIRECTORY / "clip.mp4"


def annotations() -> Path:
    """Returns the path of a COCO file with the boxes and keypoints of the people in `person()` and `group()`."""
    return _DIRECTORY / "annotations.json"
