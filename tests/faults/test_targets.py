"""Targets that are damaged or incomplete: they are found, never used as complete ones, and made again."""

from __future__ import annotations

import json
import subprocess

import pytest
from dpp.maintenance.verify import Checker
from dpp.workspace.machine import process_space

from aftermath import check

STEPS = """
import shutil
class Copies:
    def pre_process(self, file):
        file.local_path = shutil.copy(file.local_path, file.output_dir / "copy")
        return file
"""
KINDS = {
    "download": "downloads/*/*/a.txt",
    "copy": "pre_processed/*/*/a-*/0/copy",
    "result": "processed/*/*/a-*.json",
    "report": "reports/*/*/a-*.json",
}


@pytest.fixture
def run(site, manifest, dpp, tmp_path):
    """Return a function that runs a batch of two files, and returns its exit code."""
    (tmp_path / "mine.py").write_text(STEPS)
    files = manifest([{"url": site.add("/a.txt", "body a")}, {"url": site.add("/b.txt", "body b")}])
    return lambda workspace="w": dpp("run", files, "--workspace", workspace, "--pre-processors", "mine:Copies")[0]


@pytest.fixture
def root(run, tmp_path):
    """Return a workspace, beside which is one of an undisturbed run."""
    assert (run(), run("undisturbed")) == (0, 0)
    return tmp_path / "w"


def flipped(data):
    return bytes([data[0] ^ 1]) + data[1:]


DAMAGES = {"flipped": flipped, "emptied": lambda data: b"", "cut": lambda data: data[: len(data) // 2]}
CUTS = {"emptied": DAMAGES["emptied"], "cut": DAMAGES["cut"], "cut by a byte": lambda data: data[:-1]}


@pytest.mark.fault(20)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_target_is_found_and_made_again(run, root, site, kind, damage, seen):
    (path,) = root.glob(KINDS[kind])
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    (problem, *_) = Checker(root).problems()
    assert str(root / problem.path).startswith(str(path.parent))
    remove(root, path, problem)
    site.forget()
    assert run() == 0
    check(root, code=0, total=2, same_as=root.parent / "undisturbed")
    assert site.counts() == ({"/a.txt": 1} if kind == "download" else {})
    seen(f"{kind} {damage}: {problem.text.partition(' ')[0]}... by dpp verify")


def remove(root, path, problem):
    """Follow the advice in the problem: remove the damaged target, and the reports of its file."""
    if "remove it" in problem.advice:
        path.unlink()
        (report,) = root.glob(KINDS["report"])
        report.unlink()


@pytest.mark.fault(20)
@pytest.mark.parametrize("kind", ["download", "result", "report"])
@pytest.mark.parametrize("damage", CUTS)
def test_what_is_emptied_or_cut_is_made_again_by_a_plain_rerun(run, root, kind, damage):
    (path,) = root.glob(KINDS[kind])
    path.write_bytes(CUTS[damage](path.read_bytes()))
    assert run() == 0
    check(root, code=0, total=2, same_as=root.parent / "undisturbed")


@pytest.mark.fault(20)
@pytest.mark.parametrize("kind", ["copy", "result"])
@pytest.mark.parametrize("damage", ["emptied", "cut"])
def test_what_a_step_would_read_is_made_again_where_it_was_emptied_or_cut(run, root, kind, damage):
    (path,) = root.glob(KINDS[kind])
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    for made in root.glob("reports/*/*/a-*.json"):
        made.unlink()
    for made in root.glob("processed/*/*/a-*.json") if kind == "copy" else ():
        made.unlink()
    assert run() == 0
    check(root, code=0, total=2, same_as=root.parent / "undisturbed")


@pytest.fixture
def dead_pid():
    """Return the id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.fault(21)
def test_what_a_dead_run_half_wrote_is_never_taken_for_whole_and_is_swept(run, root, site, dead_pid):
    host = process_space()
    last = max(root.glob("batches/*/runs/1"))
    (last / "summary.json").unlink()
    for kind, pattern in KINDS.items():
        (path,) = root.glob(pattern)
        path.with_name(f".{path.name}.{host}-{dead_pid}-1.tmp").write_bytes(path.read_bytes()[:3])
        path.unlink()
        if kind == "download":
            path.with_name("a.txt.part").write_bytes(b"bo")
            path.with_name("a.txt.part.dpp.json").write_text(json.dumps({"etag": '"other"', "total": 6}))
    folder = root / "pre_processed" / f".x.{host}-{dead_pid}-2.tmp" / "0"
    folder.mkdir(parents=True)
    assert run() == 0
    check(root, code=0, total=2, same_as=root.parent / "undisturbed")
    assert site.counts()["/a.txt"] == 3
    assert not folder.parent.exists()
