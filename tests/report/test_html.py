"""The report page of a run: its content, its limits, and that no text becomes markup."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
import re
from pathlib import Path

import pytest
from dpp import EnvironmentStop, Outcome, Summary
from dpp.report import html as pages
from dpp.report.html import LONGEST_ROW, Page
from dpp.report.info import RunInfo
from dpp.report.summary import fold
from dpp.workspace.ledger import Record

EVIL = "</script><img src=x onerror=alert(1)>"
STYLE = (Path(pages.__file__).parents[1] / "templates/report.css").read_text()


def row(key: object, **more: object) -> Record:
    fields = {
        "id": str(key),
        "name": "n",
        "url": "https://h/",
        "key": str(key),
        "status": "ok",
        "at": 1000.0,
        "seconds": {"download": 0.01},
    }
    outcome = Outcome.model_validate({**fields, **more})
    return Record(outcome, outcome.model_dump_json().encode() + b"\n")


def failed(key: object, **more: object) -> Record:
    return row(key, **{"status": "failed", "stage": "download", "error_class": "http-404", "message": "gone", **more})


@pytest.fixture
def write(tmp_path):
    """Write the page with these rows; return its text."""

    def to_text(*rows: Record, asked: dict[str, object] | None = None) -> str:
        summary = Summary(batch="b", run=1, total=len(rows), folder="/w/runs/1", seconds=2)
        with Page(tmp_path / "report.html", RunInfo(**{"started_at": 999.0, **(asked or {})})) as page:
            passed = list(page.take(fold(summary, rows)))
            page.write(summary)
        assert passed == list(rows)
        assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
        return (tmp_path / "report.html").read_text()

    return to_text


def carried(text: str) -> list[dict[str, object]]:
    found = re.findall(r'<script type="text/plain" data-rows="(\d+)">([^<]*)</script>', text)
    blocks = [(int(count), gzip.decompress(base64.b64decode(packed)).splitlines()) for count, packed in found]
    assert all(count == len(lines) for count, lines in blocks)
    return [json.loads(line) for _, lines in blocks for line in lines]


def test_the_page_carries_every_row_as_results_jsonl_has_it(write, monkeypatch):
    monkeypatch.setattr(pages, "BLOCK", 2000)
    rows = [row(n, result={"lines": n}) for n in range(50)]
    text = write(*rows)
    assert text.count("data-rows=") > 5
    assert carried(text) == [json.loads(one.line) for one in rows]


def test_a_long_row_is_carried_without_its_result_and_the_page_says_so(write):
    long = failed(2, result="x" * LONGEST_ROW, message="m" * 5000, traceback="t" * 5000 + "the end")
    text = write(row(1, result="short"), long)
    first, second = carried(text)
    assert (first["result"], "whole" in first) == ("short", False)
    assert (second["result"], second["whole"], len(second["message"])) == (None, len(long.line), 2000)
    assert second["traceback"].endswith("the end")
    assert "1 files have long results" in text


def test_a_full_page_carries_what_failed_and_says_how_many_rows_it_has_not(write, monkeypatch):
    monkeypatch.setattr(pages, "BLOCK", 1000)
    monkeypatch.setattr(pages, "WHOLE_ROWS", 3000)
    monkeypatch.setattr(pages, "ALL_ROWS", 6000)
    monkeypatch.setattr(pages, "FAILED_ROWS", 9000)
    noise = random.Random(1)
    rows = [(failed if n % 10 == 0 else row)(n, result=noise.randbytes(150).hex()) for n in range(200)]
    text = write(*rows)
    found = carried(text)
    assert len(text) < 9000 + 2 * 1000 + len(write(row(1)))
    assert [one["result"] for one in found if "whole" in one] == [None] * sum("whole" in one for one in found)
    late = [one["status"] for one in found if int(one["id"]) > 150]
    assert late
    assert set(late) == {"failed"}
    assert f"This page contains {len(found)} of 200 files" in text


def test_names_that_look_like_markup_are_text(write):
    asked = {"files": EVIL, "plugins": [{"kind": "processor", "name": EVIL, "version": EVIL}], "settings": {"log_file": EVIL}}
    text = write(failed(EVIL, url=f"https://h/{EVIL}", message=EVIL, error_class=EVIL), asked=asked)
    assert "<img" not in text
    assert text.count("</script>") == 2
    assert carried(text)[0]["id"] == EVIL


def test_control_characters_are_escaped_in_the_text_of_the_page(write):
    text = write(failed("a\x1b[31m", url="https://h/\u202egpj.exe", message="b\x00\u2028c"))
    assert [shown for shown in (r"a\x1b[31m", r"\u202egpj.exe", r"b\x00\u2028c") if shown not in text] == []
    assert re.search("[\x00-\x08\x0b-\x1f\u2028-\u202e]", text) is None


def test_nothing_runs_but_the_script_that_the_policy_names(write):
    text = write(failed("a"))
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    hashes = [base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in (script, style)]
    sources = "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'"
    assert policy == sources.format(*hashes)
    assert not re.search(r"<[^>]*\s(on\w+|style)=", text.replace(script, "").replace(style, ""))


def test_without_scripts_the_page_still_shows_outcome_failures_and_charts(write):
    text = re.sub(r"<script.*?</script>", "", write(row(1, bytes=2048), failed(2)), flags=re.DOTALL)
    for words in (
        "1 of 2 files ok, 1 failed",
        "http-404",
        "gone",
        "Files per second over the run",
        "the stage download took",
        "<noscript>",
    ):
        assert words in text


def test_a_run_in_which_nothing_was_done_has_a_page(write):
    assert "No file was processed" in write()
    assert "Every file was already done" in write(row(1, cached=True))


def test_settings_are_shown_where_they_are_not_the_defaults_and_without_secrets(write):
    text = write(asked={"settings": {"attempts": 7, "retry_wait": 0.5, "skip_existing": "sftp://me:hunter2@h/in?sig=s3cret"}})
    assert "<dt>attempts</dt><dd>7</dd>" in text
    assert "retry_wait" not in text
    assert "sftp://***@h/in?***" in text


def test_a_page_that_can_not_be_written_stops_the_run(tmp_path):
    with pytest.raises(EnvironmentStop, match="cannot write"), Page(tmp_path / "missing" / "report.html", RunInfo()):
        pass


def colours(scheme: str) -> dict[str, str]:
    found = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[("light", "dark", "print").index(scheme)]
    return {
        name: value if len(value) == 7 else "#" + "".join(2 * digit for digit in value[1:])
        for name, value in re.findall(r"--(\w+): (#\w+);", found)
    }


def luminance(colour: str) -> float:
    """Return the relative luminance as defined in WCAG 2.2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
@pytest.mark.parametrize(
    ("name", "least"), [("ink", 4.5), ("soft", 4.5), ("link", 4.5), ("ok", 4.5), ("bad", 4.5), ("before", 4.5), ("warn", 4.5), ("none", 3)]
)
def test_text_and_charts_stand_out_from_their_background(scheme, name, least):
    palette = colours(scheme)
    for background in ("page", "panel"):
        lighter, darker = sorted((luminance(palette[name]), luminance(palette[background])), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= least, background
