"""What a worker process does first that dpp starts on this machine."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


def dask_setup(_worker: Any) -> None:
    """Leave Ctrl-C, which a terminal sends to this process too, to the process that has started it."""
    # A handler that does nothing, as programs that this process starts would inherit that the signal is ignored.
    signal.signal(signal.SIGINT, _do_nothing)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    return None
