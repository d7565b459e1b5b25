"""The live view in a real terminal, and the log lines and events used instead."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import http_site
import terminal

BIN = Path(sys.executable).parent
RUN = "dpp run x.json --chunk-size 100"  # one chunk, so that the files that are held back do not keep others waiting
SPEAKS = """\
import logging
class Speaks:
    def process(self, file):
        if file.id == "slow-1":
            print("printed", flush=True)
            logging.getLogger("dpp.speaks").warning("warned")
            print("printed again", flush=True)
        return 1
"""


@pytest.fixture
def held(site, manifest):
    """Write a manifest of files, one of which is missing and two of which wait until the test releases them."""
    release = threading.Event()

    def write(count: int) -> threading.Event:
        slow = [site.script(f"/slow-{n}", lambda handler: release.wait(100) and handler.send(200, b"x")) for n in (1, 2)]
        urls = [*slow, f"{site.url}/missing", *(site.add(f"/f{n}", f"{n}") for n in range(count))]
        manifest([{"url": url} for url in urls])
        return release

    yield write
    release.set()


@pytest.mark.parametrize(
    ("command", "count"),
    [("dpp run x.json --workers 2", 97), ("luigi --module dpp RunBatch --files x.json --workers 2", 97), ("dpp run x.json --workers 2", 3)],
    ids=["dpp", "luigi", "graph"],
)
def test_a_run_is_drawn_while_it_lasts_and_leaves_the_summary(held, tmp_path, command, count):
    release = held(count)
    with terminal.opened(tmp_path) as shown:
        shown.type(f"{command}; echo ended with $?")
        shown.wait_for("slow-1  download", "slow-2  download", f"{count + 1} of {count + 3} files", "1 failed", "http-404")
        # Snapshots are written only twice a second, so the stages may lag behind the outcomes.
        line = rf"^download +{count} +2 +0 +1$"
        shown.wait_until(lambda screen: re.search(line, screen, re.MULTILINE), line)
        release.set()
        screen = shown.wait_for("ended with 1")
    assert f"{count + 2} of {count + 3} ok, 1 failed" in screen
    assert re.search(r"^retry: dpp retry x-\w+ --all$", screen, re.MULTILINE), screen
    assert "slowest" not in screen
    assert "waiting" not in screen


def test_what_others_write_stands_above_the_view_and_stays(held, tmp_path):
    (tmp_path / "mine.py").write_text(SPEAKS)
    release = held(60)
    with terminal.opened(tmp_path) as shown:
        shown.type(f"{RUN} --processor mine:Speaks; echo ended with $?")
        shown.wait_for("slow-1  download")
        release.set()
        lines = [line.strip() for line in shown.wait_for("ended with 1").splitlines()]
    assert lines.count("printed") == lines.count("WARNING: warned") == lines.count("printed again") == 1


def test_a_terminal_may_change_its_size(held, tmp_path):
    release = held(97)
    with terminal.opened(tmp_path) as shown:
        shown.type(f"{RUN}; echo ended with $?")
        shown.wait_for("slow-1  download")
        for columns, rows, expected in ((44, 9, "98 of 100 files"), (20, 4, "98 of 100 files"), (100, 24, "slow-2  download")):
            shown.resize(columns, rows)
            shown.wait_for(expected)
        assert shown.screen("-S", "-").count("slow-2  download") == 1
        release.set()
        screen = shown.wait_for("ended with 1")
    assert "waiting" not in screen


def test_an_interrupted_run_says_how_to_go_on(held, site, tmp_path):
    release = held(97)
    # A file that never ends, so that the run is incomplete whenever it handles the interrupt.
    site.script("/slow-2", http_site.silent())
    with terminal.opened(tmp_path) as shown:
        shown.type(f"{RUN} --download-threads 1; echo ended with $?")
        shown.wait_for("slow-1  download")
        shown.press("C-c")
        release.set()
        screen = shown.wait_for("ended with 130", "continue: dpp retry x-")
    assert "Traceback" not in screen
    assert "waiting" not in screen


def test_a_run_that_is_stopped_for_a_while_is_drawn_again(held, tmp_path):
    release = held(97)
    with terminal.opened(tmp_path) as shown:
        shown.type(f"{RUN}; echo ended with $?")
        shown.wait_for("slow-1  download")
        shown.press("C-z")
        shown.wait_for("Stopped")
        shown.type("clear; echo all is $((1 + 1))")
        shown.wait_until(lambda screen: "all is 2" in screen and "waiting" not in screen, "nothing but the answer")
        shown.type("clear; fg")
        shown.wait_for("slow-1  download")
        release.set()
        assert "waiting" not in shown.wait_for("99 of 100 ok, 1 failed")


def test_a_view_ends_with_a_run_that_is_killed(held, tmp_path):
    held(97)
    with terminal.opened(tmp_path) as shown:
        shown.type(f"{RUN}; echo ended with $?")
        shown.wait_for("slow-1  download")
        (asked,) = tmp_path.glob("dpp-workspace/batches/*/runs/1/run.json")
        os.kill(json.loads(asked.read_text())["pid"], signal.SIGKILL)
        shown.wait_for("ended with 137")
        shown.wait_until(lambda screen: "waiting" not in screen.partition("ended with 137")[2], "nothing below the shell's prompt")
        shown.type("clear")
        shown.type("dpp status --watch; echo watched with $?")
        said = shown.wait_for("watched with 1")
    assert "stopped before its end" in said


def test_another_terminal_watches_the_run_to_its_end(held, tmp_path):
    release = held(97)
    with terminal.opened(tmp_path) as first, terminal.opened(tmp_path, 60) as second:
        first.type(f"{RUN}; echo ended with $?")
        first.wait_for("slow-1  download")
        second.type("dpp status x- --watch; echo watched with $?")
        second.wait_for("slow-1  download", "98 of 100 files (98 %), 1 failed")
        release.set()
        assert "99 of 100 ok, 1 failed" in second.wait_for("watched with 1")
        first.wait_for("ended with 1")


def test_who_only_watches_can_stop_watching(held, tmp_path):
    release = held(97)
    with terminal.opened(tmp_path) as first, terminal.opened(tmp_path) as second:
        first.type(f"{RUN}; echo ended with $?")
        first.wait_for("slow-1  download")
        second.type("dpp status --watch; echo watched with $?")
        second.wait_for("slow-1  download")
        second.press("C-c")
        assert "waiting" not in second.wait_for("watched with 130")
        release.set()
        first.wait_for("ended with 1")


@pytest.mark.parametrize(("variables", "colored"), [({}, True), ({"NO_COLOR": "1"}, False)], ids=["color", "no-color"])
def test_no_color_is_honoured(held, tmp_path, variables, colored):
    release = held(60)
    with terminal.opened(tmp_path, **variables) as shown:
        shown.type(f"{RUN}; echo ended with $?")
        shown.wait_for("slow-1  download")
        assert bool(re.search(r"\x1b\[[0-9;]*3[0-7]m", shown.screen("-e"))) is colored
        release.set()
        shown.wait_for("ended with 1")


@pytest.mark.parametrize("variables", [{"CI": "true"}, {"TERM": "dumb"}], ids=["ci", "dumb"])
def test_where_a_view_helps_nobody_lines_are_said(held, tmp_path, variables):
    release = held(60)
    with terminal.opened(tmp_path, **variables) as shown:
        shown.type(f"{RUN}; echo ended with $?")
        shown.wait_for("INFO: 61 of 63 files (96 %), 1 failed")
        assert "slow-1" not in shown.screen()
        release.set()
        shown.wait_for("ended with 1")


def test_a_run_in_the_background_does_not_draw(held, tmp_path):
    release = held(60)
    with terminal.opened(tmp_path) as shown:
        shown.type(f"{RUN} & true")
        shown.wait_for("run 1 of batch")
        shown.type("dpp status --watch")
        shown.wait_for("slow-1  download")
        shown.press("C-c")
        shown.type("clear; sleep 1; jobs")
        assert "waiting" not in shown.wait_for("Running")
        release.set()
        shown.type("fg")
        shown.wait_for("62 of 63 ok, 1 failed")


@pytest.fixture
def batch(site, manifest):
    """Write the manifest of a batch of 40 files, two of which are missing."""
    urls = [site.add(f"/f{n}", f"{n}") for n in range(38)] + [f"{site.url}/missing{n}" for n in (1, 2)]
    return manifest([{"url": url} for url in urls])


@pytest.mark.parametrize(
    "words", [("dpp", "run"), ("luigi", "--module", "dpp", "RunBatch", "--workers", "2", "--files")], ids=["dpp", "luigi"]
)
def test_events_are_json_lines_and_standard_output_has_nothing_else(command, batch, words):
    done = command(*words, batch, "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [event.pop("event") for event in events if event["event"] != "progress"]
    assert kinds == ["run-started", *["file-finished"] * 40, "run-finished"]
    assert events[0]["total"] == 40
    assert len({event["id"] for event in events if "id" in event}) == 40
    assert (events[-1]["ok"], events[-1]["failed"], done.returncode) == (38, 2, 1)
    assert done.stderr == "ERROR: 2 of 40 files failed\n"


LOUD = """
import os
class Loud:
    def process(self, file):
        print("from Python")
        os.system("echo from a program")
"""


@pytest.mark.parametrize("chunks", [(), ("--chunk-size", "1")])
def test_what_a_step_prints_is_not_among_the_events(command, batch, tmp_path, chunks):
    (tmp_path / "loud.py").write_text(LOUD)
    done = command("dpp", "run", batch, "--json", "--processor", "loud:Loud", *chunks)
    assert {json.loads(line)["event"] for line in done.stdout.splitlines()} >= {"run-started", "file-finished", "run-finished"}
    assert (done.stderr.count("from Python"), done.stderr.count("from a program")) == (38, 38)


def test_who_stops_reading_events_stops_no_run(batch, tmp_path, results):
    process = subprocess.Popen([BIN / "dpp", "run", batch, "--json"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == (b"ERROR: 2 of 40 files failed\n", 1)
    process.stderr.close()
    assert len(results()) == 40


@pytest.mark.parametrize(
    "words", [("dpp", "run"), ("luigi", "--module", "dpp", "RunBatch", "--workers", "2", "--files")], ids=["dpp", "luigi"]
)
def test_a_quiet_run_says_errors_and_the_end_only(command, batch, words):
    done = command(*words, batch, "--quiet")
    lines = (done.stdout + done.stderr).splitlines()
    assert [line for line in lines if line.startswith(("ERROR", "INFO", "WARNING"))][-1].startswith("ERROR: 2 of 40 files failed")
    assert sum("38 of 40 ok, 2 failed" in line for line in lines) == 1
    assert not [line for line in lines if "run 1 of batch" in line or "%" in line]


def test_the_log_of_a_run_has_what_luigi_did(command, manifest, site, tmp_path):
    done = command(
        "luigi",
        "--module",
        "dpp",
        "RunBatch",
        "--files",
        manifest([{"url": site.add("/a", "a")}, {"url": f"{site.url}/b"}]),
        "--workers",
        2,
    )
    (log,) = tmp_path.glob("dpp-workspace/batches/*/runs/1/log.txt")
    assert "Luigi Execution Summary" not in done.stderr
    for text in ("Luigi Execution Summary", "2 Report(", "b failed in download: http-404", "a: ok", "Informed scheduler"):
        assert text in log.read_text()
