"""``kill -9`` at random moments of a batch with an unreliable server: nothing is lost or done twice, and the final files are correct."""

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
    """Return a random generator with a fixed seed; only the speed of the machine varies between runs."""
    return random.Random(20)


@pytest.fixture
def batch(site, manifest, tmp_path):
    """Run a batch of files from 5 to 150 KB without disturbances, with a reliable server."""
    bodies = {f"/f{n}.bin": hashlib.sha256(b"%d" % n).digest() * (4800 if n % 20 == 0 else 160) for n in range(FILES)}
    files = manifest([{"url": site.add(path, body)} for path, body in bodies.items()])
    assert started(tmp_path, files, "undisturbed").wait() == 0
    return files, bodies


def started(folder, files, workspace):
    """Start a run in its own process group."""
    command = [DPP, "run", files, "--workspace", workspace, *ARGUMENTS]
    said = (folder / "said.txt").open("w")
    with said:
        return subprocess.Popen(command, cwd=folder, start_new_session=True, stdout=said, stderr=subprocess.STDOUT)


def done(root):
    """Return the paths of the files whose report states ``ok``."""
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
    """Kill all processes of a run, or its first process, and wait for the others to end; the run may have ended by itself."""
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
    """Run the batch until all files are ok, and check the workspace."""
    for _ in range(20):
        if (code := started(folder, files, root.name).wait()) == 0:
            break
        check(root, code=code, total=FILES)
    check(root, code=0, total=FILES, same_as=folder / "undisturbed")
    assert len(list(find_run(root).results())) == FILES
