"""Draw the images of the README and the site, and execute the notebook.

python docs/draw.py, with the extra `docs`.
"""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

import vitpose

ASSETS = Path(__file__).parent / "assets"
NOTEBOOK = Path(__file__).parents[1] / "examples" / "quickstart.ipynb"


def main() -> None:
    """Draw the sample images and the clip, and execute the notebook."""
    pipe = vitpose.load("vitpose-tiny", dtype="float32")
    for path in (vitpose.samples.person(), vitpose.samples.group()):
        pipe(path).save(ASSETS / path.name)
    with pipe.stream(vitpose.samples.clip(), smooth=True) as stream:
        frames = [Image.fromarray(vitpose.draw(frame.image, frame.poses, ids=False)) for frame in stream]
    options = {"duration": 100, "loop": 0, "quality": 70, "method": 6}
    frames[0].save(ASSETS / "clip.webp", save_all=True, append_images=frames[1:], **options)
    execute_notebook()


def execute_notebook() -> None:
    """Execute the notebook and keep its outputs: of images in two formats only the smaller one, and no times."""
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # a progress bar without ipywidgets
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, record_timing=False).execute()
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if "image/jpeg" in output.get("data", {}):
            del output["data"]["image/png"]
    notebook.metadata.pop("language_info")
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
