"""Tests of ledgers: truncated at any byte, they keep every complete line."""

from __future__ import annotations

import json
import resource
import threading

import pytest
from dpp import EnvironmentStop, Outcome
from dpp.workspace.ledger import Ledger, Record, read_ledger, read_ledgers
from hypothesis import given
from hypothesis import strategies as st


def outcome(key: object, **more: object) -> Outcome:
    return Outcome.model_validate({"id": f"id {key}", "name": "n\nü🙂", "url": "https://h/", "key": str(key), "status": "ok", **more})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "chunks" / "0.jsonl"


def filled(path, count: int) -> bytes:
    ledger = Ledger(path)
    for n in range(count):
        ledger.append(Record.of(outcome(n, result={"text": "line\nbreak", "n": n})))
    ledger.close()
    return path.with_name("0.jsonl.open").read_bytes()


def test_it_has_its_final_name_only_when_it_is_finished(path):
    ledger = Ledger(path)
    ledger.append(Record.of(outcome(1)))
    assert [file.name for file in path.parent.iterdir()] == ["0.jsonl.open"]
    ledger.finish()
    assert [file.name for file in path.parent.iterdir()] == ["0.jsonl"]
    assert list(read_ledger(path)) == [outcome(1)]


def test_an_outcome_is_there_as_soon_as_it_was_added(path):
    ledger = Ledger(path)
    ledger.append(Record.of(outcome(1)))
    assert [row.outcome for row in read_ledgers(path.parent)] == [outcome(1)]
    ledger.close()


def test_a_ledger_that_gets_its_final_name_while_others_are_read_is_read_as_well(path):
    ledgers = [Ledger(path.with_name(f"{number}.jsonl")) for number in range(2)]
    for number, ledger in enumerate(ledgers):
        ledger.append(Record.of(outcome(number)))
    rows = read_ledgers(path.parent)
    found = [next(rows)]
    for ledger in ledgers:
        ledger.finish()
    assert [row.outcome for row in [*found, *rows]] == [outcome(0), outcome(1)]


def test_a_closed_ledger_goes_on_where_it_was(path):
    filled(path, 2)
    ledger = Ledger(path)
    assert list(ledger.recorded()) == ["0", "1"]
    ledger.append(Record.of(outcome("more")))
    ledger.finish()
    assert [found.key for found in read_ledger(path)] == ["0", "1", "more"]


@given(st.integers(min_value=0, max_value=2000))
def test_cut_at_any_byte_it_keeps_all_whole_lines_and_goes_on(path, cut):
    torn = path.with_name("0.jsonl.open")
    torn.unlink(missing_ok=True)
    data = filled(path, 4)[:cut]
    torn.write_bytes(data)
    whole = data.count(b"\n")
    ledger = Ledger(path)
    assert list(ledger.recorded()) == [str(n) for n in range(whole)]
    ledger.append(Record.of(outcome("after")))
    ledger.close()
    assert [json.loads(line)["key"] for line in torn.read_bytes().splitlines()] == [*map(str, range(whole)), "after"]


@given(st.lists(st.binary(max_size=30).filter(lambda data: b"\n" not in data), max_size=5))
def test_lines_that_are_no_outcomes_are_passed_over(path, noise):
    path.parent.mkdir(exist_ok=True)
    lines = [
        outcome(1).model_dump_json().encode(),
        *noise,
        b"[]",
        b"{}",
        b'{"key": "x"}',
        b"[" * 5000,
        outcome(2).model_dump_json().encode(),
    ]
    path.write_bytes(b"\n".join(lines))
    assert [found.key for found in read_ledger(path)] == ["1", "2"]


def test_threads_do_not_mix_their_lines(path):
    ledger = Ledger(path)
    threads = [
        threading.Thread(target=lambda n=n: [ledger.append(Record.of(outcome(f"{n}-{m}", message="x" * 500))) for m in range(50)])
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.finish()
    assert {found.key for found in read_ledger(path)} == {f"{n}-{m}" for n in range(8) for m in range(50)}
    assert path.read_bytes().count(b"\n") == 400


def test_what_could_be_written_of_an_outcome_is_taken_back(path):
    ledger = Ledger(path)
    ledger.append(Record.of(outcome(1)))
    opened = path.with_name("0.jsonl.open")
    before = opened.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, hard))
    try:
        with pytest.raises(EnvironmentStop, match="File too large"):
            ledger.append(Record.of(outcome(2)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert opened.read_bytes() == before
    ledger.append(Record.of(outcome(3)))
    assert list(ledger.recorded()) == ["1", "3"]
    ledger.close()


def test_closing_twice_is_once_and_a_closed_one_takes_nothing(path):
    ledger = Ledger(path)
    ledger.close()
    ledger.close()
    with pytest.raises(AssertionError, match="the ledger is closed"):
        ledger.append(Record.of(outcome(1)))


def test_a_ledger_that_can_not_be_made_stops_the_run(path):
    path.parent.write_text("a file in its way")
    with pytest.raises(EnvironmentStop, match="cannot write"):
        Ledger(path)


def test_of_a_folder_all_ledgers_are_read_finished_or_not(path):
    path.parent.mkdir()
    for name in ("1.jsonl", "2.jsonl.open", "other.txt"):
        path.with_name(name).write_text(outcome(name).model_dump_json() + "\n")
    assert [row.outcome.key for row in read_ledgers(path.parent)] == ["1.jsonl", "2.jsonl.open"]


def test_a_ledger_that_is_not_there_is_empty(path):
    assert list(read_ledger(path)) == []
    assert list(read_ledgers(path.parent)) == []
