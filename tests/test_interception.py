"""Tests of the interception of system calls."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import interception

PROGRAM = """
import os, socket
from interception import guard, supervise

ours, theirs = socket.socketpair()
pid = os.fork()
if not pid:
    socket.send_fds(theirs, [b"-"], [guard()])
    try:
        os.write(999, b"x")
    except OSError as error:
        os._exit(error.errno)
theirs.close()
_, (listener,), _, _ = socket.recv_fds(ours, 1, 1)
supervise(listener, lambda call: 0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_write_to_what_is_closed_fails_as_it_does_alone():
    folder = Path(interception.__file__).parent
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == f"{errno.EBADF}\n", done.stderr
