from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitpose.errors import ImageError
from vitpose.images import FORMATS, find_images, read_image, read_size, save_image


@pytest.fixture
def album(tmp_path: Path) -> Path:
    for name in (
        "b.jpg",
        "a.PNG",
        "sub/c.webp",
        "sub/deep/d.jpeg",
        ".hidden.jpg",
        ".cache/e.jpg",
        "notes.txt",
        "x.dat",
    ):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "album"


def names(found: list[str | Path], folder: Path) -> list[str]:
    return [Path(path).relative_to(folder).as_posix() for path in found]


def test_a_directory_gives_all_its_images_sorted(album: Path) -> None:
    assert names(find_images(album), album) == ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.jpeg"]
    assert find_images([str(album)]) == find_images(album)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["b.jpg"]),
        ("*", ["a.PNG", "b.jpg"]),
        ("[ab].*", ["a.PNG", "b.jpg"]),
        ("?.jpg", ["b.jpg"]),
        ("*.dat", ["x.dat"]),
        ("*/*", ["sub/c.webp"]),
        ("**/*.jp*g", ["b.jpg", "sub/deep/d.jpeg"]),
        ("**", ["a.PNG", "b.jpg", "sub/c.webp", "sub/deep/d.jpeg"]),
        ("sub/**/*.webp", ["sub/c.webp"]),
    ],
)
def test_globs(album: Path, pattern: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(find_images([f"{album}/{pattern}"]), album) == expected
    monkeypatch.chdir(album)
    assert find_images(pattern) == [Path(name) for name in expected]


def test_brackets_in_existing_names_are_not_wildcards(tmp_path: Path) -> None:
    folder = tmp_path / "summer [2020]"
    folder.mkdir()
    (folder / "a[1].jpg").touch()
    assert find_images(folder / "a[1].jpg") == [folder / "a[1].jpg"]
    assert find_images(folder / "*.jpg") == [folder / "a[1].jpg"]


def test_a_given_file_may_have_any_suffix(album: Path) -> None:
    assert find_images([album / "notes.txt", album / ".hidden.jpg"]) == [
        album / "notes.txt",
        album / ".hidden.jpg",
    ]


def test_order_duplicates_and_urls(album: Path) -> None:
    url = "https://example.org/a.jpg"
    sources = (source for source in [url, album / "sub/c.webp", album, url, f"{album}/sub/../b.jpg"])
    found = find_images(sources)
    assert found[0] == url
    assert names(found[1:], album) == ["sub/c.webp", "a.PNG", "b.jpg", "sub/deep/d.jpeg"]
    assert find_images([]) == []


def test_suffixes_of_images(tmp_path: Path) -> None:
    images = {
        "jpg",
        "jpeg",
        "jfif",
        "png",
        "webp",
        "avif",
        "tif",
        "tiff",
        "bmp",
        "gif",
        "ppm",
        "pgm",
        "jp2",
        "mpo",
    }
    others = {"eps", "pdf", "ico", "svg", "mp4", "txt", "psd", "h5"}
    for suffix in images | others:
        (tmp_path / f"a.{suffix}").touch()
    assert {Path(path).suffix[1:] for path in find_images(tmp_path)} == images
    assert "EPS" not in FORMATS


def test_a_missing_file_suggests_the_nearest_names(album: Path) -> None:
    (album / "IMG_0001.JPG").touch()
    (album / "dsc_42.jpg").touch()
    for function in (find_images, read_image):
        with pytest.raises(ImageError, match=r"img_0001\.jpeg does not exist; did you mean IMG_0001\.JPG\?"):
            function(album / "img_0001.jpeg")
        with pytest.raises(ImageError, match=r"DSC_42\.JPEG does not exist; did you mean dsc_42\.jpg"):
            function(album / "DSC_42.JPEG")
        with pytest.raises(ImageError, match=r"qqqqqqqq does not exist; check the path"):
            function(str(album / "qqqqqqqq"))
        with pytest.raises(
            ImageError, match=r"x\.jpg does not exist, nor does the directory .*nowhere; check the path"
        ):
            function(album / "nowhere" / "x.jpg")


def test_a_broken_link_does_not_suggest_itself(tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match=r"link\.jpg does not exist; check the path"):
        read_image(tmp_path / "link.jpg")


def test_a_directory_without_images_raises(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        ImageError, match=r"the directory .* and its subdirectories contain no images; .*\.jpg "
    ):
        find_images(tmp_path)


def test_a_glob_without_a_match_raises(album: Path) -> None:
    with pytest.raises(ImageError, match=r"no image matches .*\*\.gif; check the pattern, in which \*\*"):
        find_images([album / "*.gif"])
    with pytest.raises(ImageError, match=r"no image matches .*no\*; 1 other file does; check the pattern"):
        find_images([album / "no*"])


def test_names_that_are_too_long_raise(tmp_path: Path) -> None:
    for name in ("x" * 300, "*" * 300):
        with pytest.raises(ImageError, match=r"cannot be a path: File name too long"):
            find_images(tmp_path / name)
    with pytest.raises(ImageError, match=r"cannot be a path: File name too long"):
        read_image(tmp_path / ("x" * 300))
    with pytest.raises(ImageError, match="cannot be a path: embedded null byte"):
        read_image("a\0b")


def test_a_directory_that_cannot_be_listed_raises(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)  # permissions do not apply to root
    with pytest.raises(
        ImageError, match=r"album cannot be accessed: .*Permission denied.*check its name and perm"
    ):
        find_images(album)


def test_a_directory_is_not_an_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"is a directory; list its images with vitpose\.find_images"):
        read_image(tmp_path)


def test_values_that_are_not_paths_raise() -> None:
    class Path8:
        def __fspath__(self) -> bytes:
            return b"x"

    with pytest.raises(ImageError, match="the path is an empty string; give a file or a directory"):
        find_images([""])
    with pytest.raises(ImageError, match=r"'~nobody-here/x' cannot be a path: Could not determine home"):
        find_images("~nobody-here/x")
    with pytest.raises(ImageError, match=r"cannot be a path: .*bytes.*; pass a string or a pathlib.Path"):
        find_images(Path8())


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.sampled_from("ab.*?[]!-~\0 é/"), max_size=12))
def test_any_name_is_found_or_raises_image_error(name: str, album: Path) -> None:
    try:
        assert find_images(f"{album}/{name}")
    except ImageError as error:
        assert str(album) in str(error)  # noqa: PT017


# ------------------------------------------------------------------ errors of the operating system


@contextmanager
def without_privileges() -> Iterator[None]:
    """Drops the privileges of root in its block, so that permissions apply."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.fixture
def unlistable() -> Iterator[Path]:
    """Yields a directory that can be entered but not listed; not in `tmp_path`, which only its owner can enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o111)
    yield folder
    folder.rmdir()


@pytest.mark.skipif(sys.platform == "win32", reason="permissions differ on Windows")
def test_an_unlistable_directory_gives_no_suggestions(unlistable: Path) -> None:
    with without_privileges():
        for function in (read_image, find_images):
            with pytest.raises(ImageError, match=r"x\.jpg does not exist; check the path"):
                function(unlistable / "x.jpg")
        with pytest.raises(ImageError, match=r"cannot be accessed: .*Permission denied"):
            find_images(unlistable)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_an_unreadable_file_raises(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("/proc/self/mem")  # reading its first byte fails with EIO
    for function in (read_image, read_size):
        with pytest.raises(ImageError, match=r"a\.jpg cannot be read: .*Input/output error"):
            function(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "function", [read_image, read_size, find_images, lambda path: save_image(path, np.zeros((4, 4)))]
)
@pytest.mark.parametrize("name", ["x" * 5000 + ".png", "x/" * 2500 + "a.png", "a\0b.png"])
def test_names_that_no_file_can_have_raise(function: Callable[[str], Any], name: str) -> None:
    with pytest.raises(ImageError, match=r"cannot be a path: .*(too long|null)"):
        function(name)


@pytest.mark.skipif(sys.platform == "win32", reason="the current directory cannot be removed there")
@pytest.mark.parametrize("name", ["a.jpg", "*.jpg", "."])
def test_a_deleted_current_directory_raises(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ImageError):
        find_images(name)
    with pytest.raises(ImageError):
        read_image("a.jpg")
