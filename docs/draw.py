"""Draw the images of the README and the site with the model in the package: python docs/draw.py."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import vitpose

ASSETS = Path(__file__).parent / "assets"


def main() -> None:
    """Draw the sample images and the clip."""
    pipe = vitpose.load("vitpose-tiny", detector=f"boxes:{vitpose.samples.annotations()}", dtype="float32")
    for path in (vitpose.samples.person(), vitpose.samples.group()):
        vitpose.save_image(ASSETS / path.name, vitpose.draw(path, pipe(path)))
    pipe = vitpose.load("vitpose-tiny", detector="whole-image", dtype="float32")
    with pipe.stream(vitpose.samples.clip(), smooth=True) as stream:
        frames = [Image.fromarray(vitpose.draw(frame.image, frame.poses, ids=False)) for frame in stream]
    frames[0].save(
        ASSETS / "clip.webp",
        save_all=True,
        append_images=frames[1:],
        duration=100,
        loop=0,
        quality=70,
        method=6,
    )


if __name__ == "__main__":
    main()
