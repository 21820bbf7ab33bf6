"""Estimate and draw the poses in the sample images and clip with the model that ships with vitpose; downloads nothing.

python examples/demo.py
"""

import importlib.util
from importlib import resources
from pathlib import Path

import vitpose

OUTPUT = Path("demo")


def main() -> None:
    """Draw the poses, write the keypoints, and print the paths of the files."""
    pipe = vitpose.load("vitpose-tiny")
    paths = [vitpose.samples.person(), vitpose.samples.group()]
    if importlib.util.find_spec("skimage"):  # a photograph in the public domain, installed with scikit-image
        paths.append(Path(str(resources.files("skimage"))) / "data" / "astronaut.png")
    for path in paths:
        poses = pipe(path)
        drawn = OUTPUT / f"{path.stem}.jpg"
        poses.save(drawn)
        drawn.with_suffix(".json").write_text(poses.to_json(indent=1), encoding="utf-8")
        print(f"{drawn}\n{poses}")
    if importlib.util.find_spec("av"):
        print(draw_clip(pipe))


def draw_clip(pipe: vitpose.Pipeline) -> Path:
    """Draw the poses in every frame of the sample clip."""
    from vitpose.video.writing import VideoWriter

    drawn = OUTPUT / "clip.mp4"
    with (
        pipe.stream(vitpose.samples.clip(), track=False) as frames,
        VideoWriter(drawn, frames.reader) as writer,
    ):
        for frame in frames:
            writer.add(frame.poses.draw(frame.image), frame.time_s)
    return drawn


if __name__ == "__main__":
    main()
