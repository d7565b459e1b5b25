"""A full, a broken and a read-only disk: the run stops with exit code 3 and one line with the reason, and the next run completes it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess

import pytest

from aftermath import check
from programs import PROGRAMS
from sweeping import ALL, FEW, LIMIT_SECONDS, swept

SIZES = range(8, 1400, 8) if ALL else (40, 300)
STOPPED, COMPLETE = 3, 0
STEPS = """
import shutil
class Copies:
    def pre_process(self, file):
        file.local_path = shutil.copy(file.local_path, file.output_dir)
        return file
"""


@pytest.fixture
def batch(manifest, tmp_path):
    """Write the manifest of a batch of twenty local files with 200 KB."""
    (tmp_path / "given").mkdir()
    (tmp_path / "mine.py").write_text(STEPS)
    paths = [tmp_path / "given" / f"{number}.bin" for number in range(20)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 10_000)
    return manifest([{"url": path.as_uri()} for path in paths])


@pytest.fixture
def mounted(tmp_path):
    """Return a function that runs shell commands that can mount over a folder ``small``, and returns their output."""
    program = shutil.which("unshare") or pytest.fail("unshare is needed: scripts/install-system-packages")
    (tmp_path / "small").mkdir()

    def run(script):
        command = [program, "-Urm", "sh", "-ec", script]
        done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def command(program, files, *arguments):
    """Return the shell command of the main job."""
    options = ["--workspace", "small/w", "--pre-processors", "mine:Copies", "--max-bytes", "1G", *arguments]
    return shlex.join(map(str, [*PROGRAMS[program], files, *options]))


FULL = """
mount -t tmpfs -o size={size}k none small
set +e
{run} >said.txt 2>&1; echo $?
mount -o remount,size=64m small
{run} >/dev/null 2>&1; echo $?
cp -R small/w left
"""


@pytest.mark.slow
@pytest.mark.fault(16)
@pytest.mark.timeout(LIMIT_SECONDS)
@pytest.mark.parametrize(("program", "workers", "chunk_size"), [("dpp", 1, 1), ("luigi", 2, 5)])
def test_a_full_disk_stops_the_run_and_the_next_one_completes_it(batch, mounted, tmp_path, program, workers, chunk_size, seen):
    run = command(program, batch, "--workers", workers, "--chunk-size", chunk_size)
    mounted(f"{run} 2>&1; cp -R small/w undisturbed")
    codes = [full(mounted, run, size, tmp_path) for size in SIZES]
    assert STOPPED in codes
    if ALL:
        assert codes == sorted(codes, reverse=True)
        assert codes[-1] == COMPLETE
    seen(f"disks of {len(SIZES)} sizes")


def full(mounted, run, size, folder):
    """Run the batch on a disk of this size, and again on a larger one; return the exit code of the first run."""
    code, again = map(int, mounted(FULL.format(run=run, size=size)).split())
    said = (folder / "said.txt").read_text()
    assert "Traceback" not in said
    assert [line[:5].upper() for line in said.splitlines()].count("ERROR") == (code == STOPPED), said
    assert (code in (STOPPED, COMPLETE), again) == (True, COMPLETE), said
    check(folder / "left", code=again, total=20, same_as=folder / "undisturbed")
    shutil.rmtree(folder / "left")
    return code


@pytest.mark.fault(16)
def test_a_part_that_fills_the_disk_is_removed(site, manifest, mounted, tmp_path, seen):
    (tmp_path / "mine.py").write_text(STEPS)
    files = manifest([{"url": site.add("/large", b"x" * 3_000_000)}])
    script = "mount -t tmpfs -o size=2m none small; set +e; {run} >/dev/null 2>&1; echo $?; find small -type f -printf '%f\\n'"
    code, *left = mounted(script.format(run=command("dpp", files))).split()
    assert (code, "summary.json" in left, [name for name in left if ".part" in name]) == (str(STOPPED), True, [])
    seen("the part is removed, and there is room for the summary")


FILLS = """
import os
class Fills:
    def process(self, file):
        if file.id == os.environ["FILLING"]:
            with open(os.environ["PLACE"] + "/filler", "wb") as stream:
                stream.write(bytes(4_000_000))
        return 1
"""
TWO_DISKS = """
mount -t tmpfs -o size=2m none small
mkdir other
mount -t tmpfs -o size=2m none other
set +e
PLACE={place} FILLING=3 {run} 2>&1; echo $?
"""


@pytest.mark.fault(34)
@pytest.mark.parametrize(
    ("place", "code", "done"), [("other", 1, "19 of 20 ok, 1 failed"), ("small", STOPPED, "cannot write .*the disk is full")]
)
def test_only_a_full_disk_of_the_workspace_stops_the_run(batch, mounted, tmp_path, place, code, done, seen):
    (tmp_path / "mine.py").write_text(STEPS + FILLS)
    run = command("dpp", batch, "--processor", "mine:Fills", "--chunk-size", 5)
    *said, ended = mounted(TWO_DISKS.format(place=place, run=run)).splitlines()
    assert (int(ended), bool(re.search(done, "\n".join(said)))) == (code, True), said
    seen(f"{'another disk' if place == 'other' else 'the disk of the workspace'} is full: exit code {code}")


TWICE = """
mount -t tmpfs -o size=4m none small
set +e
{run} >/dev/null 2>&1; echo $?
{run} >/dev/null 2>&1; echo $?
cat small/w/batches/*/runs/*/results.jsonl
"""


@pytest.mark.fault(16, 35)
def test_a_download_that_fills_the_disk_is_tried_last_by_the_next_run(site, manifest, mounted, seen):
    large = site.add("/large", b"x" * 6_000_000)
    urls = [large, *(site.add(f"/{number}", b"x") for number in range(60))]
    options = ["--workspace", "small/w", "--max-bytes", "1G", "--workers", "1", "--download-threads", "1"]
    run = shlex.join(map(str, [*PROGRAMS["dpp"], manifest([{"url": url} for url in urls]), *options]))
    first, second, *rows = mounted(TWICE.format(run=run)).splitlines()
    ok = {row["url"] for row in map(json.loads, rows) if row["status"] == "ok"}
    assert (int(first), int(second), ok) == (STOPPED, STOPPED, set(urls) - {large})
    seen("a file larger than the disk: all others ok after the second run")


@pytest.mark.fault(16)
def test_a_file_whose_output_fills_the_disk_is_tried_last_by_the_next_run(manifest, mounted, tmp_path, seen):
    (tmp_path / "mine.py").write_text(STEPS)
    (tmp_path / "given").mkdir()
    paths = [tmp_path / "given" / f"{number}.bin" for number in range(20)]
    for path in paths:
        path.write_bytes(b"x")
    paths[0].write_bytes(bytes(2_500_000))
    run = command("dpp", manifest([{"url": path.as_uri()} for path in paths]), "--chunk-size", 100, "--workers", 1, "--cleanup")
    first, second, *rows = mounted(TWICE.format(run=run)).splitlines()
    ok = {row["id"] for row in map(json.loads, rows) if row["status"] == "ok"}
    assert (int(first), int(second), ok >= {str(number) for number in range(1, 15)}) == (STOPPED, STOPPED, True), ok
    seen("an output larger than the disk: the others are done by the second run")


READ_ONLY = """
mount --bind small small
mount -o remount,ro,bind small
set +e
{run} 2>&1; echo $?
"""


@pytest.mark.fault(17)
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("was_used", [False, True])
def test_a_read_only_workspace_stops_the_run_before_any_request(site, manifest, mounted, program, was_used, tmp_path):
    (tmp_path / "mine.py").write_text(STEPS)
    run = command(program, manifest([{"url": site.add("/a", "a")}]))
    if was_used:
        mounted(f"{run} 2>&1")
        site.forget()
    *said, code = mounted(READ_ONLY.format(run=run)).splitlines()
    assert (len(said), code) == (1, str(STOPPED)), said
    assert "read-only" in said[0]
    assert not site.requests


@pytest.mark.fault(16)
@pytest.mark.parametrize("how", ["full", "broken"])
def test_a_disk_that_is_full_or_broken_at_some_calls_stops_the_run(how, seen):
    seen(swept(how, "chunks", "dpp", FEW))


@pytest.mark.slow
@pytest.mark.fault(16)
@pytest.mark.timeout(LIMIT_SECONDS)
@pytest.mark.parametrize(
    ("how", "mode", "program"),
    [
        ("full", "tasks", "dpp"),
        ("full", "workers", "luigi"),
        ("broken", "chunks", "luigi"),
        ("broken", "cleanup", "dpp"),
        ("stale", "chunks", "dpp"),
    ],
)
def test_a_disk_that_is_full_or_broken_at_any_call_stops_the_run(how, mode, program, seen):
    seen(swept(how, mode, program))
