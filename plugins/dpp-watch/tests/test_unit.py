"""Test of the unit for systemd that the documentation shows."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs/how-to/watch-a-folder.md"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd-analyze")
def test_the_unit_of_the_page_is_valid(tmp_path):
    unit = re.search(r"```ini\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    (tmp_path / "dpp-watch.service").write_text(unit.replace("/srv/dpp/venv/bin/dpp", shutil.which("true")))
    done = subprocess.run(["systemd-analyze", "verify", tmp_path / "dpp-watch.service"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
