"""``kill -9`` at random moments of a batch whose server fails again and again: nothing lost, nothing double, the final tree right."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from dpp.batch.folder import find_run
from dpp.workspace.ledger import read_outcome

import http_site
from aftermath import check
from listening import wait_until
from sweeping import ALL, LIMIT_SECONDS

KILLS = 200 if ALL else 10
FILES = 300
MOST_ANSWERS = 60
DPP = Path(sys.executable).parent / "dpp"
ARGUMENTS = ("--workers", "2", "--chunk-size", "40", "--retry-wait", "0.01", "--attempts", "4")


@pytest.fixture
def rng():
    """Random numbers that are the same each time; how fast the machine is remains chance."""
    return random.Random(20)


@pytest.fixture
def batch(site, manifest, tmp_path):
    """A batch of files from 5 to 150 KB; run undisturbed, with all answers right."""
    bodies = {f"/f{n}.bin": hashlib.sha256(b"%d" % n).digest() * (4800 if n % 20 == 0 else 160) for n in range(FILES)}
    files = manifest([{"url": site.add(path, body)} for path, body in bodies.items()])
    assert started(tmp_path, files, "undisturbed").wait() == 0
    return files, bodies


def started(folder, files, workspace):
    """Start a run in a process group of its own."""
    command = [DPP, "run", files, "--workspace", workspace, *ARGUMENTS]
    said = (folder / "said.txt").open("w")
    with said:
        return subprocess.Popen(command, cwd=folder, start_new_session=True, stdout=said, stderr=subprocess.STDOUT)


def done(root):
    """Return the paths of the files that have a report that says ok."""
    outcomes = map(read_outcome, root.glob("reports/*/*/*.json"))
    return {f"/{outcome.name}.bin" for outcome in outcomes if outcome and outcome.ok}


@pytest.mark.slow
@pytest.mark.fault(14)
@pytest.mark.timeout(LIMIT_SECONDS)
def test_nothing_is_lost_and_nothing_double_however_often_it_is_killed(batch, site, tmp_path, rng, seen):
    files, bodies = batch
    for path, body in bodies.items():
        site.script(path, http_site.flaky(body, rng))
    root, rounds = tmp_path / "killed", 0
    for _ in range(KILLS):
        finished = done(root)
        site.forget()
        run = started(tmp_path, files, root.name)
        answers = rng.randint(0, MOST_ANSWERS)
        wait_until(lambda run=run, answers=answers: len(site.requests) >= answers or run.poll() is not None)
        time.sleep(rng.uniform(0, 0.05))
        kill(run, rng)
        assert not finished & set(site.counts()), "what was finished was fetched again"
        if len(done(root)) == FILES:
            complete(tmp_path, files, root)
            shutil.rmtree(root)
            rounds += 1
    complete(tmp_path, files, root)
    seen(f"{KILLS} kills, {rounds + 1} batches of {FILES} files completed")


def kill(run, rng):
    """Kill all processes of a run, or the one that began it, and wait for the others to follow; it may have ended by itself."""
    with suppress(ProcessLookupError):
        (os.killpg if rng.random() < 0.7 else os.kill)(run.pid, signal.SIGKILL)
    run.wait()
    wait_until(lambda: not members(run.pid))


def members(group):
    """Return the processes of a group."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        found += [path] if int(number) == group and state != "Z" else []
    return found


def complete(folder, files, root):
    """Run the batch until all is well, and look at what is there."""
    for _ in range(20):
        if (code := started(folder, files, root.name).wait()) == 0:
            break
        check(root, code=code, total=FILES)
    check(root, code=0, total=FILES, same_as=folder / "undisturbed")
    assert len(list(find_run(root).results())) == FILES
