"""Estimate poses on two photographs with the model that ships with vitpose; downloads nothing.

python examples/demo.py
"""

import json
from importlib import resources
from pathlib import Path

import vitpose

OUTPUT = Path("demo")
PHOTOGRAPHS = resources.files("skimage") / "data"  # in the public domain, installed with scikit-image


def main() -> None:
    """Draw the poses, write the keypoints, and print the paths of the files."""
    pipe = vitpose.load("vitpose-tiny", detector="whole-image")
    results = {}
    for name in ("astronaut", "camera"):
        image = vitpose.read_image(PHOTOGRAPHS / f"{name}.png")
        poses = pipe(image)
        drawn = OUTPUT / f"{name}.jpg"
        # The scores of the shipped model are low, hence the low threshold.
        vitpose.save_image(drawn, vitpose.draw(image, poses, threshold=0.2))
        results[drawn.name] = poses.to_dict()
        print(f"{drawn}\n{poses}")
    data = OUTPUT / "poses.json"
    data.write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(data)


if __name__ == "__main__":
    main()
