"""Tests of what waits, for how long, and what is tried again; the clock is a number."""

from __future__ import annotations

import pytest

from dpp_watch.journal import JournalState
from dpp_watch.local import FoundFile
from dpp_watch.rules import Rules
from dpp_watch.tracker import LATE_SECONDS, Tracker


@pytest.fixture
def state():
    return JournalState()


@pytest.fixture
def tracker(state):
    return Tracker(Rules(settle=2, collect=5, max_files=3), state)


def ready(tracker, now, **options):
    return [waiting.found.path for waiting in tracker.ready(now, **options)]


def test_a_file_is_ready_when_others_had_time_to_join_it(tracker):
    tracker.see(FoundFile("a", 1, "1-1"), 100)
    tracker.see(FoundFile("b", 1, "1-1"), 102)
    assert tracker.due() == 105
    assert (ready(tracker, 104.9), ready(tracker, 105)) == ([], ["a", "b"])


def test_a_file_that_still_changes_does_not_join(tracker):
    tracker.see(FoundFile("a", 1, "1-1"), 100)
    tracker.see(FoundFile("b", 1, "1-1"), 104)
    assert ready(tracker, 105) == ["a"]


def test_a_change_starts_the_time_anew(tracker):
    tracker.see(FoundFile("a", 1, "1-1"), 100)
    tracker.see(FoundFile("a", 2, "2-2"), 104)
    assert (ready(tracker, 105), ready(tracker, 109)) == ([], ["a"])


def test_a_file_that_is_old_is_ready_at_once(tracker):
    tracker.see(FoundFile("a", 1, "1-1", age=60), 100)
    assert ready(tracker, 100) == ["a"]


def test_enough_files_are_not_waited_for(tracker):
    for name in "abc":
        tracker.see(FoundFile(name, 1, "1-1"), 100)
    assert ready(tracker, 102) == ["a", "b", "c"]


def test_a_file_that_was_taken_waits_only_as_another_version(tracker, state):
    state.taken["a"] = "1-1"
    tracker.see(FoundFile("a", 1, "1-1", age=60), 100)
    assert not tracker.waiting
    tracker.see(FoundFile("a", 2, "2-2", age=60), 100)
    assert ready(tracker, 100) == ["a"]


def test_a_file_that_is_gone_is_forgotten_by_the_next_scan(tracker):
    tracker.see(FoundFile("a", 1, "1-1"), 100)
    tracker.see(FoundFile("b", 1, "1-1"), 100)
    tracker.begin_scan()
    tracker.see(FoundFile("b", 1, "1-1"), 101)
    tracker.end_scan()
    assert [*tracker.waiting] == ["b"]


def test_a_file_that_is_not_ready_for_long_is_reported_once(tracker):
    for now in range(100, 100 + int(LATE_SECONDS) + 1):
        tracker.see(FoundFile("a", now, f"{now}-{now}"), now)
    now = 100 + LATE_SECONDS
    assert [(waiting.found.path, why) for waiting, why in tracker.late(now)] == [("a", "it was changed 0.0 s ago (settle: 2 s)")]
    assert [*tracker.late(now + 1)] == []


def test_a_file_that_failed_is_tried_again_up_to_a_limit(tracker, state):
    for number in (1, 2, 3):
        state.add({"path": "a", "size": 1, "version": "1-1", "batch": number})
        state.add({"batch": number, "ended": 1, "run": "", "failed": ["a"]})
        assert [retry.path for retry in tracker.retries()] == (["a"] if number < 3 else [])
    state.add({"path": "a", "size": 2, "version": "2-2", "batch": 4})
    assert state.tries == {}


def test_files_that_do_not_become_ready_keep_no_others_from_being_seen(state, monkeypatch):
    monkeypatch.setattr("dpp_watch.tracker.REMEMBERED", 2)
    tracker = Tracker(Rules(max_files=1), state)
    for _ in range(2):
        tracker.begin_scan()
        for name in "abcd":
            tracker.see(FoundFile(name, 1, "1-1", age=60), 100)
        tracker.end_scan()
        assert (len(tracker.waiting), tracker.needs_scan(collected=False)) in ((2, True), (4, False))
    assert len(tracker.waiting) == 4
