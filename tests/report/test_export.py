"""Export of results: reading a file back gives the values that were written."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from dpp import ConfigurationError, Outcome, Summary
from dpp.batch.run import Run
from dpp.plugins.registry import registry
from dpp.report.export import guess_format, table_of, write_table
from dpp.workspace.ledger import Ledger, Record
from pyarrow import parquet

DPP = Path(sys.executable).with_name("dpp")
RESULTS = [
    {"lines": 3, "text": 'a "quoted", one\nof two lines', "mixed": 1, "words": ["a", "b"]},
    {"lines": None, "text": "=1+1", "mixed": "é\u2028", "share": 0.25},
]


def outcome(number, **fields):
    return Outcome(id=f"f{number}", name="n", url="file:///x", key=f"k{number}", at=1.5, **{"status": "ok", **fields})


def failure(number):
    return outcome(number, status="failed", stage="download", error_class="http-404", message="-no", http_status=404)


@pytest.fixture
def make_run(tmp_path):
    """Write the folder of a run with these outcomes to a workspace."""

    def make(outcomes, *, ended=True):
        run = Run(tmp_path / "dpp-workspace/batches/x-0123456789/runs/1", registry())
        run.folder.mkdir(parents=True)
        (run.folder / "run.json").write_text(json.dumps({"run": 1, "total": len(outcomes), "started_at": 1.0}))
        ledger = Ledger(run.ledgers / "00000.jsonl")
        for one in outcomes:
            ledger.append(Record.of(one))
        ledger.close()
        if ended:
            run.finish()
        return run

    return make


@pytest.fixture
def three(make_run):
    return make_run([outcome(0, result=RESULTS[0]), outcome(1, result=RESULTS[1]), failure(2)])


def written(run, form, **choices):
    stream = io.BytesIO()
    with run.settled_results() as results:
        write_table(form, table_of(results), stream, **choices)
    return stream.getvalue()


def read_csv(data):
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))


def test_csv_is_read_back_as_it_was(three):
    data = written(three, "csv", raw=True)
    first, second, failed = read_csv(data)
    assert data.count(b"\r\n") == 4
    assert (first["result.lines"], first["result.text"]) == ("3", RESULTS[0]["text"])
    assert [json.loads(row["result.mixed"]) for row in (first, second)] == [1, "é\u2028"]
    assert json.loads(first["result.words"]) == ["a", "b"]
    assert (second["result.share"], second["result.lines"], second["cached"]) == ("0.25", "", "false")
    assert (failed["http_status"], failed["at"]) == ("404", "1970-01-01T00:00:01.500000Z")


def test_csv_has_no_text_that_a_spreadsheet_takes_for_a_formula(three):
    rows = read_csv(written(three, "csv"))
    assert (rows[1]["result.text"], rows[2]["message"]) == ("'=1+1", "'-no")
    assert read_csv(written(three, "csv", raw=True))[1]["result.text"] == "=1+1"


def test_a_negative_number_is_no_formula(make_run):
    assert read_csv(written(make_run([outcome(0, result=-1)]), "csv"))[0]["result"] == "-1"


def test_json_lines_have_every_column_and_lists_as_they_are(three):
    rows = [json.loads(line) for line in written(three, "jsonl").decode().split("\n")[:-1]]
    assert rows[0].keys() == rows[2].keys()
    assert rows[0]["result.words"] == ["a", "b"]
    assert [row["result.mixed"] for row in rows] == [1, "é\u2028", None]


def test_parquet_is_read_back_with_types(three):
    table = parquet.read_table(io.BytesIO(written(three, "parquet")))
    types = {name: str(table.schema.field(name).type) for name in ("result.lines", "result.share", "cached", "at", "result.mixed")}
    assert types == {
        "result.lines": "int64",
        "result.share": "double",
        "cached": "bool",
        "at": "timestamp[us, tz=UTC]",
        "result.mixed": "string",
    }
    first, second, failed = table.to_pylist()
    assert (first["result.text"], second["result.text"]) == (RESULTS[0]["text"], "=1+1")
    assert (failed["http_status"], failed["result.lines"]) == (404, None)
    assert first["at"].astimezone(UTC) == datetime(1970, 1, 1, 0, 0, 1, 500000, UTC)


def test_parquet_has_row_groups(make_run, monkeypatch):
    monkeypatch.setattr("dpp.report.export.GROUP_ROWS", 2)
    found = parquet.ParquetFile(io.BytesIO(written(make_run([outcome(number) for number in range(5)]), "parquet")))
    assert [found.metadata.row_group(index).num_rows for index in range(found.num_row_groups)] == [2, 2, 1]
    assert found.read().column("id").to_pylist() == ["f0", "f1", "f2", "f3", "f4"]


def test_a_run_without_files_has_a_header_all_the_same(make_run):
    run = make_run([])
    assert written(run, "csv").startswith(b"id,name,url,")
    assert written(run, "jsonl") == b""
    assert parquet.read_table(io.BytesIO(written(run, "parquet"))).num_rows == 0


def test_of_a_run_that_has_not_ended_each_file_is_there_once(make_run):
    run = make_run([outcome(0, result={"a": 1}), outcome(0, result={"a": 1})], ended=False)
    assert [row["result.a"] for row in read_csv(written(run, "csv"))] == ["1"]
    assert not run.results_path.exists()
    assert isinstance(run.progress(), Summary)


@pytest.mark.parametrize(("name", "form"), [("a.csv", "csv"), ("a.JSONL", "jsonl"), ("a.ndjson", "jsonl"), ("a.parquet", "parquet")])
def test_the_suffix_says_the_format(name, form):
    assert guess_format(Path(name)) == form


def test_a_suffix_that_says_nothing_is_refused():
    assert guess_format(None) == "csv"
    with pytest.raises(ConfigurationError, match=r"unknown suffix '\.parqet'; set --format, or did you mean '\.parquet'"):
        guess_format(Path("x.parqet"))


def test_without_pyarrow_the_command_to_install_it_is_said(three, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'dpp\[parquet\]'"):
        written(three, "parquet")


def test_a_file_is_written_also_through_a_link(three, command, tmp_path):
    (tmp_path / "link.csv").symlink_to("out.csv")
    assert command("dpp", "export", "--only", "failed", "--output", "link.csv").returncode == 0
    assert [row["id"] for row in read_csv((tmp_path / "out.csv").read_bytes())] == ["f2"]
    refused = command("dpp", "export", "--output", "missing/out.csv")
    assert (refused.returncode, "cannot write" in refused.stderr) == (3, True)


def test_no_file_takes_the_place_of_a_device(three, command, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert command("dpp", "export", "--output", "pipe", "--format", "csv").returncode == 2
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_reader_that_has_enough_ends_it_quietly(make_run, form):
    make_run([outcome(number, result=os.urandom(100).hex()) for number in range(2000)])
    writer = subprocess.Popen([DPP, "export", "--format", form], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout.read(1)
    writer.stdout.close()
    assert writer.stderr.read() == b""
    writer.stderr.close()
    assert writer.wait() == 0


def test_parquet_is_not_written_to_a_terminal(three, command):
    shown = command("script", "-qec", f"{DPP} export --format parquet", "/dev/null")
    assert (shown.returncode, "write it to a file with --output" in shown.stdout) == (2, True)


def test_what_a_server_sent_does_not_steer_a_terminal(make_run, command):
    make_run([outcome(0, result="\x9b2J")])
    shown = command("script", "-qec", f"{DPP} export", "/dev/null")
    assert r"\x9b2J" in shown.stdout


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: data.replace(b'"ok"', b'"o\xff"', 1)], ids=["end", "byte"])
def test_damaged_results_are_named_after_the_others_are_written(three, command, damage):
    three.results_path.write_bytes(damage(three.results_path.read_bytes()))
    for words in (["export"], ["export", "--only", "ok"], ["report"], ["report", "--format", "jsonl"]):
        shown = command("dpp", *words)
        assert (shown.returncode, "results.jsonl: 1 of 3 outcomes are missing or damaged; run the batch again" in shown.stderr) == (1, True)
        assert "f1" in shown.stdout or words == ["report"]


def test_a_report_without_the_request_says_so(three, command):
    for name in ("run.json", "summary.json"):
        (three.folder / name).write_text("[]")
    shown = command("dpp", "report").stdout
    assert "request  unknown, as run.json is missing or damaged; run the batch again" in shown
    assert "outcome  2 of 3 ok (0 already done), 1 failed, 0 not done" in shown
