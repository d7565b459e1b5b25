"""Several runs of one batch in one workspace: exactly one works, and the lock is released when its holder ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading

import pytest
from dpp.engine.child import _descendants
from dpp.workspace.atomic import is_alive
from dpp.workspace.locks import BatchLock

from aftermath import check
from listening import wait_until
from sweeping import ALL, LIMIT_SECONDS

PAIRS = 100 if ALL else 5
GATED = "import sys; from dpp.cli import main; print('ready', flush=True); sys.stdin.read(); main(sys.argv[1:])"
HELD = re.compile(r"this batch is being run by pid (\d+) on \S+ since \d{4}-\d\d-\d\dT\S+; wait for it to end or stop it")


@pytest.fixture
def slow(site, manifest):
    """Return the manifest of two files, for one of which the server waits, and the event that lets the server continue."""
    release = threading.Event()
    site.script("/slow", lambda handler: release.wait() and handler.send(200, b"x"))
    yield manifest([{"url": f"{site.url}/slow"}, {"url": site.add("/quick", "y")}]), release
    release.set()


def started(folder, gate, *arguments):
    """Start dpp up to the gate, which is the end of its input."""
    command = [sys.executable, "-c", GATED, "run", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=folder, stdin=gate, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def opened(folder, *arguments, count=1):
    """Start several runs at the same moment."""
    gate, opener = os.pipe()
    runs = [started(folder, gate, *arguments) for _ in range(count)]
    os.close(gate)
    os.close(opener)
    return runs


@pytest.mark.slow
@pytest.mark.fault(19)
@pytest.mark.timeout(LIMIT_SECONDS)
def test_of_two_runs_at_the_same_instant_one_works_and_the_other_says_who_does(slow, tmp_path, seen):
    files, release = slow
    for number in range(PAIRS):
        runs = opened(tmp_path, files, "--workspace", f"w{number}", count=2)
        loser = wait_until(lambda runs=runs: next((run for run in runs if run.poll() is not None), None))
        (winner,) = [run for run in runs if run is not loser]
        said = loser.communicate()[0]
        assert (loser.returncode, winner.poll()) == (3, None), said
        assert HELD.search(said)[1] == str(winner.pid)
        release.set()
        winner.communicate()
        check(tmp_path / f"w{number}", code=winner.returncode, total=2)
        assert winner.returncode == 0
        release.clear()
    seen(f"{PAIRS} pairs: one worked, the other ended with 3 and named it, each time")


@pytest.mark.fault(19)
@pytest.mark.parametrize("chunk_size", [1, 50])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_lock_dies_with_its_holder_and_so_do_its_children(slow, site, tmp_path, workers, chunk_size):
    run = opened(tmp_path, slow[0], "--workers", workers, "--chunk-size", chunk_size)[0]
    wait_until(lambda: "/slow" in site.counts())
    (path,) = tmp_path.glob("dpp-workspace/batches/*/lock")
    lock, family = BatchLock(path), _descendants(run.pid)
    assert family
    assert not lock.try_alone()
    run.send_signal(signal.SIGKILL)
    run.communicate()
    wait_until(lock.try_alone)
    wait_until(lambda: not any(is_alive(str(pid)) for pid in family))
    lock.release()
