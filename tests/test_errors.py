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
def test_the_tree_of_exceptions(name: str, also: type[Exception]) -> None:
    error = getattr(errors, name)
    assert issubclass(error, VitPoseError)
    assert issubclass(error, also)
    assert name in (errors.__doc__ or "")


def test_an_unknown_name_suggests_the_nearest_and_lists_all() -> None:
    error = UnknownNameError("skeleton", "cocoo", ["mpii", "coco", "lsp"], "A path works too.")
    message = "unknown skeleton 'cocoo'; did you mean coco? known: coco, lsp, mpii. A path works too."
    assert str(error) == message


def test_an_unknown_name_without_a_similar_one() -> None:
    assert str(UnknownNameError("model", "zzz", ["a", "b"])) == "unknown model 'zzz'; known: a, b."


def test_several_similar_names_are_suggested() -> None:
    assert "did you mean left_eye or left_ear?" in str(
        UnknownNameError("keypoint", "left_ey", ["left_ear", "left_eye"])
    )


def test_unknown_name_errors_can_be_pickled() -> None:
    error = UnknownNameError("skeleton", "cocoo", {"coco": 1}, "hint")
    copied = pickle.loads(pickle.dumps(error))
    assert isinstance(copied, UnknownNameError)
    assert str(copied) == str(error)


def test_require_returns_the_module() -> None:
    assert require("json.decoder", "x", "for a test").__name__ == "json.decoder"


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.part"])
def test_a_missing_package_raises_with_the_command_to_install_it(module: str) -> None:
    message = rf"'{module}' is required for tables; install it with: pip install 'vitpose\[tables\]'"
    with pytest.raises(MissingDependencyError, match=message):
        require(module, "tables", "for tables")


def test_a_missing_dependency_of_vitpose_itself() -> None:
    message = "'no_such_package' is required to run; install it with: pip install vitpose$"
    with pytest.raises(MissingDependencyError, match=message):
        require("no_such_package", None, "to run")


def test_a_missing_dependency_of_the_package_is_reported_as_such(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package.py").write_text("import missing_dependency")  # type: ignore[operator]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ModuleNotFoundError, match="missing_dependency") as caught:
        require("broken_package", "x", "for a test")
    assert not isinstance(caught.value, VitPoseError)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.5, 10**400, True, "0.5", None])
def test_check_number(value: object) -> None:
    with pytest.raises(InputError, match=r"^share .* must be a number from 0 to 1$"):
        check_number("share", value, 0, 1)
    for valid in (0, 1, 0.5, np.float32(0.5), Fraction(1, 3)):
        check_number("share", valid, 0, 1)


def test_check_number_without_bounds() -> None:
    check_number("size", 10**400)
    with pytest.raises(InputError, match=r"^size nan must be a finite number$"):
        check_number("size", float("nan"))
    with pytest.raises(InputError, match=r"^size -1 must be a finite number from 0$"):
        check_number("size", -1, 0)


@pytest.mark.parametrize("value", [0, -1, 1.0, float("nan"), 10**400, True, "5", None])
def test_check_count(value: object) -> None:
    with pytest.raises(InputError, match=r"^every .* must be a whole number from 1 to 1000000$"):
        check_count("every", value)
    check_count("every", 1)
    check_count("every", np.int64(1_000_000))
