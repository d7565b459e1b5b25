"""``dpp verify``: every damage is found, and nothing else is reported."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from dpp.batch.folder import latest_runs
from dpp.maintenance.verify import Checker
from dpp.workspace.atomic import read_json
from dpp.workspace.ledger import read_outcome

import http_site
from http_site import cut, status
from listening import wait_until

BIN = Path(sys.executable).parent
STEPS = """
class Copies:
    def pre_process(self, file):
        target = file.output_dir / "copy.txt"
        target.write_bytes(file.local_path.read_bytes())
        file.local_path = target
        return file
"""


def found(root, batch=""):
    checker = Checker(root, batch)
    return [f"{problem.path}: {problem.text}" for problem in checker.problems()], checker


@pytest.fixture(scope="module")
def server():
    """Run the server of the files in the workspace."""
    with http_site.serving() as site:
        yield site


@pytest.fixture(scope="module")
def made(server, launcher, tmp_path_factory):
    """Make a workspace with two runs of a batch and every kind of target; return its parent folder."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "copying.py").write_text(STEPS)
    server.script("/busy", status(503))
    server.script("/part", cut(b"x" * 100_000, 70_000))
    urls = [
        server.add("/a.txt", "body a"),
        server.add("/b.txt", "body b"),
        *(f"{server.url}/{path}" for path in ("busy", "part", "missing")),
    ]
    (folder / "x.json").write_text(json.dumps([{"url": url} for url in urls]))
    for _ in range(2):
        run = [str(BIN / "dpp"), "run", "x.json", "--pre-processors", "copying:Copies", "--attempts", "1"]
        assert launcher.run(run, folder, dict(os.environ), 60).returncode == 1
    return folder


@pytest.fixture
def root(made, tmp_path):
    """Return a copy of the workspace."""
    return shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True) / "dpp-workspace"


def test_a_workspace_that_is_whole_has_no_problems(root):
    problems, checker = found(root)
    assert problems == []
    assert sorted(Path(path).name for path in checker.left_over) == ["part.part", "part.part.dpp.json"]
    assert checker.bytes == 12
    assert checker.files > 10


def one(root, pattern):
    return min(root.glob(pattern))


def rewritten(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields) + "\n")


def replaced(path, make):
    path.unlink()
    make(path)


SPOILT = {
    "a byte of a download": ("downloads/*/*/a.txt", lambda path: path.write_text("bodY a"), "expected 6 bytes with sha256"),
    "a pipe for a download": ("downloads/*/*/a.txt", lambda path: replaced(path, os.mkfifo), "not a regular file"),
    "a pipe for a result": ("processed/*/*/*.json", lambda path: replaced(path, os.mkfifo), "not a regular file"),
    "a link to itself": ("downloads/*/*/a.txt", lambda path: replaced(path, lambda link: link.symlink_to(link)), "cannot be read"),
    "a sidecar": ("downloads/*/*/a.txt.dpp.json", lambda path: rewritten(path, sha256="0"), "expected 6 bytes with sha256 0, got 6"),
    "a copy": ("pre_processed/*/*/a-*/0/copy.txt", lambda path: path.write_text(""), "expected [1, 6] (files, bytes)"),
    "a byte of a copy": ("pre_processed/*/*/a-*/0/copy.txt", lambda path: path.write_text("bodY a"), "according to its record, got"),
    "a record of something else": ("pre_processed/*/*/*.json", lambda path: path.write_text("{}"), "invalid record"),
    "a record": ("pre_processed/*/*/*.json", lambda path: path.write_text("["), "invalid record"),
    "a result": ("processed/*/*/*.json", lambda path: path.write_text("{"), "invalid result"),
    "another result": (
        "processed/*/*/*.json",
        lambda path: rewritten(path, result=5),
        "differs from the result that the last run recorded for",
    ),
    "a report": ("reports/*/*/*.json", lambda path: path.write_text("{"), "invalid report"),
    "no report": ("reports/*/*/*.json", Path.unlink, "missing report of"),
    "another report": (
        "reports/*/*/*.json",
        lambda path: rewritten(path, message="?", bytes=1),
        "differs from the results of the last run for",
    ),
    "a report elsewhere": (
        "reports/*/*/a-*.json",
        lambda path: path.rename(path.with_name(f"b-{'0' * 16}.json")),
        "is the report of another file, a",
    ),
    "a row less": (
        "batches/*/runs/1/results.jsonl",
        lambda path: path.write_text("\n".join(path.read_text().splitlines()[1:]) + "\n"),
        "from run.json and results.jsonl, got",
    ),
    "a torn row": (
        "batches/*/runs/2/results.jsonl",
        lambda path: path.write_text(path.read_text()[:-9] + "\n"),
        "5 lines, but outcomes of 4 files",
    ),
    "a row twice": (
        "batches/*/runs/2/results.jsonl",
        lambda path: path.write_text(path.read_text() + path.read_text()),
        "10 lines, but outcomes of 5 files",
    ),
    "no rows but a folder": (
        "batches/*/runs/1/results.jsonl",
        lambda path: (path.unlink(), path.mkdir()),
        "expected ok 0 from run.json and results.jsonl, got 2",
    ),
    "no run but a file": ("batches/*/runs/2", lambda path: (shutil.rmtree(path), path.touch()), "unknown file, not written by dpp"),
    "a summary": (
        "batches/*/runs/1/summary.json",
        lambda path: rewritten(path, ok=5),
        "expected ok 2 from run.json and results.jsonl, got 5",
    ),
    "what was asked": (
        "batches/*/runs/2/run.json",
        lambda path: rewritten(path, total=9),
        "expected total 9 from run.json and results.jsonl, got 5",
    ),
    "a stray file": ("downloads", lambda path: (path / "notes.txt").write_text("x"), "unknown file, not written by dpp"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_spoilt_is_found(root, name):
    pattern, spoil, text = SPOILT[name]
    spoil(one(root, pattern))
    assert [problem for problem in found(root)[0] if text in problem]


MEANING = {
    "downloads/*/*/a.txt": Path.read_bytes,
    "pre_processed/*/*/a-*/0/copy.txt": Path.read_bytes,
    "processed/*/*/a-*.json": lambda path: (read_json(path) or {}).get("result"),
    "reports/*/*/a-*.json": read_outcome,
}


@pytest.mark.parametrize("kind", MEANING)
def test_a_bit_that_changes_what_a_target_means_is_found(root, kind):
    target = one(root, kind)
    whole, meant = target.read_bytes(), MEANING[kind](target)
    for place in range(0, len(whole), 5):
        target.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert found(root)[0] or MEANING[kind](target) == meant, place


def test_another_batch_may_have_reported_a_file_again(root, dpp, manifest, server):
    files = json.loads((root.parent / "x.json").read_text())
    server.script("/busy", status(200, b"at last"))
    dpp("run", manifest(files, "again.json"), "--pre-processors", "copying:Copies", "--attempts", 1)
    assert found(root)[0] == []


def test_one_batch_is_looked_at_alone(root, dpp, manifest, site):
    dpp("run", manifest([{"url": site.add("/other.txt", "other")}], "other.json"))
    one(root, "downloads/*/*/other.txt").write_text("Other")
    (root / "stray").write_text("")
    batches = {run.batch[0]: run.batch for run in latest_runs(root)}
    assert found(root, batches["x"])[0] == []
    assert len(found(root, batches["o"])[0]) == 1
    assert len(found(root)[0]) == 2


def test_simulated_downloads_are_looked_at_too(dpp, manifest, monkeypatch, tmp_path):
    monkeypatch.setenv("PIPELINE_NO_SLEEP", "1")
    dpp("run", manifest([{"url": "https://h.invalid/a"}]), "--simulate-downloads")
    root = tmp_path / "dpp-workspace"
    assert found(root)[0] == []
    one(root, "simulated/downloads/*/*/a").write_text("")
    (problem,) = found(root)[0]
    assert problem.startswith("simulated/downloads/")


KILLS = "import os, signal\nclass Kills:\n    def process(self, file):\n        os.kill(os.getppid(), signal.SIGKILL)\n"


def test_a_run_that_was_killed_leaves_no_problem(site, manifest, command, tmp_path):
    (tmp_path / "killing.py").write_text(KILLS)
    files = manifest([{"url": site.add(f"/{n}", str(n))} for n in range(40)])
    assert command("dpp", "run", files, "--processor", "killing:Kills").returncode == -signal.SIGKILL
    wait_until(lambda: not latest_runs(tmp_path / "dpp-workspace")[0].is_held())  # the last child to end releases the lock
    problems, checker = found(tmp_path / "dpp-workspace")
    assert problems == []
    assert [path for path in checker.left_over if path.endswith("has no summary")]
    assert [path for path in checker.left_over if "/manifest/" in path]


def test_temporary_files_and_folders_are_named(root):
    (root / "processed" / ".a.abcdef-1-1.tmp").mkdir()
    (root / "reports" / ".b.json.abcdef-1-1.tmp").write_text("")
    problems, checker = found(root)
    assert problems == []
    assert {"processed/.a.abcdef-1-1.tmp", "reports/.b.json.abcdef-1-1.tmp"} <= set(checker.left_over)


def test_verify_says_what_it_did_and_ends_with_1_where_there_is_a_problem(root, dpp):
    assert dpp("verify")[1].splitlines()[-1].startswith("no problems in ")
    one(root, "downloads/*/*/a.txt").write_text("x")
    before = {path: os.stat(path).st_mtime_ns for path in root.rglob("*")}
    code, out, _ = dpp("verify", "--batch", "x")
    assert code == 1
    assert "remove it and its file's reports, then run the batch again" in out
    assert out.splitlines()[-1].startswith("1 problem in ")
    assert {path: os.stat(path).st_mtime_ns for path in root.rglob("*")} == before
    assert dpp("verify", "--batch", "nope")[0] == 2
