"""What a worker process does first that dpp starts on this machine."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any


def dask_setup(_worker: Any) -> None:
    """Leave Ctrl-C, which a terminal sends here too, to the process that has started this one, and clean the environment of steps."""
    # A handler that does nothing, as programs that this process starts would inherit that the signal is ignored.
    signal.signal(signal.SIGINT, _do_nothing)
    # Dask sets it for its own keys; steps would hash alike in all runs.
    os.environ.pop("PYTHONHASHSEED", None)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    return None
