"""ONNX Runtime's providers for a device. Opening files is tested with the engines and detectors."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from vitpose.errors import InputError
from vitpose.hardware.onnx_session import choose_providers, nearest_device, open_session


class TestProviders:
    BOTH = ("CUDAExecutionProvider", "CPUExecutionProvider")

    def test_auto_is_the_gpu_if_there_is_one(self):
        assert choose_providers("auto", self.BOTH)[0] == ("CUDAExecutionProvider", {"device_id": "0"})
        assert choose_providers("auto", self.BOTH[1:]) == ["CPUExecutionProvider"]

    def test_a_device_can_be_requested(self):
        assert choose_providers("cpu", self.BOTH) == ["CPUExecutionProvider"]
        assert choose_providers("cuda:1", self.BOTH)[0] == ("CUDAExecutionProvider", {"device_id": "1"})

    @pytest.mark.parametrize("device", ["tpu", "cuda:x", "auto:1", ""])
    def test_an_unknown_device(self, device: str):
        with pytest.raises(
            InputError, match=f"unknown device '{device}' for ONNX Runtime; use .* or 'cuda:N'"
        ):
            choose_providers(device, self.BOTH)

    def test_no_gpu(self):
        with pytest.raises(
            InputError, match="only CPUExecutionProvider is available; install onnxruntime-gpu"
        ):
            choose_providers("cuda", self.BOTH[1:])

    @pytest.mark.parametrize(
        ("device", "with_cuda", "without"),
        [
            ("cpu", "cpu", "cpu"),
            ("auto", "auto", "auto"),
            ("mps", "auto", "auto"),
            ("cuda", "cuda", "cpu"),
            ("cuda:1", "cuda:1", "cpu"),
            (1, "cuda:1", "cpu"),
        ],
    )
    def test_the_nearest_device_is_the_same_gpu_or_the_cpu(
        self, device: str | int, with_cuda: str, without: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        library = ModuleType("onnxruntime")
        monkeypatch.setitem(sys.modules, "onnxruntime", library)
        for available, expected in ((self.BOTH, with_cuda), (self.BOTH[1:], without)):
            library.get_available_providers = lambda providers=available: providers
            assert nearest_device("a.onnx", device) == expected

    def test_a_silent_fallback_to_the_cpu_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """ONNX Runtime runs on the CPU if the installation of CUDA is broken; "auto" accepts this."""
        session = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
        library = ModuleType("onnxruntime")
        library.get_available_providers = lambda: self.BOTH
        library.InferenceSession = lambda *_, **__: session
        library.SessionOptions = lambda: SimpleNamespace(add_session_config_entry=lambda *_: None)
        monkeypatch.setitem(sys.modules, "onnxruntime", library)
        (tmp_path / "a.onnx").touch()
        assert open_session(tmp_path / "a.onnx", "auto") is session
        with pytest.raises(InputError, match="fell back to the CPU although device 'cuda:0' was requested"):
            open_session(tmp_path / "a.onnx", "cuda:0")
