"""Run the commands and code of the README and the docs.

Blocks marked `no-test` require a network, other files or make and are skipped. Blocks marked `followed-by-a-test` are
run by a separate test of their page.
"""

from __future__ import annotations

import re
import shlex
from importlib import resources
from pathlib import Path

import av
import pytest
from PIL import Image
from typer.testing import CliRunner

from vitpose.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    skipped = ("no-test", "followed-by-a-test")
    return [text for kind, options, text in found if kind == language and options.strip() not in skipped]


def make_clip(path: Path, frames: Path) -> None:
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=10)
        video.width = video.height = 96
        for file in sorted(frames.iterdir()):
            with Image.open(file) as image:
                output.mux(video.encode(av.VideoFrame.from_image(image)))
        output.mux(video.encode())


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files that the pages use: person.jpg, clip.mp4, and the directories frames and photos.

    All of them are derived from a photograph in the public domain.
    """
    data = pytest.importorskip("skimage").__name__
    with Image.open(str(resources.files(data) / "data" / "astronaut.png")) as image:
        image.save(tmp_path / "person.jpg")
        for index in range(3):
            for name in ("frames", "photos"):
                (tmp_path / name).mkdir(exist_ok=True)
                image.resize((96, 96)).rotate(5 * index).save(tmp_path / name / f"{index}.jpg")
    make_clip(tmp_path / "clip.mp4", tmp_path / "frames")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_runs(page: Path, directory: Path) -> None:
    names: dict[str, object] = {}
    for text in blocks(page, "python"):
        exec(compile(text, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_run(page: Path, directory: Path) -> None:
    for text in blocks(page, "sh"):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words:
                continue
            assert words[0] == "vitpose", f"{page.name} has a command of another program: {line}"
            result = CliRunner().invoke(app, words[1:])
            assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name
)
def test_links_have_a_target(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), (
            f"{page.name} links to {target}, which does not exist"
        )


def test_the_tree_in_the_architecture_matches_the_files() -> None:
    """ARCHITECTURE.md names every module, and no others."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    tree = text.split("## The tree")[1].split("Two modules")[0]
    named = set(re.findall(r"(\w+)\.py", tree)) - {"__init__"}
    present = {path.stem for path in (ROOT / "src/vitpose").rglob("*.py")} - {"__init__", "__main__"}
    inside_cli = {path.stem for path in (ROOT / "src/vitpose/cli").glob("*.py")}
    assert named - present == set()
    assert present - named - inside_cli == set()
