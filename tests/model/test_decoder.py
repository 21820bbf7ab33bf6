from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vitpose.model.decoder import SimpleDecoder


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_the_simple_decoder_is_exact_to_the_border(scale: int) -> None:
    """In double precision, so that rounding hides no error, and with nonzero features only at the border."""
    decoder = SimpleDecoder(6, 3, scale).double()
    features = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    features[:, :, 1:-1, 1:-1] = 0
    enlarged = F.interpolate(F.relu(features), scale_factor=scale, mode="bilinear", align_corners=False)
    expected = decoder.final_layer(enlarged)
    torch.testing.assert_close(decoder(features), expected, rtol=0, atol=1e-7 * expected.abs().max().item())
