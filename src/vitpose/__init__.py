"""ViTPose and ViTPose++: keypoint estimation for people and animals with plain vision transformers.

    import vitpose

    image = vitpose.samples.person()
    pipe = vitpose.load("vitpose-tiny")
    vitpose.draw(image, pipe(image))

Names are imported on first use, so `import vitpose` does not import torch; `__init__.pyi` lists them.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
