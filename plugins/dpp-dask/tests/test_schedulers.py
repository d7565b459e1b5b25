"""Tests of batches on the workers of a running scheduler, which may go away, and of clusters that a class starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from dask_programs import wait_for

SECONDS = 120
TIMES = {"reconnect_timeout": 3, "connect_timeout": 3, "worker_timeout": 3}


@contextmanager
def running(folder, *arguments):
    """Run ``dpp run`` in the background."""
    command = [sys.executable, "-P", "-c", "from dpp.cli import main; main()", "run", *map(str, arguments)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def seen(folder):
    path = folder / "seen"
    return path.read_text().split() if path.exists() else []


def gated(folder, address, **options):
    """Return the arguments of a batch whose steps wait."""
    given = {"dask": {"address": address, **TIMES, **options}, "steps:Gated": {"folder": str(folder)}}
    return ["--executor", "dask", "--processor", "steps:Gated", "--lost-after", "3", "--options", json.dumps(given)]


def test_there_are_as_many_chunks_at_once_as_workers_have_threads(files, steps, command, dask):
    _, address = dask.scheduler()
    dask.worker(address, threads=3)
    options = {"dask": {"address": address}, "steps:Together": {"chunks": 3}}
    done = command("dpp", "run", files(), "--executor", "dask", "--processor", "steps:Together", "--options", json.dumps(options))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_ends_the_run_within_seconds(files, command, dask):
    scheduler, address = dask.scheduler()
    scheduler.kill()
    scheduler.wait()
    done = command("dpp", "run", files(), "--executor", "dask", "--options", json.dumps({"dask": {"address": address, **TIMES}}))
    assert done.returncode == 3
    assert f"cannot reach the Dask scheduler at {address} within 3 s" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_scheduler_without_workers_ends_the_run(files, command, dask):
    _, address = dask.scheduler()
    done = command("dpp", "run", files(), "--executor", "dask", "--options", json.dumps({"dask": {"address": address, **TIMES}}))
    assert done.returncode == 3
    assert f"no worker has joined the Dask scheduler at {address} within 3 s (worker_timeout); start one with" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_scheduler_that_goes_away_for_good_ends_the_run(files, steps, dask, tmp_path, number):
    scheduler, address = dask.scheduler()
    dask.worker(address)
    with running(tmp_path, files(), *gated(tmp_path, address)) as command:
        wait_for(lambda: seen(tmp_path), "the first file")
        scheduler.send_signal(number)
        output, _ = command.communicate(timeout=SECONDS)
    assert command.returncode == 3, output
    assert f"the Dask scheduler at {address} has gone away, and could not be reached again for 3 s" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_scheduler_that_is_restarted_is_used_again(files, steps, dask, tmp_path, results):
    scheduler, address = dask.scheduler()
    dask.worker(address)
    with running(tmp_path, files(), *gated(tmp_path, address, reconnect_timeout=60)) as command:
        wait_for(lambda: seen(tmp_path), "the first file")
        scheduler.kill()
        scheduler.wait()
        dask.scheduler(port=int(address.rpartition(":")[2]))
        dask.worker(address)
        (tmp_path / "go").touch()
        output, _ = command.communicate(timeout=SECONDS)
    assert command.returncode == 0, output
    assert {row["status"] for row in results().values()} == {"ok"}


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(files, steps, dask, tmp_path, results):
    _, address = dask.scheduler()
    first = dask.worker(address)
    with running(tmp_path, files(), *gated(tmp_path, address)) as command:
        wait_for(lambda: seen(tmp_path), "the first file")
        first.kill()
        dask.worker(address)
        (tmp_path / "go").touch()
        output, _ = command.communicate(timeout=SECONDS)
    assert command.returncode == 0, output
    assert {row["status"] for row in results().values()} == {"ok"}
    assert len(results()) == 20


def processes_below(folder):
    """Return the ids of processes whose current folder is a test's."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cwd").readlink() == folder and int(path.name) != os.getpid():
                found.append(int(path.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=["SIGKILL", "SIGINT", "SIGTERM"])
def test_no_process_is_left_on_this_machine(files, steps, tmp_path, number):
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "steps.py").rename(folder / "steps.py")
    given = {"steps:Gated": {"folder": str(tmp_path)}}
    arguments = ["--executor", "dask", "--workers", "2", "--processor", "steps:Gated", "--lost-after", "3", "--options", json.dumps(given)]
    with running(folder, files(), *arguments) as command:
        wait_for(lambda: seen(tmp_path), "the first file")
        command.send_signal(number)
        (tmp_path / "go").touch()
        output, _ = command.communicate(timeout=SECONDS)
    assert "Traceback" not in output
    wait_for(lambda: not processes_below(folder), "the end of all processes")
