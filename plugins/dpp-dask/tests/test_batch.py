"""Tests of batches on Dask workers, from the command line."""

from __future__ import annotations

import json


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
