"""Tests of watchers that are killed: no file is lost, and none is taken twice."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time

import pytest

SHORT = ("--settle", "0.2", "--collect", "0.2", "--scan", "5", "--max-files", "20", "--workers", "1")


def text_of(number):
    return f"content {number}"


def killed(watched, number, random_, *, group):
    """Start a watcher, let files arrive, and kill it at a random moment, alone or with its batch; return the number of files so far."""
    process = watched.start(*SHORT, quick=False, start_new_session=True)
    end = time.monotonic() + random_.uniform(0.5, 4)
    while time.monotonic() < end:
        (watched.folder / f"{number}.txt").write_text(text_of(number))
        number += 1
        time.sleep(0.04)
    (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
    process.wait()
    return number


@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_kills_lose_nothing_and_repeat_nothing(watched, wait, kills):
    random_, number = random.Random(kills), 0
    for kill in range(kills):
        number = killed(watched, number, random_, group=kill % 2 == 0)
    watched.start(*SHORT, quick=False)
    wait(lambda: sum("path" in line for line in watched.journal()) >= number and "ended" in watched.journal()[-1], seconds=600)
    assert watched.done() == {(f"{one}.txt", hashlib.sha256(text_of(one).encode()).hexdigest()): 1 for one in range(number)}
    taken = [line["path"] for line in watched.journal() if "path" in line]
    assert len(taken) == len({*taken}) == number


def test_a_batch_that_was_interrupted_is_continued_before_new_files_are_taken(watched, wait, tmp_path, monkeypatch):
    (tmp_path / "gate.py").write_text(
        "import time\nfrom pathlib import Path\nfrom dpp import BaseProcessor\n\n\nclass Gate(BaseProcessor):\n"
        "    name = 'gate'\n    version = '1'\n\n    def process(self, file):\n"
        f"        Path({str(tmp_path)!r}, 'begun').touch()\n"
        f"        while not Path({str(tmp_path)!r}, 'open').exists():\n            time.sleep(0.02)\n        return 1\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    (watched.folder / "a.txt").write_text("a")
    process = watched.started("--processor", "gate:Gate")
    wait((tmp_path / "begun").exists)
    process.kill()
    process.wait()
    (watched.folder / "b.txt").write_text("b")
    (tmp_path / "open").touch()
    assert watched.once("--processor", "gate:Gate") == 0
    assert [(line["batch"], line.get("path")) for line in watched.journal()[1:]] == [(1, "a.txt"), (1, None), (2, "b.txt"), (2, None)]
