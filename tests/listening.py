"""Start servers in tests: reserve a port, and wait until the server listens."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

SECONDS = 60
T = TypeVar("T")


@contextmanager
def reserved_port() -> Iterator[int]:
    """Reserve a port of loopback until the end of the block, for a server that is about to start."""
    # A port that was free a moment ago may be taken by another program. The holder does not listen, so connections are refused
    # until the server does. A server that binds with SO_REUSEADDR, as they all do, can listen on a reserved port (socket(7)).
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until a process listens on a port of loopback; if it ends or takes too long, fail with its log."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"{process.args} did not start; its log:\n{log.read_text()}")


def wait_until(condition: Callable[[], T]) -> T:
    """Wait until a condition returns a true value, and return it; fail after 60 seconds."""
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, f"the condition did not become true within {SECONDS} s"
        time.sleep(0.005)
    return found
