"""Invalid manifests in batches."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(params=[("dpp", "run"), ("luigi", "--module", "dpp", "RunBatch", "--files")], ids=lambda words: words[0])
def run(request, command):
    """Return a function that runs a batch with each command."""
    return lambda *arguments: command(*request.param, *arguments)


@pytest.mark.fault(22)
def test_every_problem_of_a_list_is_told_and_nothing_is_fetched(site, manifest, run, seen, tmp_path):
    good = site.add("/a", "a")
    wrong = [{"id": "b"}, {"url": 7}, {"url": good, "size": "big"}, {"url": good, "sha256": "x"}, {"url": "gopher://x/"}, 5, {"url": ""}]
    done = run(manifest([{"url": good}, *wrong]))
    assert done.returncode == 2
    assert [index for index in range(9) if f"entry {index}: " in done.stderr] == list(range(1, 8))
    assert "Traceback" not in done.stderr
    assert not site.requests
    seen(f"exit 2, {len(wrong)} problems of {len(wrong)} entries, no request")


@pytest.mark.fault(22)
@pytest.mark.parametrize(("name", "text"), [("x.json", '[{"url": '), ("x.json", "url,id\n"), ("x.csv", "id\n1\n"), ("x.jsonl", "[]\n")])
def test_what_is_not_what_its_name_says_is_refused(run, tmp_path, seen, name, text):
    (tmp_path / name).write_text(text)
    done = run(name)
    assert (done.returncode, name in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
    seen("exit 2 for what is no JSON, no CSV")


@pytest.mark.fault(22)
@pytest.mark.parametrize("name", ["loop.json", "x" * 300])
def test_a_path_that_leads_nowhere_is_refused(run, tmp_path, seen, name):
    (tmp_path / "loop.json").symlink_to("loop.json")
    done = run(name)
    assert (done.returncode, name in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
    seen("exit 2 for a link to itself, a name that is too long")


@pytest.mark.fault(23)
def test_a_bad_line_is_refused_with_its_number(site, run, tmp_path, seen):
    lines = [json.dumps({"url": site.add(f"/{number}", "x")}) for number in range(3)]
    (tmp_path / "x.jsonl").write_text("\n".join([*lines, '{"url": "http://127', *lines[:1]]))
    done = run("x.jsonl")
    assert (done.returncode, "line 4: " in done.stderr, "Traceback" in done.stderr) == (2, True, False), done.stderr
    assert not site.requests
    seen("exit 2, its number, no request")


@pytest.mark.fault(23)
@pytest.mark.parametrize("chunk_size", [1, 3])
def test_a_bad_line_can_be_skipped_and_is_reported_failed(site, run, results, tmp_path, seen, chunk_size):
    good = [json.dumps({"url": site.add(f"/{number}", "x"), "id": str(number)}) for number in range(3)]
    bad = ['{"url": "http://127', '{"url": "no-scheme"}', '{"url": "file:///etc/passwd", "id": "0"}', '{"url": "manifest:line-9"}']
    (tmp_path / "x.jsonl").write_text("\n".join([*good, *bad]))
    done = run("x.jsonl", "--skip-bad", "--chunk-size", chunk_size)
    assert done.returncode == 1, done.stderr
    rows = results()
    assert [rows[name]["status"] for name in "012"] == ["ok"] * 3
    failed = {name: (row["error_class"], row["message"].partition(": ")[0]) for name, row in rows.items() if name not in "012"}
    assert failed == {f"line-{number}": ("manifest", f"line {number}") for number in (4, 5, 6, 7)}
    (tmp_path / "x.jsonl").write_text("\n".join(good))
    assert run("x.jsonl", "--skip-bad").returncode == 0
    seen("--skip-bad: exit 1, reported with its number; exit 0 when mended")


@pytest.mark.parametrize("disabled", ["", "curl"])
def test_certificates_that_are_not_there_end_the_run_before_it_begins(site, run, manifest, monkeypatch, disabled):
    monkeypatch.setenv("DPP_DISABLE_PLUGINS", disabled)
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    done = run(manifest([{"url": site.add("/a", "a")}]))
    assert (done.returncode, "SSL_CERT_FILE names /nowhere/ca.pem" in done.stderr, "Traceback" in done.stderr) == (2, True, False), (
        done.stderr
    )
    assert not site.requests
