"""A soak test of some seconds; ``make soak`` takes minutes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sweeping import LIMIT_SECONDS

SOAK = Path(__file__).parents[2] / "scripts" / "soak.py"
SHORT = ("--minutes", "0", "--rounds", "4", "--files", "6", "--memory-slack", "1.3")


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_SECONDS)
def test_nothing_grows_from_batch_to_batch():
    done = subprocess.run([sys.executable, SOAK, *SHORT], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
