"""Tests of ``dpp watch`` as users run it: what is taken, when, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys

import pytest

from dpp_watch.command import default_name


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_what_arrives_is_processed_once(watched, wait):
    (watched.folder / "before.txt").write_text("before")
    process = watched.started()
    wait(watched.ended)
    (watched.folder / "after.txt").write_text("after")
    wait(lambda: watched.ended(2))
    assert watched.stop(process) == 128 + signal.SIGTERM
    assert watched.done() == {("before.txt", sha("before")): 1, ("after.txt", sha("after")): 1}
    assert watched.once() == 0
    assert sum(watched.done().values()) == 2


def test_files_that_are_moved_or_linked_in_are_taken(watched, wait, tmp_path):
    watched.started()
    for name in ("moved", "linked"):
        (tmp_path / name).write_text(name)
    (tmp_path / "moved").rename(watched.folder / "moved")
    os.link(tmp_path / "linked", watched.folder / "linked")
    wait(lambda: len(watched.done()) == 2)
    assert watched.done() == {("moved", sha("moved")): 1, ("linked", sha("linked")): 1}


def test_a_file_is_taken_whole_however_slowly_it_is_written(watched, wait):
    watched.started()
    with (watched.folder / "slow.txt").open("w", buffering=1) as stream:
        for number in range(5):
            stream.write(f"{number}\n")
            (watched.folder / f"{number}.txt").write_text("other")
            wait(lambda name=f"{number}.txt": (name, sha("other")) in watched.done())
    wait(lambda: ("slow.txt", sha("0\n1\n2\n3\n4\n")) in watched.done())
    assert [row["id"] for row in watched.results()].count("slow.txt") == 1


def test_each_version_of_a_file_has_its_results(watched, wait):
    watched.started()
    for text in ("first", "second"):
        (watched.folder / "a.txt").write_text(text)
        wait(lambda text=text: ("a.txt", sha(text)) in watched.done())
    assert watched.done() == {("a.txt", sha("first")): 1, ("a.txt", sha("second")): 1}


@pytest.mark.parametrize(("changed", "code"), [("ignore", 0), ("fail", 1)])
def test_a_rewritten_file_is_not_taken_if_that_is_not_wanted(watched, changed, code):
    (watched.folder / "a.txt").write_text("first")
    assert watched.once() == 0
    (watched.folder / "a.txt").write_text("second")
    assert watched.once("--changed", changed) == code
    assert f"a.txt was rewritten after it was taken; the new version is not taken (--changed {changed})" in watched.errors()
    assert watched.done() == {("a.txt", sha("first")): 1}


def test_a_file_is_ready_when_its_marker_is_there(watched, wait):
    watched.started("--ready", "marker", "--marker", "{name}.ok")
    (watched.folder / "a.txt").write_text("a")
    (watched.folder / "b.txt").write_text("b")
    (watched.folder / "b.txt.ok").touch()
    wait(watched.ended)
    assert watched.done() == {("b.txt", sha("b")): 1}
    (watched.folder / "a.txt.ok").touch()
    wait(lambda: watched.ended(2))
    assert watched.done() == {("a.txt", sha("a")): 1, ("b.txt", sha("b")): 1}


def test_folders_that_appear_are_watched(watched, wait):
    watched.started("--recursive")
    (watched.folder / "new/deep").mkdir(parents=True)
    (watched.folder / "new/deep/a.txt").write_text("a")
    (watched.folder / ".hidden").mkdir()
    (watched.folder / ".hidden/b.txt").write_text("b")
    wait(watched.ended)
    (watched.folder / "new/deep/c.txt").write_text("c")
    wait(lambda: watched.ended(2))
    assert {name for name, _ in watched.done()} == {"new/deep/a.txt", "new/deep/c.txt"}


def test_failed_files_join_the_next_batches_until_they_are_given_up(watched, install_failing):
    (watched.folder / "bad.txt").write_text("bad")
    codes = [watched.once("--processor", install_failing, "--give-up", "2") for _ in range(3)]
    assert codes == [1, 1, 0]
    assert [line["failed"] for line in watched.journal() if "ended" in line] == [["bad.txt"], ["bad.txt"]]
    assert "collection 2: 1 failed, 1 of them for the last time" in watched.errors()


@pytest.fixture
def install_failing(tmp_path, monkeypatch):
    """A processor that fails."""
    (tmp_path / "failing.py").write_text(
        "from dpp import BaseProcessor\n\n\nclass Failing(BaseProcessor):\n"
        "    name = 'failing'\n    version = '1'\n\n    def process(self, file):\n        raise ValueError('no')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return "failing:Failing"


def test_the_files_of_a_batch_are_at_most_as_many_as_wanted(watched):
    for number in range(5):
        (watched.folder / f"{number}.txt").write_text("x")
    assert watched.once("--max-files", "2") == 0
    assert [sum(line.get("batch") == number and "path" in line for line in watched.journal()) for number in (1, 2, 3)] == [2, 2, 1]


def test_a_signal_lets_the_files_in_progress_finish(watched, wait, tmp_path, monkeypatch):
    (tmp_path / "slow.py").write_text(
        "import time\nfrom pathlib import Path\nfrom dpp import BaseProcessor\n\n\nclass Slow(BaseProcessor):\n"
        "    name = 'slow'\n    version = '1'\n\n    def process(self, file):\n"
        f"        Path({str(tmp_path)!r}, 'begun').touch()\n        time.sleep(1)\n        return 1\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    for number in range(30):
        (watched.folder / f"{number}.txt").write_text("x")
    process = watched.started("--processor", "slow:Slow", "--processing-limit", "1", "--workers", "1")
    wait((tmp_path / "begun").exists)
    assert watched.stop(process, signal.SIGINT) == 130
    assert 1 <= len(watched.done()) < 30
    assert not watched.ended()


BAD = {
    "a marker without a name": (["--ready", "marker", "--marker", "done"], "expected a file name with {name} once"),
    "an invalid name": (["--name", "A B"], "--name 'A B': expected up to 30 lower-case letters"),
    "a marker that is of no use": (["--ready", "closed", "--marker", "{name}.done"], "--marker needs --ready marker"),
    "no number": (["--scan", "nan"], "'nan' is not a number of seconds"),
    "no end": (["--settle", "inf"], "inf is not in the range 0.0<=x<=604800.0"),
    "a month": (["--scan", "2592000"], "2592000.0 is not in the range"),
    "a shard": (["--shard", "1/2"], "a watcher takes all files of its folder"),
    "an unknown executor": (["--executor", "dsk"], "unknown executor 'dsk'"),
    "an unknown destination": (["--skip-existing", "s4://b/x"], "skip_existing: s4://b/x is not a folder, and no plugin can list it"),
    "an unknown processor": (["--processor", "cheksum"], "unknown processor 'cheksum'; did you mean 'checksum'?"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_advice(watched, case):
    arguments, message = BAD[case]
    assert watched.once(*arguments) == 2
    assert message in watched.errors()


def test_a_workspace_in_the_folder_is_refused(watched):
    assert watched.once("--workspace", watched.folder / "ws") == 2
    assert "is in the watched folder" in watched.errors()


def test_a_missing_folder_is_refused(watched):
    watched.folder.rmdir()
    assert watched.once() == 2
    assert f"{watched.folder} is not a folder" in watched.errors()


def test_there_is_one_watcher_per_name(watched, tmp_path):
    process = watched.started()
    assert watched.once() == 2
    assert f"process {process.pid} is the watcher 'in' of this workspace already; stop it, or choose another --name" in watched.errors()
    watched.stop(process)
    watched.folder = tmp_path / "other"
    watched.folder.mkdir()
    assert (watched.once(), watched.once("--status")) == (2, 2)
    assert watched.errors().count("the watcher 'in' of this workspace watches another folder") == 2


def test_the_status_says_what_waits_and_why(watched, command):
    (watched.folder / "done.txt").write_text("done")
    watched.once()
    (watched.folder / "old.txt").write_text("old")
    (watched.folder / "x.part").write_text("part")
    (watched.folder / "link").symlink_to("old.txt")
    (watched.folder / os.fsdecode(b"\xff.txt")).write_text("odd")
    with (watched.folder / "open.txt").open("w"):
        shown = command("dpp", *watched.words("--status", "--json", "--settle", "0"))
    found = json.loads(shown.stdout)
    assert (found["is_watched"], found["taken"], found["collections"]) == (False, 1, 1)
    assert {file["path"]: file["state"] for file in found["files"]} == {
        "old.txt": "waiting",
        "open.txt": "waiting",
        "x.part": "skipped",
        "link": "skipped",
        "\\xff.txt": "skipped",
    }
    assert {file["path"]: file["why"] for file in found["files"]}["open.txt"] == "a process is writing to it"


def test_a_new_password_is_no_other_place():
    names = {default_name(f"sftp://me:{password}@host/in/") for password in ("old", "new")}
    assert len(names) == 1
    assert default_name("sftp://you:old@host/in/") not in names


def test_luigi_imports_neither_the_command_nor_click(command):
    program = "import sys; from dpp.plugins.registry import load_plugins; load_plugins(); print(*{'dpp_watch', 'click'} & {*sys.modules})"
    assert command(sys.executable, "-c", program).stdout == "dpp_watch\n"
