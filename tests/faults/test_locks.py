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


POOLED = """
import multiprocessing, os, pathlib, signal
from dpp import BaseProcessor

pool = None

class Pooled(BaseProcessor):
    def process(self, file):
        global pool
        if pool is None:
            pool = multiprocessing.get_context("fork").Pool(1)
            pathlib.Path("forked").touch()
        return pool.apply(os.path.getsize, (file.local_path,))

class Leaving(BaseProcessor):
    def process(self, file):
        if not (child := os.fork()):
            os.setsid()
            if not (grandchild := os.fork()):
                signal.pause()
            with open("left", "a") as left:
                left.write(f"{grandchild}\\n")
            os._exit(0)
        os.waitpid(child, 0)
        return "fine"
"""


@pytest.fixture
def plugin(tmp_path):
    """Write the plugin, and stop the processes that it leaves running."""
    (tmp_path / "mine.py").write_text(POOLED)
    yield
    for pid in (tmp_path / "left").read_text().split() if (tmp_path / "left").exists() else []:
        os.kill(int(pid), signal.SIGKILL)


@pytest.mark.fault(33)
@pytest.mark.usefixtures("plugin")
def test_a_pool_that_a_plugin_forks_during_a_download_keeps_no_lock_of_it(site, manifest, run_batch, results, tmp_path, seen):
    wait = lambda handler: wait_until((tmp_path / "forked").exists) and handler.send(200, b"slow")  # noqa: E731
    slow, quick = site.script("/slow", wait), site.add("/quick", "quick")
    files = manifest([{"id": name, "url": slow if "slow" in name else quick} for name in ("slow1", "quick", "other", "slow2")])
    run = run_batch(files, "--processor", "mine:Pooled", "--chunk-size", 10, "--max-per-host", 3)
    assert run.returncode == 0, run.stderr
    assert {name: row["result"] for name, row in results().items()} == {"slow1": 4, "slow2": 4, "quick": 5, "other": 5}
    seen("the next file of the URL and of the host is done")


@pytest.mark.fault(33)
@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize("chunk_size", [1, 5])
def test_a_process_that_a_plugin_leaves_running_does_not_keep_the_batch(site, manifest, run_batch, chunk_size, seen):
    files = manifest([{"url": site.add(f"/{name}", name)} for name in "ab"])
    command = (files, "--processor", "mine:Leaving", "--chunk-size", chunk_size, "--cleanup")
    assert [run_batch(*command).returncode for _ in range(2)] == [0, 0]
    seen("the rerun begins")
