"""How the threads of runtimes wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vitpose
from vitpose.hardware.threads import wait_passively


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_the_environment_has_the_last_word(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")  # so that it is set back afterwards
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == expected


@pytest.mark.skipif(sys.platform != "linux", reason="torch ships another OpenMP there")
def test_torch_on_the_command_line_is_told(tmp_path: Path) -> None:
    """OpenMP itself says what it was told, when torch loads it; importing vitpose tells it nothing."""
    vitpose.save_image(tmp_path / "a.png", np.zeros((60, 50, 3), np.uint8))
    environment = {name: own for name, own in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment["OMP_DISPLAY_ENV"] = "VERBOSE"
    command = ["-m", "vitpose", "predict", str(tmp_path / "a.png"), "--detector", "whole-image", "--device", "cpu",
               "--save", "json", "--out", str(tmp_path / "out")]  # fmt: skip
    said = [
        subprocess.run(
            [sys.executable, *own], env=environment, capture_output=True, text=True, check=True
        ).stderr
        for own in (command, ["-c", "import vitpose.model.pose"])
    ]
    assert ["GOMP_SPINCOUNT = '0'" in own for own in said] == [True, False]
    assert all("GOMP_SPINCOUNT" in own for own in said)
