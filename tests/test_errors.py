from __future__ import annotations

import pickle
import sys
from fractions import Fraction

import numpy as np
import pytest

from vitpose import errors
from vitpose.errors import (
    InputError,
    MissingDependencyError,
    UnknownNameError,
    VitPoseError,
    check_count,
    check_number,
    require,
)


@pytest.mark.parametrize(
    ("name", "also"),
    [
        ("InputError", ValueError),
        ("ImageError", errors.InputError),
        ("BoxError", errors.InputError),
        ("SkeletonError", errors.InputError),
        ("UnknownNameError", errors.InputError),
        ("VideoError", errors.InputError),
        ("WorkerError", RuntimeError),
        ("CheckpointError", ValueError),
        ("MissingDependencyError", ImportError),
    ],
)
def test_the_tree_is_as_drawn(name: str, also: type[Exception]) -> None:
    error = getattr(errors, name)
    assert issubclass(error, VitPoseError)
    assert issubclass(error, also)
    assert name in (errors.__doc__ or "")


def test_an_unknown_name_offers_the_nearest_and_lists_all() -> None:
    error = UnknownNameError("skeleton", "cocoo", ["mpii", "coco", "lsp"], "A path works too.")
    wanted = "unknown skeleton 'cocoo'; did you mean coco? known: coco, lsp, mpii. A path works too."
    assert str(error) == wanted


def test_an_unknown_name_like_no_other_offers_none() -> None:
    assert str(UnknownNameError("model", "zzz", ["a", "b"])) == "unknown model 'zzz'; known: a, b."


def test_several_near_names_are_offered() -> None:
    assert "did you mean left_eye or left_ear?" in str(
        UnknownNameError("keypoint", "left_ey", ["left_ear", "left_eye"])
    )


def test_an_unknown_name_survives_the_way_out_of_a_worker() -> None:
    error = UnknownNameError("skeleton", "cocoo", {"coco": 1}, "hint")
    copied = pickle.loads(pickle.dumps(error))
    assert isinstance(copied, UnknownNameError)
    assert str(copied) == str(error)


def test_require_returns_the_module() -> None:
    assert require("json.decoder", "x", "for a test").__name__ == "json.decoder"


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.part"])
def test_a_missing_package_says_how_to_install_it(module: str) -> None:
    wanted = rf"'{module}' is needed for tables; install it with: pip install 'vitpose\[tables\]'"
    with pytest.raises(MissingDependencyError, match=wanted):
        require(module, "tables", "for tables")


def test_a_missing_package_of_the_plain_installation() -> None:
    wanted = "'no_such_package' is needed to run; install it with: pip install vitpose$"
    with pytest.raises(MissingDependencyError, match=wanted):
        require("no_such_package", None, "to run")


def test_a_broken_package_is_not_called_missing(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is there but lacks one of its own needs must say so itself."""
    (tmp_path / "needy_package.py").write_text("import a_need_of_the_needy_package")  # type: ignore[operator]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ModuleNotFoundError, match="a_need_of_the_needy_package") as caught:
        require("needy_package", "x", "for a test")
    assert not isinstance(caught.value, VitPoseError)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.5, 10**400, True, "0.5", None])
def test_numbers_are_checked(value: object) -> None:
    with pytest.raises(InputError, match=r"^share .* must be a number from 0 to 1$"):
        check_number("share", value, 0, 1)
    for good in (0, 1, 0.5, np.float32(0.5), Fraction(1, 3)):
        check_number("share", good, 0, 1)


def test_numbers_without_bounds_are_finite() -> None:
    check_number("size", 10**400)
    with pytest.raises(InputError, match=r"^size nan must be a finite number$"):
        check_number("size", float("nan"))
    with pytest.raises(InputError, match=r"^size -1 must be a finite number from 0$"):
        check_number("size", -1, 0)


@pytest.mark.parametrize("value", [0, -1, 1.0, float("nan"), 10**400, True, "5", None])
def test_counts_are_checked(value: object) -> None:
    with pytest.raises(InputError, match=r"^every .* must be a whole number from 1 to 1000000$"):
        check_count("every", value)
    check_count("every", 1)
    check_count("every", np.int64(1_000_000))
