"""Run the sweeps of ``tests/sweep.py``: for a sample of the calls, or for all of them with ``FAULTS=all`` in the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("sweep.py")
ALL = os.environ.get("FAULTS") == "all"
LIMIT_SECONDS = 7200 if ALL else 900
SAMPLE = () if ALL else ("--first", "17", "--step", "70")
FEW = ("--first", "15", "--step", "60")


def swept(how: str, mode: str, program: str = "luigi", sample: tuple[str, ...] = SAMPLE) -> str:
    """Run a sweep; return its last line of output, or fail with the problems that it found."""
    command = [sys.executable, PROGRAM, how, "--mode", mode, "--program", program, *sample]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return f"{mode}: {done.stdout.strip()}"
