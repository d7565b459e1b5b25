"""Schedulers and workers of Dask as an operator starts them, on loopback with ports that the system chooses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

SECONDS = 60


def wait_for(condition, what):
    """Wait until a condition holds, and return its value."""
    end = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)
    return value


class Dask:
    """Schedulers and workers, which end with the block."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._started: list[subprocess.Popen] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self._started:
            process.kill()
            process.wait()

    def _start(self, name, *arguments, **environment):
        # A file instead of a pipe: nobody reads it, unless a test fails.
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{name}", *arguments, "--no-dashboard"],
                cwd=self._folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._started.append(process)
        return process

    def scheduler(self, *arguments, port=0):
        """Start a scheduler; return its process and its address."""
        file = self._folder / "scheduler.json"
        file.unlink(missing_ok=True)
        process = self._start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--scheduler-file", str(file), *arguments)
        return process, wait_for(lambda: _address(file), "the scheduler")

    def worker(self, address, *arguments, threads=2, **environment):
        """Start a worker without a nanny, so that a test can kill it for good; return its process."""
        return self._start("worker", address, "--nthreads", str(threads), "--no-nanny", *arguments, **environment)


def _address(file):
    try:
        return json.loads(file.read_text())["address"]
    except (OSError, ValueError):
        return None
