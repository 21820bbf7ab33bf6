"""How OpenMP's threads wait."""

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
def test_the_environment_takes_precedence(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")  # restored after the test
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == expected


@pytest.mark.skipif(sys.platform != "linux", reason="torch uses another OpenMP there")
def test_the_command_line_sets_passive_waiting_for_torch(tmp_path: Path) -> None:
    """OpenMP prints its settings when torch loads it; importing vitpose does not change them."""
    vitpose.save_image(tmp_path / "a.png", np.zeros((60, 50, 3), np.uint8))
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment["OMP_DISPLAY_ENV"] = "VERBOSE"
    command = ["-m", "vitpose", "predict", str(tmp_path / "a.png"), "--detector", "whole-image", "--device", "cpu",
               "--save", "json", "--out", str(tmp_path / "out")]  # fmt: skip
    outputs = [
        subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=True
        ).stderr
        for arguments in (command, ["-c", "import vitpose.model.pose"])
    ]
    assert ["GOMP_SPINCOUNT = '0'" in output for output in outputs] == [True, False]
    assert all("GOMP_SPINCOUNT" in output for output in outputs)
