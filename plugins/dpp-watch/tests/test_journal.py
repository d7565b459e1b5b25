"""Tests of the journal: what a kill leaves behind at each point, and who may write."""

from __future__ import annotations

import json
import shutil
import stat

import pytest
from dpp import ConfigurationError, EnvironmentStop

from dpp_watch.journal import Journal, is_watched, read


def row(name, version="1-1"):
    return {"url": f"file:///in/{name}", "id": name, "name": name, "size": 1, "expect_version": version}


@pytest.fixture
def reopen(tmp_path):
    """Open the journal once more, as after a kill."""
    opened = []

    def again():
        if opened:
            opened.pop().close()
        opened.append(Journal(tmp_path, "in", "/in"))
        return opened[0]

    yield again
    for journal in opened:
        journal.close()


def test_what_was_taken_is_known_again(reopen):
    journal = reopen()
    journal.collect([row("a"), row("b")])
    journal.end(1, "in-000001-ab/1", ["b"])
    state = reopen().state
    assert (state.taken, state.tries, state.number, state.is_open) == ({"a": "1-1", "b": "1-1"}, {"b": 1}, 1, False)


def test_a_batch_that_was_not_ended_is_open(reopen):
    reopen().collect([row("a")])
    assert reopen().state.is_open


@pytest.mark.parametrize("kept", range(4))
def test_files_of_a_complete_manifest_are_added(reopen, kept):
    journal = reopen()
    journal.collect([row("first")])
    journal.end(0, "", [])
    before = (journal.folder / "journal.jsonl").stat().st_size
    journal.collect([row("a"), row("b"), row("c")])
    lines = (journal.folder / "journal.jsonl").read_bytes()[before:].splitlines(keepends=True)
    with (journal.folder / "journal.jsonl").open("r+b") as stream:
        stream.truncate(before + sum(map(len, lines[:kept])) + 5 * (kept < 3))
    state = reopen().state
    assert (sorted(state.taken), state.number, state.is_open, state.count()) == (["a", "b", "c", "first"], 2, True, 3)
    assert [json.loads(line) for line in (journal.folder / "journal.jsonl").read_text().splitlines()][-3:] == [
        {"path": name, "size": 1, "version": "1-1", "batch": 2} for name in "abc"
    ]


def test_an_incomplete_manifest_is_nothing(reopen):
    journal = reopen()
    (journal.folder / ".in-000001.jsonl.tmp").write_text('{"id"')
    assert reopen().state.number == 0
    assert not [*journal.folder.glob(".*")]


DAMAGED = {
    "no JSON": "xxxx",
    "another value": "null",
    "a number": "5",
    "half a file": '{"path": "zz"}',
    "another type": '{"path": [1], "version": 3, "batch": "x"}',
    "half an end": '{"ended": 0}',
    "a later format": '{"folder": "x", "format": 2}',
    "a gap": '{"path": "a", "version": "1-1", "batch": 7}',
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_journal_is_refused_with_its_line(reopen, line):
    path = reopen().folder / "journal.jsonl"
    with path.open("a") as stream:
        stream.write(f"{line}\n")
    with pytest.raises(ConfigurationError, match=rf"^{path}, line 2: .*; or remove {path.parent}, and the watcher takes all files again$"):
        reopen()


@pytest.mark.parametrize("name", ["journal.jsonl", "in-000001.jsonl"])
def test_a_missing_part_is_refused(reopen, name):
    journal = reopen()
    journal.collect([row("a")])
    (journal.folder / name).unlink()
    with pytest.raises(ConfigurationError, match=rf"^{journal.folder / name}: .* missing. Restore it from a backup"):
        reopen()


def test_a_folder_that_is_removed_ends_the_watcher(reopen):
    journal = reopen()
    shutil.rmtree(journal.folder)
    with pytest.raises(EnvironmentStop, match="was removed while the watcher ran"):
        journal.collect([row("a")])


def test_a_name_that_belongs_to_another_folder_is_refused(tmp_path):
    Journal(tmp_path, "in", "/in").close()
    with pytest.raises(ConfigurationError, match="watches another folder; choose another --name"):
        Journal(tmp_path, "in", "/other")


def test_one_process_holds_the_journal(reopen, tmp_path):
    assert not is_watched(tmp_path / "watch/in")
    reopen()
    assert is_watched(tmp_path / "watch/in")
    with pytest.raises(ConfigurationError, match="is the watcher 'in' of this workspace already"):
        Journal(tmp_path, "in", "/in")


def test_others_may_not_read_manifests_which_may_have_passwords(reopen):
    journal = reopen()
    journal.collect([row("a")])
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (journal.folder, journal.manifest(1), journal.folder / "journal.jsonl")]
    assert modes == [0o700, 0o600, 0o600]


def test_the_state_can_be_read_without_a_watcher(reopen, tmp_path):
    assert read(tmp_path / "none", "/in").taken == {}
    reopen().collect([row("a")])
    assert read(tmp_path / "watch/in", "/in").taken == {"a": "1-1"}
