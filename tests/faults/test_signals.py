"""Signals that end a run: files in flight finish or are dropped within a grace time, there is a summary, and the next run continues."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import threading

import pytest

from aftermath import check
from listening import wait_until
from programs import PROGRAMS
from terminal import opened

COUNT = 6


@pytest.fixture
def batch(site, manifest):
    """Return the manifest of a batch whose last file the server holds back, and the event that makes the server send it."""
    release = threading.Event()
    urls = [site.add(f"/f{number}", f"body {number}") for number in range(COUNT - 1)]
    slow = site.script("/slow", lambda handler: release.wait() and handler.send(200, b"slow"))
    yield manifest([{"url": url} for url in [slow, *urls]]), release
    release.set()


@pytest.fixture
def start(batch, tmp_path):
    """Start a run in its own process group, as a shell does."""

    def run(program, *arguments):
        command = [*PROGRAMS[program], batch[0], "--workspace", "w", *arguments]
        return subprocess.Popen(
            list(map(str, command)), cwd=tmp_path, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return run


@pytest.mark.fault(15)
@pytest.mark.parametrize(
    ("number", "code", "program", "arguments"),
    [
        (signal.SIGINT, 130, "dpp", ("--chunk-size", 1)),
        (signal.SIGINT, 130, "luigi", ("--chunk-size", 2, "--workers", 2)),
        (signal.SIGTERM, 143, "luigi", ("--chunk-size", 1, "--workers", 2)),
        (signal.SIGTERM, 143, "dpp", ("--chunk-size", 6)),
        (signal.SIGHUP, 129, "dpp", ("--chunk-size", 3, "--workers", 2)),
    ],
)
def test_a_signal_to_all_processes_ends_the_run_with_a_summary(site, batch, start, tmp_path, program, arguments, number, code, seen):
    run = start(program, *arguments)
    wait_until(lambda: "/slow" in site.counts())
    os.killpg(run.pid, number)
    said, _ = run.communicate()
    assert run.returncode == code, said
    assert "Traceback" not in said
    assert re.search(rf"run 1: \d+ of {COUNT} ok, 0 failed, \d+ not done", said), said
    check(tmp_path / "w", code=code, total=COUNT)
    batch[1].set()
    again = start(program, *arguments)
    assert again.communicate()[1] is None
    check(tmp_path / "w", code=again.returncode, total=COUNT)
    assert again.returncode == 0
    seen(f"{code} with a summary")


@pytest.mark.fault(36)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_command_that_is_ended_by_a_signal_writes_no_core_dump(site, start, tmp_path, program, seen):
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))
    try:
        run = start(program, "--workers", "2", "--chunk-size", "3")
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, limits)
    wait_until(lambda: "/slow" in site.counts())
    os.killpg(run.pid, signal.SIGQUIT)
    run.communicate()
    assert run.returncode == -signal.SIGQUIT
    assert list(tmp_path.glob("*core*")) == []
    seen("a run that SIGQUIT ends: no core file")


@pytest.mark.fault(15)
@pytest.mark.parametrize("program", PROGRAMS)
def test_an_interrupt_while_the_list_is_read_ends_in_one_line(tmp_path, program, seen):
    os.mkfifo(tmp_path / "list.jsonl")
    command = [*PROGRAMS[program], "list.jsonl"]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with (tmp_path / "list.jsonl").open("w"):  # which returns when the list is being read
        run.send_signal(signal.SIGINT)
        said, _ = run.communicate()
    assert (run.returncode, "interrupted" in said, "Traceback" in said) == (130, True, False), said
    seen("while the list is read: one line, exit code 130")


@pytest.mark.fault(15)
def test_closing_the_terminal_ends_a_run_with_a_summary(site, batch, tmp_path, command, seen):
    with opened(tmp_path) as terminal:
        terminal.type(f"dpp run {batch[0].name} --workspace w")
        wait_until(lambda: "/slow" in site.counts())
    summary = wait_until(lambda: next(tmp_path.glob("w/batches/*/runs/1/summary.json"), None))
    assert json.loads(summary.read_text())["missing"] >= 1
    batch[1].set()
    # The first run may still hold the batch for a moment.
    wait_until(lambda: command("dpp", "run", batch[0], "--workspace", "w").returncode == 0)
    seen("terminal closed: summary, and a rerun does the rest")


@pytest.mark.fault(15)
def test_nohup_lets_a_run_outlive_its_terminal(site, batch, tmp_path, seen):
    with opened(tmp_path) as terminal:
        terminal.type(f"nohup dpp run {batch[0].name} --workspace w")
        wait_until(lambda: "/slow" in site.counts())
    batch[1].set()
    summary = wait_until(lambda: next(tmp_path.glob("w/batches/*/runs/1/summary.json"), None))
    assert json.loads(summary.read_text())["ok"] == COUNT
    seen("with nohup: done")
