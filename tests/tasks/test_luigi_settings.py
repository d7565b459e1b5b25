"""Tests of Luigi's settings: each of those that do not work with dpp is refused by name before anything is fetched."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import luigi
import pytest
from dpp import RunBatch
from dpp.tasks.luigi_settings import RULES, SECTIONS

WRONG = {
    "assistant": "true\n[worker]\nkeep_alive=true",
    "parallel_scheduling": "true",
    "logging_conf_file": "/nowhere",
    "timeout": "5",
    "task_limit": "9",
    "wait_interval": "0",
    "wait_jitter": "-1",
    "task_process_context": "nowhere.Class",
    "worker_disconnect_delay": "1",
    "metrics_collector": "prometheus",
}
INVALID = {
    "core": "workers=x",
    "worker": "wait_interval=x",
    "scheduler": "retry_delay=x",
    "email": "format=x",
    "execution_summary": "summary_length=x",
}
PAGE = Path(__file__).resolve().parents[2] / "docs/reference/luigi-settings.md"


@pytest.fixture
def batch(tmp_path, manifest):
    """A manifest of one file."""
    (tmp_path / "a").write_text("a")
    return manifest([{"url": (tmp_path / "a").as_uri()}])


@pytest.fixture
def programs(command, batch):
    """Return a function that runs the batch with ``dpp run`` and Luigi, and returns the exit codes and the outputs."""

    def run(**environment):
        lines = [("dpp", "run", batch), ("luigi", "--module", "dpp", "RunBatch", "--files", batch)]
        done = [command(*line, **environment) for line in lines]
        assert not any("Traceback" in one.stdout + one.stderr for one in done)
        return [(one.returncode, one.stdout + one.stderr) for one in done]

    return run


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_setting_that_does_not_work_is_refused_by_name(programs, tmp_path, rule):
    (tmp_path / "luigi.cfg").write_text(f"[{rule.section}]\n{rule.name}={WRONG[rule.name]}\n")
    for code, output in programs():
        assert code == 2
        assert f"[{rule.section}] {rule.name}=" in output
        assert rule.reason in output
    assert not (tmp_path / "dpp-workspace/batches").exists()


@pytest.mark.parametrize("section", SECTIONS)
def test_an_invalid_value_is_refused_with_its_section(programs, tmp_path, section):
    (tmp_path / "luigi.cfg").write_text(f"[{section}]\n{INVALID[section]}\n")
    assert all((code, f"[{section}]" in output) == (2, True) for code, output in programs())


def test_an_option_of_the_command_line_is_refused_as_well(command, batch):
    done = command("luigi", "--module", "dpp", "RunBatch", "--files", batch, "--parallel-scheduling")
    assert (done.returncode, "parallel_scheduling=True" in done.stderr) == (2, True)


def test_settings_that_work_do(programs, tmp_path):
    (tmp_path / "mine.py").write_text("import contextlib\nTraced = contextlib.nullcontext\n")
    (tmp_path / "luigi.cfg").write_text(
        "[core]\nno_lock=false\n"
        "[worker]\nkeep_alive=true\nforce_multiprocessing=true\ncheck_complete_on_run=true\ncache_task_completion=true\n"
        "check_unfulfilled_deps=false\nping_interval=0.1\nmax_reschedules=0\ntask_process_context=mine.Traced\n"
        "[scheduler]\nremove_delay=0\nretry_count=1\nprune_on_get_work=false\n"
    )
    assert [code for code, _ in programs(PYTHONPATH=str(tmp_path))] == [0, 0]


def test_every_setting_of_luigi_is_in_the_table():
    """The page names each option of the sections that a run reads."""
    rows = re.findall(r"^\| `\[(\w+)\]` \| (.+?) \|", PAGE.read_text(), re.MULTILINE)
    listed = {(section, name) for section, names in rows for name in re.findall(r"`(\w+)`", names)}
    known = {(section, name) for section, kind in SECTIONS.items() for name, _ in kind.get_params()}
    assert known - listed == set()


def test_a_batch_can_be_built_in_a_thread(batch):
    built = []
    thread = threading.Thread(target=lambda: built.append(luigi.build([RunBatch(files=batch)], local_scheduler=True)))
    thread.start()
    thread.join()
    assert built == [True]


@pytest.mark.fault(37)
def test_a_scheduler_that_cannot_be_reached_stops_the_run(command, batch, tmp_path, seen):
    (tmp_path / "luigi.cfg").write_text("[core]\nrpc_retry_attempts=2\nrpc_retry_wait=0\n")
    done = command("luigi", "--module", "dpp", "RunBatch", "--files", batch, "--scheduler-url", "http://me:canary@127.0.0.1:9")
    assert done.returncode == 3
    assert done.stderr.count("cannot reach Luigi's scheduler at http://***@127.0.0.1:9: Connection refused") == 1
    assert "Traceback" not in done.stderr
    assert "NoneType" not in done.stderr
    assert "canary" not in done.stderr
    seen("scheduler not reached: stopped")
