"""``kill -9`` at the calls that change a file of a workspace, and what a rerun makes of what is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SWEEP = Path(__file__).parents[1] / "sweep.py"
SAMPLE = ("--first", "17", "--step", "70")


def swept(how, mode):
    """Sweep, as a whole where everything is asked for; return what it says at the end."""
    sample = () if os.environ.get("FAULTS") == "all" else SAMPLE
    done = subprocess.run([sys.executable, SWEEP, how, "--mode", mode, *sample], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return f"{mode}: {done.stdout.strip()}"


@pytest.mark.fault(14)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["tasks", "chunks", "workers", "cleanup"])
def test_a_rerun_after_a_kill_equals_an_undisturbed_run(mode, seen):
    seen(swept("kill", mode))


@pytest.mark.fault(14)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["tasks", "chunks", "cleanup"])
def test_so_it_does_where_one_process_is_killed(mode, seen):
    seen(swept("kill-one", mode))
