"""KeepTermination: the program's handler of SIGTERM stays in force during training."""

from __future__ import annotations

import signal
from typing import Any

from ..errors import require

require("lightning", "train", "for training")
import lightning as L  # noqa: E402


class KeepTermination(L.Callback):
    """Set the handler of SIGTERM again that Lightning replaces when it starts.

    With several processes Lightning's handler calls a collective inside the signal handler, out of order with those of
    the step, and all processes then wait for ever (Lightning 2.6). Without a handler, Lightning's stays.
    """

    def __init__(self) -> None:
        self.handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        """Set the handler, unless Lightning could not replace it outside the main thread."""
        if callable(self.handler) and signal.getsignal(signal.SIGTERM) is not self.handler:
            signal.signal(signal.SIGTERM, self.handler)
