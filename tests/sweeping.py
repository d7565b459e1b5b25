"""Sweeps of ``tests/sweep.py``: a sample of the calls, or all of them where the environment says ``FAULTS=all``."""

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
    """Disturb a batch; return what is said at the end, or fail with what is not as it should be."""
    command = [sys.executable, PROGRAM, how, "--mode", mode, "--program", program, *sample]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return f"{mode}: {done.stdout.strip()}"
