"""Plugins that crash or block their process, and worker processes that are killed, in whole batches as users run them."""

from __future__ import annotations

import subprocess

import pytest

from aftermath import check
from programs import PROGRAMS

HARMFUL = """
import ctypes, os, pathlib, signal, time
from dpp import BaseProcessor

def worker():
    if not pathlib.Path("killed").exists():
        pathlib.Path("killed").touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)

DEEDS = {"exit": lambda: os._exit(0), "crash": lambda: ctypes.string_at(0), "hang": lambda: time.sleep(600),
         "memory": lambda: bytearray(2**62), "worker": worker}

class Harmful(BaseProcessor):
    name = "harmful"
    version = "1"
    def process(self, file):
        DEEDS.get(file.id, int)()
        return file.id
"""


@pytest.fixture
def run(tmp_path, manifest, seen):
    """Return a function that runs a batch of files with these ids, and returns the finished process."""
    (tmp_path / "mine.py").write_text(HARMFUL)

    def do(program, ids, *arguments):
        for name in ids:
            (tmp_path / name).write_text(name)
        files = manifest([{"url": (tmp_path / name).as_uri()} for name in ids])
        command = [*PROGRAMS[program], files, "--workspace", "w", "--processor", "mine:Harmful", *arguments]
        return subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, check=False)

    return do


@pytest.mark.fault(30)
@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        pytest.param("luigi", ("--workers", 2, "--chunk-size", 5), id="luigi-chunks"),
        pytest.param("luigi", ("--workers", 2), id="luigi-tasks"),
        pytest.param("dpp", ("--chunk-size", 9), id="dpp-chunk", marks=pytest.mark.slow),
        pytest.param("dpp", (), id="dpp-tasks", marks=pytest.mark.slow),
    ],
)
def test_plugins_that_harm_their_process_cost_their_files(run, tmp_path, seen, program, arguments):
    bad = {"exit": "crashed", "crash": "crashed", "hang": "timeout", "memory": "MemoryError"}
    ids = [*(f"good{number}" for number in range(5)), *bad]
    ended = run(program, ids, "--stage-timeout", 15, *arguments)
    assert ended.returncode == 1, ended.stderr
    rows = check(tmp_path / "w", code=1, total=len(ids))
    assert {name: row.error_class for name, row in rows.items() if not row.ok} == bad
    seen(f"{program}: {', '.join(bad.values())}, the others ok, exit code 1")


@pytest.mark.fault(30)
@pytest.mark.parametrize("size", [3, 1], ids=["chunks", "tasks"])
def test_a_worker_that_disappears_is_replaced(run, tmp_path, seen, size):
    ids = [*(f"good{number}" for number in range(5)), "worker"]
    ended = run("luigi", ids, "--workers", 2, "--chunk-size", size)
    assert "died unexpectedly with exit code -9" in ended.stderr
    assert ended.returncode == 0, ended.stderr
    check(tmp_path / "w", code=0, total=len(ids))
    seen("a worker killed: replaced, all ok, exit code 0")
