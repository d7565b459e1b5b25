"""The clock jumps by a day while a batch runs: limits and waits use the monotonic clock, which does not jump."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aftermath import check

DPP = Path(sys.executable).parent / "dpp"
DAY = 86400
HALF = b"x" * 50_000
# Python 3.11 sleeps until a time of the monotonic clock, for which libfaketime 0.9.10 returns EINVAL; select waits for a duration.
SLEEPS = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds)\n"


@pytest.fixture
def clock(tmp_path):
    """Return a clock: ``clock.environment`` starts a program with it, and ``clock.jump("+1d")`` sets it."""
    program = shutil.which("faketime") or pytest.fail("faketime is needed: scripts/install-system-packages")
    preload = subprocess.run([program, "-f", "+0", "printenv", "LD_PRELOAD"], check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "sleeps").mkdir()
    (tmp_path / "sleeps" / "sitecustomize.py").write_text(SLEEPS)
    return Clock(tmp_path / "clock", preload, tmp_path / "sleeps")


class Clock:
    def __init__(self, path, preload, modules):
        self._path = path
        self.jump("+0")
        self.environment = {
            **os.environ,
            "LD_PRELOAD": preload,
            "PYTHONPATH": str(modules),
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, by):
        """Set the clock relative to the real time."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(by)
        fresh.replace(self._path)


@pytest.mark.fault(18)
@pytest.mark.parametrize(("by", "chunk_size", "disabled"), [("+1d", 2, "curl"), ("-1d", 1, "")], ids=["forward", "back"])
def test_a_jump_of_the_clock_changes_no_limit_and_no_wait(site, manifest, clock, tmp_path, by, chunk_size, disabled, seen):
    def busy(handler):
        clock.jump(by)
        handler.send(503, Retry_After=1)

    def slow(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(2 * len(HALF)))
        handler.end_headers()
        handler.wfile.write(HALF)
        clock.jump(by)
        handler.wfile.write(HALF)

    site.script("/busy", busy, lambda handler: handler.send(200, b"at last"))
    urls = [site.add("/first", "1"), site.script("/slow", slow), f"{site.url}/busy", site.add("/last", "2")]
    files = manifest([{"url": url} for url in urls])
    command = [DPP, "run", files, "--workspace", "w", "--workers", "2", "--chunk-size", str(chunk_size), "--rate-limit", "1M"]
    environment = {**clock.environment, "DPP_DISABLE_PLUGINS": disabled}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = check(tmp_path / "w", code=0, total=len(urls))
    assert {name: row.attempts for name, row in rows.items()} == {"first": 1, "slow": 1, "busy": 2, "last": 1}
    assert max(abs(row.at - os.stat(files).st_mtime) for row in rows.values()) > DAY / 2
    seen(f"{by}: attempts as without")
