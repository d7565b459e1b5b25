"""The command line ``dpp``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from dpp.cli.output import print_table


@pytest.fixture
def failed_batch(site, manifest, dpp):
    """Run a batch of three files, one of which fails; return its manifest."""
    files = manifest([{"url": site.add("/a.txt", "a")}, {"url": site.add("/b.txt", "b")}, {"url": f"{site.url}/missing"}])
    assert dpp("run", files)[0] == 1
    return files


def test_run_ends_with_the_summary_and_the_exit_code(site, manifest, dpp):
    code, out, _ = dpp("run", manifest([{"url": site.add("/a.txt", "a")}]), "--workers", 2)
    assert code == 0
    assert "1 of 1 ok, 0 failed" in out
    assert re.search(r"results: \S+/runs/1/results.jsonl", out)


def test_run_takes_the_same_settings_as_luigi(site, manifest, dpp, results):
    files = manifest([{"url": site.add("/a.txt", "a")}])
    code, _, _ = dpp("run", files, "--options", '{"checksum": {"algorithm": "md5"}}', "--workspace", "w", "--chunk-size", 5)
    assert code == 0
    assert "md5" in results("w")["a"]["result"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "nothing.json"), 2, "No such file"),
        (("run",), 2, "no files: give a list of them"),
        (("run", "--batch", "acme"), 2, "luigi.cfg has no section [batch:acme]; add it"),
        (("run", "x.json", "--workers", "0"), 2, "--workers"),
        (("run", "x.json", "--options", "{"), 2, "expected JSON"),
        (("run", "x.json", "--processor", "cheksum"), 2, "did you mean 'checksum'?"),
        (("run", "x.json", "--options", '{"chekcsum": {}}'), 2, "it uses checksum; did you mean 'checksum'?"),
        (("run", "x.json", "--options", '{"checksum": {"algoritm": "md5"}}'), 2, "did you mean 'algorithm'?"),
        (("run", "x.json", "--proccessor", "x"), 2, "'--processor'"),
        (("report", "sftp://me:secret@h/x"), 2, "sftp://***@h/x: no such folder"),
        (("run", "x.json", "--shard", "sftp://me:pa/secret@h/x"), 2, "got 'sftp://***'"),
        (("report", "a", "b", "--run", "https://me:secret@h"), 2, "'https://***@h' is not a valid integer"),
        (("rnu",), 2, "unknown command 'rnu'; did you mean 'run'?"),
        (("frobnicate",), 2, "unknown command 'frobnicate'; choose from "),
        (("--rnu",), 2, "No such option"),
        (("report",), 2, "no batch was run in"),
        (("report", "--format", "xml"), 2, "xml"),
        (("report", "--output", "x.html"), 2, "--output requires --format html"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(manifest, dpp, arguments, code, message):
    manifest([])
    got, out, err = dpp(*arguments)
    assert (got, out) == (code, "")
    assert message in err


def test_a_mistyped_batch_gets_a_suggestion(dpp, command, failed_batch, tmp_path):
    (tmp_path / "luigi.cfg").write_text("[batch:acme]\nprocesor=checksum\n")
    assert "did you mean 'x'? list batches with dpp status" in dpp("report", "xx")[2]
    assert "[batch:amce]; did you mean 'acme'?" in command("dpp", "run", "--batch", "amce").stderr
    wrong = "[batch:acme] of luigi.cfg: unknown setting 'procesor'; did you mean 'processor'?"
    assert wrong in command("dpp", "run", "--batch", "acme").stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("attempts=x", "Error: luigi.cfg: attempts: expected a number, got 'x'\n"),
        ("cleanup=perhaps", "Error: luigi.cfg: cannot interpret 'perhaps' as boolean\n"),
        ("files=${NOWHERE}", "Error: luigi.cfg: [RunBatch] files: Config refers to a nonexisting environment variable NOWHERE"),
        (
            "files=http://u:canary@${NOWHERE}/",
            "Error: luigi.cfg: [RunBatch] files: Config refers to a nonexisting environment variable NOWHERE",
        ),
    ],
)
def test_a_wrong_value_in_luigi_cfg_is_said_in_one_line(command, tmp_path, text, said):
    (tmp_path / "luigi.cfg").write_text(f"[RunBatch]\n{text}\n")
    for verb in ("status", "config"):
        done = command("dpp", verb)
        assert (done.returncode, done.stderr[: len(said)], "Traceback" in done.stderr) == (2, said, False)
        assert "canary" not in done.stderr


def test_report_names_each_failure(dpp, failed_batch):
    code, out, _ = dpp("report")
    assert code == 0
    assert "2 of 3 ok (0 already done), 1 failed, 0 not done" in out
    assert "download: http-404: the server responded with 404" in out


def test_report_gives_the_summary_as_json_and_the_files_as_json_lines(dpp, failed_batch):
    summary = json.loads(dpp("report", "--format", "json")[1])
    rows = [json.loads(line) for line in dpp("report", "--format", "jsonl")[1].splitlines()]
    assert (summary["ok"], summary["failed"]) == (2, 1)
    assert sorted(row["status"] for row in rows) == ["failed", "ok", "ok"]


def test_report_writes_the_page_again_and_where_it_is_told_to(dpp, failed_batch, tmp_path):
    page = next(tmp_path.glob("dpp-workspace/batches/*/runs/1/report.html"))
    first = page.read_text()
    page.unlink()
    assert dpp("report", "--format", "html") == (0, f"wrote {page}\n", "")
    assert page.read_text() == first
    assert dpp("report", "--format", "html", "--output", "mine.html")[1] == "wrote mine.html\n"
    assert Path("mine.html").read_text() == first


def test_a_page_is_written_of_a_run_that_has_not_ended(dpp, failed_batch, tmp_path):
    folder = next(tmp_path.glob("dpp-workspace/batches/*/runs/1"))
    for name in ("summary.json", "results.jsonl"):
        (folder / name).unlink()
    assert dpp("report", "--format", "html", "--output", "now.html")[0] == 0
    text = Path("now.html").read_text()
    assert "2 of 3 files ok, 1 failed, 0 not done" in text
    assert "had not ended when this page was written" in text


def test_report_finds_a_batch_by_the_beginning_of_its_name_and_a_run_by_its_number(dpp, failed_batch):
    dpp("run", failed_batch)
    assert ", run 1\n" in dpp("report", "x-", "--run", 1)[1]
    assert ", run 2\n" in dpp("report")[1]
    assert dpp("report", "y")[0] == 2
    code, _, err = dpp("report", "--run", 3)
    assert code == 2
    assert "has no run 3; its last run is 2" in err


def test_status_lists_batches_as_tab_separated_lines(dpp, failed_batch):
    header, row = (line.split("\t") for line in dpp("status")[1].splitlines())
    found = dict(zip(header, row, strict=True))
    assert (found["run"], found["state"], found["ok"], found["failed"], found["total"]) == ("1", "failed", "2", "1", "3")


def test_status_of_an_empty_workspace_says_so(dpp, tmp_path):
    assert dpp("status")[2] == f"no batch was run in {tmp_path}/dpp-workspace\n"
    code, _, errors = dpp("status", "nope")
    assert (code, "no batch 'nope' was run in" in errors) == (2, True)


def test_plugins_lists_what_is_built_in(dpp):
    lines = [line.split("\t") for line in dpp("plugins")[1].splitlines()]
    assert lines[0] == ["name", "kind", "version", "distribution", "state"]
    assert ["checksum", "processor", "1", "built in", "enabled"] in lines


def test_help_shows_verbs_examples_and_exit_codes(dpp):
    assert {"run", "plugins", "status", "report"} <= set(dpp("--help")[1].split())
    assert "dpp run files.json --workers 4" in dpp("run", "--help")[1]
    assert re.match(r"dpp, version \d", dpp("--version")[1])


def test_a_table_is_aligned_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    print_table(("name", "count"), [("a", 1), ("[b]", 22)])
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["name", "count"], ["a", "1"], ["[b]", "22"]]


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (26, ["stage     path", "download  /w/downloads/a/b", "report"]),
        (19, ["stage     path", "download  /w/downlo", "          ads/a/b", "report"]),
        (15, ["stage  download", "path   /w/downloads/a/b", "", "stage  report", ""]),
    ],
)
def test_a_table_for_which_a_terminal_is_too_narrow_is_a_list(monkeypatch, capsys, columns, shown):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    print_table(("stage", "path"), [("download", "/w/downloads/a/b"), ("report", "")])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == shown


def test_what_stands_in_a_table_cannot_steer_a_terminal(capsys):
    print_table(("file",), [("a\x1b[2Jb\tc",)])
    assert capsys.readouterr().out == "file\na\\x1b[2Jb\\tc\n"
