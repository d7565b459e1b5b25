"""Starting servers: a port that stays free for one, and waiting for what a test has started."""

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
    """Keep a port of loopback until the end of the block, for a server that is about to start.

    A port that was merely free a moment ago may be given to another program meanwhile. Who holds this one does not listen: until somebody
    does, connections are refused. A server that binds with SO_REUSEADDR, as they all do, can listen there all the same (socket(7)).
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


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


def wait_until(condition: Callable[[], T]) -> T:
    """Wait until a condition holds, and return what it returned; fail when it never does."""
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return found
