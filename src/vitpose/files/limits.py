"""Limits on the size of a network and its input, so that a file cannot exhaust memory or time.

They are far above the sizes of published vision transformers; a file beyond them is damaged or malicious. For
comparison: ViTPose-G has 40 layers of width 1408 and 1 billion parameters, ViT-22B (Dehghani et al., ICML 2023) has
48 layers of width 6144.
"""

from __future__ import annotations

MAX_LAYERS = 256
MAX_WIDTH = 16_384
MAX_MLP_RATIO = 64
MAX_EXPERTS = 256

MAX_PARAMETERS = 10_000_000_000
"""Parameters of a backbone: ten times ViTPose-G, 40 GB in float32. Limits the product of the sizes above."""

MAX_KEYPOINTS = 10_000
"""Keypoints of all heads; the largest published skeletons have a few hundred, a body mesh 6,890 vertices."""

MAX_INPUT_SIDE_PX = 4096
"""Height and width of the input; ViTPose was trained with 768 at most. One such crop takes 200 MB in float32."""

MAX_PATCHES = 16_384
"""Patches of an input: 2048x2048 pixels in patches of 16. Attention over more takes gigabytes for each head."""

MAX_CHANNELS = 256
MAX_SCALE_FACTOR = 32
