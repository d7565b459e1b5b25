"""Tests of the main job as a user types it: ``luigi --module dpp RunBatch``."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

import http_site
from aftermath import check, targets
from listening import wait_until
from luigi_server import luigid

BIN = Path(sys.executable).parent
pytestmark = pytest.mark.usefixtures("fetcher")
BOTH_FETCHERS = pytest.mark.parametrize("fetcher", ["requests", "curl"], indirect=True)


def served(site, count):
    """Serve files of four kilobytes, each different; return their manifest entries."""
    return [{"url": site.add(f"/f{n}.bin", hashlib.sha256(b"%d" % n).digest() * 128)} for n in range(count)]


def started(tmp_path, *arguments):
    """Start the main job in its own process group."""
    command = [BIN / "luigi", "--module", "dpp", "RunBatch", *map(str, arguments)]
    return subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def hold(site):
    """Return a function that makes the server hold back a file, until the returned event is set or the test ends."""
    events = []

    def keep(path):
        events.append(release := threading.Event())
        site.script(path, lambda handler: release.wait() and http_site.serve_file(handler))
        return release

    yield keep
    for event in events:
        event.set()


def ended(process):
    """Wait for a process to end; return its exit code and its output."""
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


@BOTH_FETCHERS
def test_two_of_twelve_fail_and_only_those_are_fetched_again(site, manifest, run_batch, results):
    entries = served(site, 10)
    entries.append({"url": f"{site.url}/missing.txt"})
    entries.append({"url": site.add("/changed.txt", "wrong"), "sha256": hashlib.sha256(b"right").hexdigest()})
    files = manifest(entries)

    first = run_batch(files, "--workers", 4)
    assert first.returncode == 1, first.stderr
    rows = results()
    assert sum(row["status"] == "ok" for row in rows.values()) == 10
    assert (rows["missing"]["stage"], rows["missing"]["error_class"], rows["missing"]["http_status"]) == ("download", "http-404", 404)
    assert (rows["changed"]["stage"], rows["changed"]["error_class"]) == ("download", "checksum")
    assert "10 of 12 ok" in first.stderr
    assert "Traceback" not in first.stderr

    site.add("/missing.txt", "here now")
    site.add("/changed.txt", "right")
    site.forget()
    assert run_batch(files, "--workers", 4).returncode == 0
    assert site.counts() == {"/missing.txt": 1, "/changed.txt": 1}

    site.forget()
    assert run_batch(files, "--workers", 4).returncode == 0
    assert not site.counts()


def test_a_failed_file_is_tried_once_a_run_in_the_graph_of_tasks(site, manifest, run_batch):
    run_batch(manifest([{"url": f"{site.url}/missing.txt"}, *served(site, 1)]), "--workers", 2)
    assert site.counts()["/missing.txt"] == 1


@BOTH_FETCHERS
@pytest.mark.parametrize("size", [1, 7, 0])
def test_tasks_and_chunks_leave_the_same_targets(site, manifest, run_batch, tmp_path, size):
    files = manifest([*served(site, 20), {"url": f"{site.url}/missing"}])
    run_batch(files, "--chunk-size", size, "--workers", 2, "--workspace", "one")
    run_batch(files, "--chunk-size", 5, "--workers", 2, "--workspace", "two")
    assert targets(tmp_path / "one") == targets(tmp_path / "two")


def test_chunks_take_up_what_tasks_left(site, manifest, run_batch, results):
    files = manifest(served(site, 12))
    assert run_batch(files, "--chunk-size", 1).returncode == 0
    site.forget()
    assert run_batch(files, "--chunk-size", 5).returncode == 0
    assert not site.counts()
    assert all(row["cached"] for row in results().values())


@pytest.mark.parametrize("chunk_size", [1, 4])
def test_results_say_what_became_of_each_file(site, manifest, run_batch, results, chunk_size):
    url = site.add("/a.csv", "1,2\n")
    run_batch(manifest([{"url": url + "?sig=topsecret", "id": 7}, *served(site, 4)]), "--chunk-size", chunk_size)
    row = results()["7"]
    assert row["url"] == url + "?***"
    assert (row["status"], row["attempts"], row["bytes"]) == ("ok", 1, 4)
    assert row["sha256"] == hashlib.sha256(b"1,2\n").hexdigest()
    assert row["result"] == {"size": 4, "sha256": row["sha256"], "media_type": "text/csv"}
    assert row["plugins"] == [{"kind": "processor", "name": "checksum", "version": "1"}]
    assert row["seconds"].keys() >= {"download", "process"}


def test_summary_counts_and_groups_failures(site, manifest, run_batch, tmp_path):
    run_batch(manifest([*served(site, 3), {"url": f"{site.url}/x1"}, {"url": f"{site.url}/x2"}]))
    (path,) = tmp_path.glob("dpp-workspace/batches/*/runs/1/summary.json")
    summary = json.loads(path.read_text())
    assert (summary["total"], summary["ok"], summary["failed"], summary["missing"]) == (5, 3, 2, 0)
    assert [(group["stage"], group["error_class"], group["count"]) for group in summary["failures"]] == [("download", "http-404", 2)]


@BOTH_FETCHERS
@pytest.mark.fault(14)
def test_a_killed_batch_goes_on_where_it_was(site, manifest, tmp_path, hold):
    files = manifest(served(site, 600))
    release = hold("/f599.bin")
    process = started(tmp_path, "--files", files, "--workers", 2, "--workspace", "killed")
    wait_until(lambda: len(site.requests) > 200)
    os.killpg(process.pid, signal.SIGKILL)
    ended(process)
    release.set()
    whole = {path.name for path in (tmp_path / "killed").glob("downloads/*/*/*.bin")}
    assert 0 < len(whole) < 600

    site.forget()
    again = started(tmp_path, "--files", files, "--workers", 2, "--workspace", "killed")
    assert ended(again)[0] == 0
    assert {path.removeprefix("/") for path in site.counts()} == {f"f{n}.bin" for n in range(600)} - whole

    undisturbed = started(tmp_path, "--files", files, "--workers", 2, "--workspace", "undisturbed")
    assert ended(undisturbed)[0] == 0
    check(tmp_path / "killed", code=0, total=600, same_as=tmp_path / "undisturbed")


@pytest.mark.fault(15)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_ends_the_batch_with_a_summary(site, manifest, tmp_path, hold, number, code, workers):
    files = manifest(served(site, 400))
    # The batch must not end too early.
    hold("/f399.bin")
    process = started(tmp_path, "--files", files, "--workers", workers, "--chunk-size", 200, "--download-threads", 1)
    wait_until(lambda: len(site.requests) > 20)
    process.send_signal(number)
    returned, output = ended(process)
    assert returned == code, output
    assert "Traceback" not in output
    assert re.search(r"run 1: \d+ of 400 ok, 0 failed, \d+ not done", output)
    assert not list((tmp_path / "dpp-workspace").rglob("*.part"))


@pytest.mark.fault(19)
def test_a_second_run_of_the_same_batch_says_who_holds_it(site, manifest, run_batch, tmp_path, hold):
    release = hold("/slow")
    files = manifest([{"url": site.add("/slow", "x")}])
    process = started(tmp_path, "--files", files)
    wait_until(lambda: site.requests)
    second = run_batch(files)
    release.set()
    assert ended(process)[0] == 0
    assert second.returncode == 3
    assert f"pid {process.pid} on " in second.stderr


@pytest.fixture
def scheduler(tmp_path):
    """Run a central scheduler; yield its URL."""
    with luigid(tmp_path) as url:
        yield url


def logged(tmp_path):
    """Return the logs of all runs."""
    return "".join(path.read_text() for path in tmp_path.glob("dpp-workspace/batches/*/runs/*/log.txt"))


@pytest.mark.fault(19)
@pytest.mark.parametrize(("count", "chunk_size"), [(200, 10), (12, 1)])
def test_two_processes_share_a_batch_through_one_scheduler(site, manifest, tmp_path, hold, scheduler, count, chunk_size):
    files = manifest(served(site, count))
    release = hold("/f0.bin")
    arguments = ("--files", files, "--workers", 2, "--chunk-size", chunk_size, "--scheduler-url", scheduler)
    processes = [started(tmp_path, *arguments) for _ in range(2)]
    wait_until(lambda: logged(tmp_path).count("run 1 of batch") == len(processes))  # one that comes after the end begins another run
    release.set()
    endings = [ended(process) for process in processes]
    assert [code for code, _ in endings] == [0, 0], endings
    assert site.counts() == Counter({f"/f{n}.bin": 1 for n in range(count)})
    (folder,) = tmp_path.glob("dpp-workspace/batches/*/runs/*")
    assert len((folder / "results.jsonl").read_text().splitlines()) == count


def test_a_failed_file_ends_a_shared_batch_without_a_wait(site, manifest, tmp_path, scheduler):
    files = manifest([*served(site, 4), {"url": f"{site.url}/missing"}])
    processes = [started(tmp_path, "--files", files, "--scheduler-url", scheduler) for _ in range(2)]
    endings = [ended(process) for process in processes]
    assert [code for code, _ in endings] == [1, 1], endings


def test_two_batches_with_the_same_files_do_not_meet_in_one_scheduler(site, manifest, tmp_path, scheduler):
    entries = served(site, 5)
    paths = [manifest(entries[:4], "a.json"), manifest(entries, "b.json")]
    processes = [started(tmp_path, "--files", path, "--workers", 2, "--scheduler-url", scheduler) for path in paths]
    endings = [ended(process) for process in processes]
    assert [code for code, _ in endings] == [0, 0], endings
    assert set(site.counts().values()) == {1}


@pytest.mark.fault(19)
def test_workers_of_a_killed_process_do_not_hold_the_batch(site, manifest, run_batch, tmp_path, hold):
    release = hold("/slow")
    files = manifest([{"url": site.add("/slow", "x")}, *served(site, 50)])
    process = started(tmp_path, "--files", files, "--workers", 2, "--chunk-size", 30)
    wait_until(lambda: "/slow" in site.counts())
    process.kill()
    release.set()
    ended(process)
    assert wait_until(lambda: run_batch(files, "--chunk-size", 30).returncode == 0)


def test_a_slow_constructor_is_called_once_before_the_batch_and_not_for_every_task(site, manifest, run_batch, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import os\nclass Slow:\n"
        "    def __init__(self):\n        open('made', 'a').write(f'{os.getpid()}\\n')\n"
        "    def process(self, file):\n        return 1\n"
    )
    files = manifest(served(site, 6))
    assert run_batch(files, "--processor", "mine:Slow").returncode == 0
    made = len((tmp_path / "made").read_text().splitlines())
    assert run_batch(files, "--processor", "mine:Slow").returncode == 0
    assert made <= 1 + 6
    assert len((tmp_path / "made").read_text().splitlines()) == made + 1


def test_progress_is_said_while_nothing_ends(site, manifest, tmp_path, hold):
    release = hold("/slow")
    process = started(tmp_path, "--files", manifest([{"url": site.add("/slow", "x")}, *served(site, 3)]), "--chunk-size", 9)
    said = next(line for line in process.stdout if "3 of 4 files" in line)
    release.set()
    rates = r"(, 0\.\d\d files/s, [^,]*B/s)?"  # none where all three were done before it looked for the first time
    assert re.fullmatch(rf"INFO: 3 of 4 files \(75 %\), 0 failed{rates}\n", said)
    assert ended(process)[0] == 0


@pytest.mark.fault(22)
def test_a_wrong_manifest_is_refused_with_every_problem_before_anything_is_fetched(site, manifest, run_batch):
    wrong = run_batch(manifest([*served(site, 2), {"id": 1}, {"url": "no-scheme"}, 5, {"url": f"{site.url}/f0.bin", "size": "big"}]))
    assert wrong.returncode == 2
    assert all(f"entry {index}" in wrong.stderr for index in (2, 3, 4, 5))
    assert not site.requests


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--processor", "cheksum"), "did you mean 'checksum'?"),
        (("--attempts", "many"), "attempts: expected a number, got 'many'"),
        (("--attempts", "0"), "attempts"),
        (("--workers", "many"), "workers: expected a whole number"),
        (("--workers", "0"), "workers: expected at least 1, got 0"),
        (("--options", "{bad"), "options: expected JSON"),
        (("--options", "[1]"), "options: expected an object of objects"),
        (("--options", '{"other": {"x": 1}}'), "options for other"),
        (("--options", '{"checksum": {"x": 1}}'), "options of checksum"),
    ],
)
def test_a_wrong_argument_is_refused_in_plain_words(site, manifest, run_batch, arguments, message):
    wrong = run_batch(manifest(served(site, 1)), *arguments)
    assert wrong.returncode == 2
    assert message in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert not site.requests


@pytest.mark.cold
@pytest.mark.parametrize("program", [("luigi", "--module", "dpp", "RunBatch", "--files"), ("dpp", "run")])
def test_a_wrong_argument_is_refused_from_a_cold_start(site, manifest, command, program):
    wrong = command(*program, manifest(served(site, 1)), "--processor", "cheksum")
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False)
    assert "unknown processor 'cheksum'; did you mean 'checksum'?" in wrong.stderr


def test_no_files_and_a_missing_manifest_are_refused(command, run_batch):
    assert "no files" in command("luigi", "--module", "dpp", "RunBatch").stderr
    missing = run_batch("nothing.json")
    assert (missing.returncode, "nothing.json: No such file" in missing.stderr) == (2, True)


@pytest.mark.fault(17)
def test_a_workspace_that_cannot_be_made_stops_the_run_before_any_request(site, manifest, run_batch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    stopped = run_batch(manifest(served(site, 1)), "--workspace", tmp_path / "file")
    assert stopped.returncode == 3
    assert "cannot write" in stopped.stderr
    assert not site.requests


@pytest.mark.parametrize("chunk_size", [1, 32])
def test_a_list_with_new_signatures_and_the_same_digests_is_done(site, manifest, run_batch, results, chunk_size):
    site.add("/a.bin", "data")
    digest = hashlib.sha256(b"data").hexdigest()

    def signed(number):
        return manifest([{"url": f"{site.url}/a.bin?X-Amz-Signature={number}", "id": "a", "sha256": digest.upper()}])

    for number in (1, 2):
        assert run_batch(signed(number), "--chunk-size", chunk_size).returncode == 0
        assert results()["a"]["cached"] is (number == 2)
    assert run_batch(signed(3), "--chunk-size", chunk_size, "--options", '{"checksum": {"algorithm": "md5"}}').returncode == 0
    assert len(site.requests) == 1


@pytest.mark.fault(22)
def test_an_empty_manifest_is_a_batch_without_files_only_if_that_is_allowed(manifest, run_batch, tmp_path):
    refused = run_batch(manifest([]))
    assert (refused.returncode, "x.json: the list names no files; if that is right, use --allow-empty" in refused.stderr) == (2, True)
    assert not list(tmp_path.glob("dpp-workspace/batches/*/runs/*"))
    done = run_batch(manifest([]), "--allow-empty")
    assert done.returncode == 0
    assert "0 of 0 ok" in done.stderr


def test_settings_come_from_luigi_cfg_below_the_command_line(site, manifest, run_batch, tmp_path, results):
    (tmp_path / "luigi.cfg").write_text("[RunBatch]\nworkspace=from-cfg\n\n[checksum]\nalgorithm=md5\n")
    files = manifest(served(site, 1))
    assert run_batch(files).returncode == 0
    assert results("from-cfg")["f0"]["result"].keys() == {"size", "md5", "media_type"}
    assert run_batch(files, "--options", '{"checksum": {"algorithm": "sha1"}}', "--workspace", "given").returncode == 0
    assert "sha1" in results("given")["f0"]["result"]


def test_the_users_own_luigi_settings_win(site, manifest, run_batch, tmp_path):
    (tmp_path / "luigi.cfg").write_text("[retcode]\ntask_failed=42\n")
    assert run_batch(manifest([{"url": f"{site.url}/missing"}])).returncode == 42


def test_luigis_own_log_is_there_when_asked_for(site, manifest, run_batch):
    files = manifest(served(site, 1))
    assert "Informed scheduler" not in run_batch(files).stderr
    assert "Informed scheduler" in run_batch(files, "--log-level", "INFO").stderr


@pytest.mark.fault(27)
def test_secrets_are_in_no_log_and_no_file(site, manifest, run_batch, tmp_path):
    plain = site.add("/f.txt", "x")
    url = plain.replace("http://", "http://user:canary1@") + "?sig=canary2"
    bad = plain.replace("f.txt", "missing").replace("http://", "http://user:canary1@") + "?sig=canary2"
    entries = [{"url": url, "headers": {"X-Token": "canary3"}}, {"url": bad, "id": "bad", "headers": {"X-Token": "canary3"}}]
    done = run_batch(manifest(entries), "--log-level", "DEBUG", "--debug")
    assert done.returncode == 1
    assert site.headers("/f.txt?sig=canary2")[0]["x-token"] == "canary3"
    assert "canary" not in done.stderr + done.stdout
    leaks = [path for path in (tmp_path / "dpp-workspace").rglob("*") if path.is_file() and b"canary" in path.read_bytes()]
    assert not leaks


def test_the_four_tasks_of_one_file_run_alone_and_deps_tree_shows_them(site, command, tmp_path):
    url = site.add("/a.txt", "hello")
    shown = command("luigi-deps-tree", "--module", "dpp", "Report", "--url", url).stdout
    assert re.findall(r"\[(\w+)-", shown) == ["Report", "Processed", "PreProcessed", "DownloadTarget"]
    assert command("luigi", "--module", "dpp", "Report", "--url", url).returncode == 0
    assert "COMPLETE" in command("luigi-deps-tree", "--module", "dpp", "Report", "--url", url).stdout
    assert site.counts() == {"/a.txt": 1}
    assert len(list((tmp_path / "dpp-workspace/reports").rglob("*.json"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "url is missing"),
        (("--url", "notaurl"), "has no scheme"),
        (("--url", "gopher://h/x"), "no fetcher for gopher:"),
        (("--url", "file:///x", "--processor", "nope"), "unknown processor 'nope'"),
        (("--url", "file:///x", "--attempts", "0"), "attempts"),
        (("--url", "file:///x", "--fields", '{"size": "big"}'), "size"),
        (("--url", "file:///x", "--fields", "{bad"), "fields: expected JSON"),
        (("--url", "file:///x", "--fields", "[1]"), "fields: expected an object"),
    ],
)
def test_a_task_alone_refuses_wrong_arguments_in_plain_words(command, arguments, message):
    wrong = command("luigi", "--module", "dpp", "Report", *arguments)
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (2, False), wrong.stderr
    assert message in wrong.stderr


def test_options_of_plugins_are_in_no_file_in_clear(site, manifest, run_batch, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from dpp import BaseProcessor\nclass Up(BaseProcessor):\n    password: str\n    def process(self, file):\n        return 1\n"
    )
    assert (
        run_batch(manifest(served(site, 2)), "--processor", "mine:Up", "--options", '{"mine:Up": {"password": "canary"}}').returncode == 0
    )
    assert not [path for path in (tmp_path / "dpp-workspace").rglob("*") if path.is_file() and b"canary" in path.read_bytes()]


def test_a_task_alone_fails_where_its_file_does(site, command):
    failed = command("luigi", "--module", "dpp", "Report", "--url", f"{site.url}/missing?sig=canary")
    assert failed.returncode == 1
    assert "the server responded with 404" in failed.stderr
    assert "canary" not in failed.stderr


def test_deps_tree_of_a_batch_leaves_the_batch_as_it_was(site, manifest, command, run_batch, tmp_path):
    files = manifest(served(site, 2))
    shown = command("luigi-deps-tree", "--module", "dpp", "RunBatch", "--files", files, "--workers", 2)
    assert shown.stdout.count("[Report-") == 2
    assert not site.requests
    assert [path.name for path in (tmp_path / "dpp-workspace").rglob("*") if path.is_file()] == ["lock"]
    assert run_batch(files).returncode == 0


@pytest.mark.parametrize(("count", "workers"), [(6, 1), (30, 4)])
def test_the_files_of_a_small_batch_are_downloaded_side_by_side(site, manifest, run_batch, count, workers):
    together = threading.Barrier(count)
    reply = lambda handler: together.wait(http_site.SECONDS) >= 0 and handler.send(200, b"x")  # noqa: E731
    files = manifest([{"url": site.script(f"/{number}", reply)} for number in range(count)])
    assert run_batch(files, "--workers", workers, "--attempts", 1).returncode == 0


def test_one_url_under_two_ids_is_downloaded_once(site, manifest, run_batch, results):
    url = site.add("/a.txt", "hello")
    assert run_batch(manifest([{"url": url, "id": "one"}, {"url": url, "id": "two", "name": "other.txt"}]), "--workers", 2).returncode == 0
    assert site.counts() == {"/a.txt": 1}
    assert results().keys() == {"one", "two"}


@pytest.mark.fault(20)
@pytest.mark.parametrize("damage", [b"", b"hel", None], ids=["emptied", "cut", "link-to-itself"])
def test_a_target_that_was_emptied_or_cut_is_made_again(site, manifest, run_batch, tmp_path, damage):
    files = manifest([{"url": site.add("/a.txt", "hello")}])
    run_batch(files)
    (body,) = tmp_path.glob("dpp-workspace/downloads/*/*/a.txt")
    if damage is None:
        body.unlink()
        body.symlink_to(body.name)
    else:
        body.write_bytes(damage)
    assert run_batch(files).returncode == 0
    assert body.read_bytes() == b"hello"


def test_downloads_can_be_simulated_and_never_pass_for_real(site, manifest, run_batch, tmp_path):
    files = manifest(served(site, 3))
    assert run_batch(files, "--simulate-downloads", PIPELINE_NO_SLEEP="1").returncode == 0
    assert not site.requests
    assert run_batch(files).returncode == 0
    assert len(site.counts()) == 3
