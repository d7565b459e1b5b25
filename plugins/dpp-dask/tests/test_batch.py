"""Tests of batches on Dask workers, from the command line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest


def assert_done(done, rows, count=20):
    assert (done.returncode, len(rows), {row["status"] for row in rows.values()}) == (0, count, {"ok"}), done.stdout + done.stderr
    assert not {"Traceback", "distributed", "Nanny"} & set((done.stdout + done.stderr).replace(".", " ").split())


def test_dpp_run_runs_a_batch_on_workers_of_this_machine(files, command, results):
    done = command("dpp", "run", files(), "--executor", "dask", "--workers", "2")
    assert_done(done, results())


def test_luigi_runs_a_batch_on_workers_of_this_machine(files, run_batch, results):
    done = run_batch(files(), "--executor", "dask", "--workers", "2")
    assert_done(done, results())


def test_a_batch_runs_on_the_workers_of_a_running_scheduler(files, command, results, dask):
    _, address = dask.scheduler()
    dask.worker(address)
    done = command("dpp", "run", files(), "--executor", "dask", "--options", json.dumps({"dask": {"address": address}}))
    assert_done(done, results())


SCRIPT = """
import luigi
from dpp import RunBatch

print("begun", flush=True)
luigi.build([RunBatch(files="x.json", executor="dask")], local_scheduler=True, workers=1, log_level="ERROR")
"""


def test_a_script_is_not_run_again_by_the_workers(files, tmp_path, command, results):
    files()
    (tmp_path / "script.py").write_text(SCRIPT)
    done = command("python", "script.py")
    assert_done(done, results())
    assert done.stdout.count("begun") == 1


FULL = """
mount -t tmpfs -o size=2m none small
set +e
'{dpp}' run x.json --executor dask --workspace small/w --processor filling:Large --max-bytes 1G >said.txt 2>&1; echo $?
mount -o remount,size=64m small
'{dpp}' run x.json --executor dask --workspace small/w --processor filling:Large --max-bytes 1G >again.txt 2>&1; echo $?
"""
FILLING = """
from dpp import BaseProcessor

class Large(BaseProcessor):
    def process(self, file):
        return "x" * 200_000
"""


@pytest.mark.fault(16)
def test_a_full_disk_on_a_worker_stops_the_run_and_the_next_one_completes_it(files, tmp_path, command, seen):
    files()
    (tmp_path / "filling.py").write_text(FILLING)
    (tmp_path / "small").mkdir()
    done = command("unshare", "-Urm", "sh", "-ec", FULL.format(dpp=Path(sys.executable).with_name("dpp")))
    said = (tmp_path / "said.txt").read_text()
    assert done.stdout.split() == ["3", "0"], said + done.stderr
    assert ("Traceback" in said, said.count("ERROR"), "disk is full" in said) == (False, 1, True), said
    kept = re.search(r"20 of 20 ok \((\d+) already done\)", (tmp_path / "again.txt").read_text())
    assert kept
    assert int(kept[1]) > 0
    seen("a disk that is full on a worker: exit code 3, then all ok")
