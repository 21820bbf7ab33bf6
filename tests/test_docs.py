"""Run the commands and code of the README and the docs, page by page and in their order.

The comment `<!-- not run: REASON -->` above a block skips it, `<!-- run by TEST -->` names the test that runs it.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

import vitpose

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"^(?:<!-- (?P<comment>[^\n]*) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL
)
REASONS = (
    "needs a network",
    "needs a GPU",
    "needs a camera",
    "needs a dataset",
    "takes an hour",
    "sets up an environment",
)


generate = ModuleType("generate")  # a script of mkdocs, outside of any package
exec((ROOT / "docs" / "generate.py").read_text(encoding="utf-8"), generate.__dict__)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


class Block(NamedTuple):
    """A fenced block of a page, and the comment above it."""

    comment: str | None
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*found.group(*Block._fields)) for found in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def commands(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            assert words[0] == "vitpose", f"a command of another program: {line}"
            yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_vitpose: Callable
) -> None:
    """In a directory with one photograph, that of the reader: a page creates the other files that it uses."""
    shutil.copy(vitpose.samples.person(), tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.comment is not None:
            continue
        if block.language == "python":
            exec(compile(block.text, str(page), "exec"), names)
        elif block.language == "sh":
            for words in commands(block.text):
                running = start_vitpose(words)
                assert running.wait() == 0, f"{words}\n{running.output}\n{running.errors}"
        elif block.text.startswith("# ") and block.language == "toml":
            Path(block.text.split()[1]).write_text(block.text, encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_that_do_not_run_have_a_reason(page: Path) -> None:
    """A word after the language, or a comment of another form, would hide a block from the test above."""
    assert page.read_text(encoding="utf-8").count("\n```") == 2 * len(blocks(page))
    for block in blocks(page):
        kind, _, rest = re.split(r"( by |: )", block.comment or "run by tests/test_docs.py", maxsplit=1)
        assert (rest in REASONS) if kind == "not run" else (ROOT / rest).is_file(), block.comment


@pytest.mark.parametrize(
    "page",
    [*PAGES, *(ROOT / f"{name}.md" for name in ("ARCHITECTURE", "CONTRIBUTING", "CHANGELOG"))],
    ids=name_of,
)
def test_links_have_a_target(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
        if "://" in target or (page.parent / target).resolve() in generated_pages():
            continue
        file = page.parent / target if target else page
        assert file.exists(), f"{name_of(page)} links to {target}, which does not exist"
        assert not anchor or anchor in anchors(file), f"{name_of(page)}: {target} has no heading #{anchor}"


@cache
def generated_pages() -> frozenset[Path]:
    return frozenset(ROOT / "docs" / path for path, _ in generate.generate_pages())


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as mkdocs and GitHub derive them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_reference_has_every_public_name_and_command() -> None:
    pages = dict(generate.generate_pages())
    text = "\n".join(pages.values()) + "\n"
    assert [name for name in vitpose.__all__ if f"::: vitpose.{name}\n" not in text] == []
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [path for path in pages if path not in navigation] == []
    for command in ("predict", "evaluate", "train", "models", "data check"):
        assert f"\n## vitpose {command}\n" in pages["reference/command-line.md"]
    assert "\n| `--flip-test` | Average with" in pages["reference/command-line.md"]


def test_the_tree_in_the_architecture_matches_the_files() -> None:
    """ARCHITECTURE.md names every module, and no others."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    tree = text.split("## The tree")[1].split("Two modules")[0]
    named = set(re.findall(r"(\w+)\.py", tree)) - {"__init__"}
    present = {path.stem for path in (ROOT / "src/vitpose").rglob("*.py")} - {"__init__", "__main__"}
    inside_cli = {path.stem for path in (ROOT / "src/vitpose/cli").glob("*.py")}
    assert named - present == set()
    assert present - named - inside_cli == set()
