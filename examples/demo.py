"""Poses in two photographs with the model that ships inside vitpose: nothing is downloaded.

python examples/demo.py
"""

import json
from importlib import resources
from pathlib import Path

import vitpose

FOLDER = Path("demo")
PHOTOGRAPHS = resources.files("skimage") / "data"  # in the public domain; they come with scikit-image


def main() -> None:
    """Draws the poses, writes the keypoints, and says where."""
    pipe = vitpose.load("vitpose-tiny", detector="whole-image")
    results = {}
    for name in ("astronaut", "camera"):
        image = vitpose.read_image(PHOTOGRAPHS / f"{name}.png")
        poses = pipe(image)
        drawn = FOLDER / f"{name}.jpg"
        vitpose.save_image(
            drawn, vitpose.draw(image, poses, threshold=0.2)
        )  # the shipped model is seldom sure
        results[drawn.name] = poses.to_dict()
        print(f"{drawn}\n{poses}")
    data = FOLDER / "poses.json"
    data.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(data)


if __name__ == "__main__":
    main()
