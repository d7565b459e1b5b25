"""Fixtures: watchers in processes of their own, and what they have taken."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

SECONDS = 50


def until(condition, seconds=SECONDS):
    """Wait for a condition, and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)
    return value


class Watched:
    """A watched folder, its workspace, and its watchers."""

    def __init__(self, tmp_path, command):
        self._command = command
        self.folder = tmp_path / "in"
        self.folder.mkdir()
        self.workspace = tmp_path / "ws"
        self.log = tmp_path / "watch.log"
        self.processes = []

    def words(self, *arguments):
        return ["watch", self.folder, "--workspace", self.workspace, "--name", "in", *map(str, arguments)]

    def start(self, *arguments, quick=True, **options):
        """Start a watcher; by default one that does not wait for long."""
        short = ("--settle", "0.2", "--collect", "0.2") if quick else ()
        with self.log.open("ab") as log:
            words = [Path(sys.executable).with_name("dpp"), *self.words(*short, *arguments)]
            process = subprocess.Popen(words, stderr=log, stdout=log, **options)
        self.processes.append(process)
        return process

    def once(self, *arguments):
        """Take what is ready; return the exit code."""
        done = self._command("dpp", *self.words("--settle", "0.2", "--once", *arguments))
        with self.log.open("a") as log:
            log.write(done.stderr)
        return done.returncode

    def started(self, *arguments, **options):
        """Start a watcher, and wait until it has its journal."""
        process = self.start(*arguments, **options)
        until((self.workspace / "watch/in/journal.jsonl").exists)
        return process

    def stop(self, process, number=signal.SIGTERM):
        """Send a signal to a watcher; return its exit code."""
        process.send_signal(number)
        return process.wait(SECONDS)

    def journal(self):
        """Return the lines of the journal."""
        path = self.workspace / "watch/in/journal.jsonl"
        return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")] if path.exists() else []

    def results(self):
        """Return the results of the last run of each batch that has ended."""
        rows = []
        for batch in sorted(self.workspace.glob("batches/*")):
            runs = sorted(batch.glob("runs/*/summary.json"), key=lambda path: int(path.parent.name))
            rows += [json.loads(line) for path in runs[-1:] for line in path.with_name("results.jsonl").read_text().splitlines()]
        return rows

    def done(self):
        """Return how often each version was ok, by id and SHA-256."""
        return Counter((row["id"], row["sha256"]) for row in self.results() if row["status"] == "ok")

    def ended(self, count=1):
        """Return whether this many batches have ended."""
        return sum("ended" in line for line in self.journal()) >= count

    def errors(self):
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture
def watched(tmp_path, command):
    """A folder to watch; watchers that a test leaves are killed."""
    found = Watched(tmp_path, command)
    yield found
    for process in found.processes:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture
def wait():
    return until
