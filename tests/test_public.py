"""The public names, and the modules that importing loads."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vitpose


def test_every_public_name_has_a_docstring() -> None:
    for name in vitpose.__all__:
        assert getattr(vitpose, name).__doc__
    assert set(vitpose.__all__) <= set(dir(vitpose))


def test_an_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="No vitpose attribute nothing"):
        vitpose.nothing  # noqa: B018


def test_importing_does_not_load_large_packages() -> None:
    code = "import sys, vitpose; print(*(m for m in ('torch', 'transformers', 'cv2', 'PIL') if m in sys.modules))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == ""
    )


def test_functions_are_not_replaced_by_modules() -> None:
    """`vitpose.draw` is the function even after its module was imported directly."""
    modules = "vitpose.results.drawing, vitpose.inference.loading, vitpose.exporters.export"
    code = f"import vitpose, {modules}; print(*map(callable, (vitpose.draw, vitpose.load, vitpose.export)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "True", "True"]


def test_inference_does_not_import_transformers() -> None:
    code = (
        "import sys, numpy as np, vitpose\n"
        "pipe = vitpose.load('vitpose-tiny', detector=None, device='cpu')\n"
        "pipe(np.zeros((40, 40, 3), np.uint8), boxes=[[5, 5, 30, 30]])\n"
        "print('transformers' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "False"
    )
