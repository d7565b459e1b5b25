"""Tests of clusters that a class of the operator's configuration starts."""

from __future__ import annotations

import json

import pytest

LUIGI_CFG = """
[dask]
cluster = {cluster}
cluster_options = {options}
worker_timeout = 60
"""
# As Slurm's commands: one starts a job and prints its number, the other ends it.
SBATCH = """#!/bin/sh
setsid sh "$1" > {folder}/job.log 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
kill -- -"$1"
"""
LOCAL = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None, "memory_limit": 0}


@pytest.fixture
def configured(tmp_path):
    """Return a function that writes luigi.cfg."""

    def write(cluster, **options):
        (tmp_path / "luigi.cfg").write_text(LUIGI_CFG.format(cluster=cluster, options=json.dumps(options)))

    return write


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Put commands on the path that run a job on this machine."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (folder / name).write_text(text.format(folder=tmp_path))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.slow
def test_a_cluster_of_slurm_runs_a_batch(files, command, results, configured, slurm, tmp_path):
    tls = {"security": True, "shared_temp_directory": str(tmp_path)}
    configured("dask_jobqueue.SLURMCluster", cores=1, memory="1GB", interface="lo", scheduler_options={"dashboard": False}, **tls)
    done = command("dpp", "run", files(), "--executor", "dask", "--workers", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["status"] for row in results().values()} == {"ok"}
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_cluster_that_others_can_reach_needs_tls(files, command, configured):
    configured("distributed.LocalCluster", host="0.0.0.0", **LOCAL)
    done = command("dpp", "run", files(), "--executor", "dask")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "is on another machine and without TLS" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cluster", "options", "problem"),
    [
        ("distributed.LocalClutter", {}, "has no attribute 'LocalClutter'"),
        ("no_such_module.Cluster", {}, "No module named 'no_such_module'"),
        ("dask_jobqueue.SLURMCluster", {"cores": 1, "memory": "1GB", "walltme": "1"}, "walltme"),
    ],
)
def test_a_class_that_cannot_be_used_is_an_error(files, command, configured, cluster, options, problem):
    configured(cluster, **options)
    done = command("dpp", "run", files(), "--executor", "dask")
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"cannot start {cluster}: " in done.stderr
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


def test_only_the_configuration_can_name_a_class(files, command):
    done = command("dpp", "run", files(), "--executor", "dask", "--options", '{"dask": {"cluster": "os.system"}}')
    assert done.returncode == 2
    assert "only section [dask] of luigi.cfg can set cluster" in done.stderr
