"""Waiting for a server that a test has started."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import pytest

SECONDS = 60


def wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until a process listens on a port of loopback; where it does not, fail with what it has logged."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"{process.args} did not start; it says:\n{log.read_text()}")
