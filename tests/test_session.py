"""Which of ONNX Runtime's providers a device is. Opening files is tested where it is used."""

from __future__ import annotations

import pytest

from vitpose.errors import InputError
from vitpose.session import choose_providers


class TestProviders:
    BOTH = ("CUDAExecutionProvider", "CPUExecutionProvider")

    def test_auto_takes_the_gpu_where_there_is_one(self):
        assert choose_providers("auto", self.BOTH)[0] == ("CUDAExecutionProvider", {"device_id": "0"})
        assert choose_providers("auto", self.BOTH[1:]) == ["CPUExecutionProvider"]

    def test_one_can_be_asked_for(self):
        assert choose_providers("cpu", self.BOTH) == ["CPUExecutionProvider"]
        assert choose_providers("cuda:1", self.BOTH)[0] == ("CUDAExecutionProvider", {"device_id": "1"})

    @pytest.mark.parametrize("device", ["tpu", "cuda:x", "auto:1", ""])
    def test_an_unknown_device(self, device: str):
        with pytest.raises(InputError, match=f"device '{device}' is not understood; .* cuda or cuda:N"):
            choose_providers(device, self.BOTH)

    def test_no_gpu(self):
        with pytest.raises(InputError, match="there is only CPUExecutionProvider; install onnxruntime-gpu"):
            choose_providers("cuda", self.BOTH[1:])
