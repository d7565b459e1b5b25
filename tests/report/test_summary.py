"""The summary of a run: counts, groups of failures, and its text."""

from __future__ import annotations

from pathlib import Path

import pytest
from dpp import Outcome, Summary
from dpp.report.summary import SHOWN_GROUPS, fold, human_bytes, render, retry_command
from dpp.workspace.ledger import Record


def ok(key: object, **more: object) -> Outcome:
    return Outcome.model_validate(
        {"id": key, "name": "n", "url": "https://h/", "key": str(key), "status": "ok", "bytes": 10, **more} | {"id": str(key)}
    )


def failed(key: object, error_class: str | None = "http-404", stage: str | None = "download") -> Outcome:
    return ok(key, status="failed", stage=stage, error_class=error_class, message=f"why {key}", bytes=None)


def row(outcome: Outcome) -> Record:
    return Record(outcome, outcome.model_dump_json().encode() + b"\n")


def folded(total: int, *outcomes: Outcome) -> tuple[Summary, list[str]]:
    summary = Summary(batch="b", run=1, total=total)
    return summary, [found.outcome.key for found in fold(summary, map(row, outcomes))]


def test_every_file_counts_once():
    summary, keys = folded(6, ok(1), ok(2, cached=True), ok(1), failed(3), ok(4, bytes=None), failed(3))
    assert keys == ["1", "2", "3", "4"]
    assert (summary.ok, summary.cached, summary.failed, summary.missing, summary.bytes) == (3, 1, 1, 2, 10)


@pytest.mark.parametrize(("outcomes", "complete"), [([ok(1), ok(2)], True), ([ok(1)], False), ([ok(1), failed(2)], False)])
def test_a_run_is_complete_when_every_file_is_ok(outcomes, complete):
    assert folded(2, *outcomes)[0].complete is complete


def test_failures_are_grouped_the_largest_first_with_their_first_example():
    summary, _ = folded(5, failed(1, "checksum"), failed(2), failed(3), failed(4, "http-404", "process"), failed(5, None, None))
    assert [(group.stage, group.error_class, group.count, group.example["id"]) for group in summary.failures] == [
        ("download", "http-404", 2, "2"),
        ("download", "checksum", 1, "1"),
        ("process", "http-404", 1, "4"),
        ("", "", 1, "5"),
    ]
    assert summary.failures[0].example == {"id": "2", "url": "https://h/", "message": "why 2"}


def test_words_for_a_run_that_went_well():
    summary, _ = folded(2, ok(1), ok(2, cached=True))
    summary.seconds = 1.25
    assert render(summary) == "batch b, run 1: 2 of 2 ok (1 already done), 0 failed; 10 B in 1.2 s\nresults were not kept"


def test_words_for_failures_and_files_not_done():
    summary, _ = folded(4, ok(1), failed(2), failed(3))
    summary.folder = "/w x/batches/b/runs/1"
    assert render(summary).splitlines() == [
        "batch b, run 1: 1 of 4 ok, 2 failed, 1 not done; 10 B in 0.0 s",
        "  2 failed in download (http-404), for example 2 (https://h/): why 2",
        "results: /w x/batches/b/runs/1/results.jsonl",
        "continue: dpp retry b --workspace '/w x'",
    ]


def test_the_end_says_where_report_and_log_lie_and_what_retries(tmp_path):
    summary, _ = folded(2, ok(1), failed(2))
    folder = tmp_path / "dpp-workspace" / "batches" / "b" / "runs" / "1"
    folder.mkdir(parents=True)
    summary.folder = str(folder)
    for name in ("report.html", "log.txt"):
        (folder / name).touch()
    assert render(summary).splitlines()[2:] == [
        f"results: {folder}/results.jsonl",
        f"report: {folder}/report.html",
        f"log: {folder}/log.txt",
        "retry: dpp retry b --all",
    ]


def test_where_the_files_can_not_be_read_again_the_end_does_not_say_dpp_retry(tmp_path):
    summary, _ = folded(1, failed(1))
    (tmp_path / "run.json").write_text('{"run": 1, "source": "", "files": "list of 2 files"}')
    summary.folder = str(tmp_path)
    assert render(summary).splitlines()[-1] == "retry: start the same run again; dpp retry cannot read the list of 2 files"


@pytest.mark.parametrize(
    ("outcomes", "command"),
    [
        ([failed(1, "http-410")], "dpp retry b --all"),
        ([failed(1, "http-410"), failed(2, "timeout")], "dpp retry b"),
        ([failed(1, "timeout")], "dpp retry b"),
    ],
)
def test_the_command_that_retries_asks_for_all_where_it_would_leave_all(outcomes, command):
    summary, _ = folded(len(outcomes), *outcomes)
    summary.folder = str(Path("dpp-workspace/batches/b/runs/1").absolute())
    assert retry_command(summary) == command


def test_of_very_many_kinds_of_failure_only_the_first_are_shown():
    lines = render(folded(99, *[failed(n, f"class-{n}") for n in range(SHOWN_GROUPS + 3)])[0]).splitlines()
    assert len(lines) == 1 + SHOWN_GROUPS + 2
    assert lines[-2] == "  and 3 more kinds of failure"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (2**20, "1.0 MiB"),
        (2**30, "1.0 GiB"),
        (2**40, "1.0 TiB"),
        (2**60, "1048576.0 TiB"),
    ],
)
def test_bytes_have_iec_units(count, text):
    assert human_bytes(count) == text


def test_files_that_are_probably_not_the_expected_ones_are_counted():
    rows = [Outcome(id=name, name=name, url=f"https://h/{name}", key=name, status="ok", warning="a web page") for name in "ab"]
    summary = Summary(batch="b", run=1, total=2)
    assert len(list(fold(summary, map(Record.of, rows)))) == 2
    assert (summary.warned, summary.warning["id"]) == (2, "a")
    assert (
        "warning: 2 ok, but probably not the expected file, for example a (https://h/a): a web page; to fail such files, set expect_type"
        in render(summary)
    )
