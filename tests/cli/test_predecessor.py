"""The command line of the predecessor, ``download-pipeline-processor``."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from textwrap import dedent

import pytest

import http_site
from listening import wait_until

BIN = Path(sys.executable).parent

COMMAND = "download-pipeline-processor"
OPTIONS = """
--files --pre-processor --processor --post-processor --processing-limit --download-queue-size --pre-processing-queue-size
--download-cache --simulate-downloads --debug --log-file
"""
CLASSES = """
    class Upper:
        def __init__(self, debug=False): ...

        def pre_process(self, file):
            target = file.output_dir / "upper.txt"
            target.write_text(file.local_path.read_text().upper())
            file.local_path = target
            return file

    class Read:
        def process(self, file):
            return file.local_path.read_text()

    class Note:
        def post_process(self, result, file):
            with open("notes.txt", "a") as notes:
                print(file.id, result, file.error and file.error.error_class, file=notes)
"""


@pytest.fixture
def classes(tmp_path):
    (tmp_path / "mine.py").write_text(dedent(CLASSES))


@pytest.fixture
def files(site, manifest):
    """Write a manifest of three files that exist."""
    return manifest([{"url": site.add(f"/{name}.txt", name * 3)} for name in "abc"])


def test_its_help_has_every_option(command):
    shown = set(re.findall(r"--[a-z-]+", command(COMMAND, "--help").stdout))
    assert shown == {*OPTIONS.split(), "--help"}


def test_it_downloads_and_sums_up(site, files, command):
    run = command(COMMAND, "--files", files)
    assert run.returncode == 0, run.stderr
    assert "3 of 3 ok, 0 failed; 9 B" in run.stdout
    assert "results were not kept" in run.stdout
    assert site.counts() == {"/a.txt": 1, "/b.txt": 1, "/c.txt": 1}


def test_every_option_does_its_part(classes, site, files, command, tmp_path):
    steps = ["--pre-processor", "mine:Upper", "--processor", "mine:Read", "--post-processor", "mine:Note"]
    limits = ["--processing-limit", 1, "--download-queue-size", 1, "--pre-processing-queue-size", 1]
    run = command(COMMAND, "--files", files, *steps, *limits, "--download-cache", "cache", "--debug", "--log-file", "log.txt")
    assert run.returncode == 0, run.stderr
    assert sorted((tmp_path / "notes.txt").read_text().splitlines()) == ["a AAA None", "b BBB None", "c CCC None"]
    assert len(list(tmp_path.glob("cache/downloads/*/*/*.txt"))) == 3
    settings = json.loads(next(tmp_path.glob("cache/batches/*/runs/1/run.json")).read_text())["settings"]
    asked = ("processing_limit", "download_queue_size", "pre_processing_queue_size", "debug", "simulate_downloads")
    assert [settings[name] for name in asked] == [1, 1, 1, True, False]
    for text in (run.stderr, (tmp_path / "log.txt").read_text()):
        assert re.search(r"^[\d-]+ [\d:,]+ DEBUG \[MainProcess process-1\] dpp.plugins.steps: a: processor mine:Read$", text, re.MULTILINE)


def test_a_failed_file_ends_it_with_1_and_the_post_processor_hears_of_it(classes, site, manifest, command, tmp_path):
    files = manifest([{"url": site.add("/a.txt", "aaa")}, {"url": f"{site.url}/b.txt"}])
    run = command(COMMAND, "--files", files, "--processor", "mine:Read", "--post-processor", "mine:Note")
    assert run.returncode == 1
    assert "1 of 2 ok, 1 failed" in run.stdout
    assert "1 failed in download (http-404), for example b" in run.stdout
    assert sorted((tmp_path / "notes.txt").read_text().splitlines()) == ["a aaa None", "b None http-404"]


def test_a_cache_is_resumed(site, files, command):
    for _ in range(2):
        run = command(COMMAND, "--files", files, "--download-cache", "cache")
        assert run.returncode == 0, run.stderr
    assert "3 of 3 ok (3 already done)" in run.stdout
    assert sum(site.counts().values()) == 3


def test_simulated_downloads_make_no_request(site, files, command):
    run = command(COMMAND, "--files", files, "--simulate-downloads", PIPELINE_NO_SLEEP="1")
    assert run.returncode == 0, run.stderr
    assert "3 of 3 ok" in run.stdout
    assert not site.counts()


def test_a_temporary_cache_is_removed(files, command, tmp_path):
    (tmp_path / "temporary").mkdir()
    plugin = tmp_path / "where.py"
    plugin.write_text(
        "import tempfile\nclass Where:\n    def process(self, file):\n        open('where', 'w').write(str(file.local_path))\n"
    )
    run = command(COMMAND, "--files", files, "--processor", "where:Where", TMPDIR=str(tmp_path / "temporary"))
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "where").read_text().startswith(str(tmp_path / "temporary"))
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing option '--files'"),
        (("--files", "missing.json"), "Error: missing.json: No such file or directory"),
        (("--files", "x.json", "--processing-limit", 0), "Invalid value for '--processing-limit'"),
        (("--files", "x.json", "--download-queue-size", "many"), "Invalid value for '--download-queue-size'"),
        (("--files", "x.json", "--processor", "nowhere:Class"), "Error: cannot import processor 'nowhere:Class': ModuleNotFoundError"),
        (
            ("--files", "x.json", "--pre-processor", "mine:Read"),
            "Error: 'mine:Read' is not a pre-processor: expected a class with a method",
        ),
        (("--files", "x.json", "--post-processor", "mine"), "Error: cannot import post-processor 'mine': "),
        (("--files", "wrong.json"), "entry 0: url is missing"),
    ],
)
def test_what_the_user_gets_wrong_ends_it_with_2(classes, site, files, command, tmp_path, arguments, said):
    (tmp_path / "wrong.json").write_text("[{}]")
    run = command(COMMAND, *arguments)
    assert run.returncode == 2
    assert said in run.stderr
    assert "Traceback" not in run.stderr
    assert not site.counts()


def test_a_cache_that_cannot_be_written_ends_it_with_3(files, command, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    run = command(COMMAND, "--files", files, "--download-cache", "cache")
    assert run.returncode == 3
    assert "Traceback" not in run.stderr


# Interrupts


def test_an_interrupt_before_the_run_ends_it_with_130(files, command, tmp_path):
    (tmp_path / "slow.py").write_text("raise KeyboardInterrupt")
    run = command(COMMAND, "--files", files, "--processor", "slow:Class")
    assert (run.returncode, run.stderr.strip()) == (130, "interrupted")


GATE = """
    from pathlib import Path
    from urllib.request import urlopen

    from dpp.engine import engine
    from dpp.engine.pipeline import Pipeline

    engine.GRACE_SECONDS = 100.0  # the test decides when the file in progress ends
    stop = Pipeline.stop

    def stop_and_tell(pipeline):
        stop(pipeline)
        Path("stopping").touch()

    Pipeline.stop = stop_and_tell

    class Gate:
        def process(self, file):
            with urlopen(file.url.replace("/files/", "/gate/")) as answer:
                return answer.status
"""


@pytest.fixture
def gates(site, manifest, tmp_path):
    """Write a manifest of three files whose processor requests a page: the first response waits for the test, the others never end."""
    (tmp_path / "gate.py").write_text(dedent(GATE))
    reached, go, never = threading.Event(), threading.Event(), threading.Event()

    def wait(handler):
        first = not reached.is_set()
        reached.set()
        (go if first else never).wait(100)
        handler.send(200)

    for name in "abc":
        site.add(f"/files/{name}", name)
        site.script(f"/gate/{name}", wait)
    manifest([{"url": f"{site.url}/files/{name}"} for name in "abc"])
    yield reached, go
    go.set()
    never.set()


def start(tmp_path, *arguments):
    everything = [BIN / COMMAND, "--files", "x.json", "--processor", "gate:Gate", "--processing-limit", "1", *arguments]
    return subprocess.Popen(everything, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_lets_the_file_on_its_way_end(gates, tmp_path, site, command, results, number, code):
    reached, go = gates
    process = start(tmp_path, "--download-cache", "cache")
    assert reached.wait(60)
    process.send_signal(number)
    wait_until((tmp_path / "stopping").exists)
    go.set()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, "interrupted; run again" in err, "Traceback" in err) == (code, True, False)
    assert "1 of 3 ok, 0 failed, 2 not done" in out, err
    assert [(row["status"], row["result"]) for row in results("cache").values()] == [("ok", 200)]

    for name in "abc":
        site.script(f"/gate/{name}", http_site.status(200))
    site.forget()
    run = command(COMMAND, "--files", "x.json", "--processor", "gate:Gate", "--download-cache", "cache")
    assert run.returncode == 0, run.stderr
    assert "3 of 3 ok (1 already done)" in run.stdout
    assert sum(count for path, count in site.counts().items() if path.startswith("/gate/")) == 2


def test_a_second_interrupt_does_not_wait_and_the_temporary_cache_is_removed(gates, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    reached, _ = gates
    process = start(tmp_path)
    assert reached.wait(60)
    process.send_signal(signal.SIGINT)
    wait_until((tmp_path / "stopping").exists)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (130, False)
    assert list((tmp_path / "temporary").iterdir()) == []
