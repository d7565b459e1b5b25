"""Manifests that are invalid, too large, nested too deeply, or full of malicious names."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1024 * 1024
# 1024 MiB is the full size, which takes several minutes.
LARGE = int(os.environ.get("DPP_TEST_MANIFEST_MIB", "64"))
MEMORY = 184 * MIB
# Memory for the hashes and offsets of the thousand rows in 1 MiB.
KEPT = MIB // 8


@pytest.fixture
def refused(tmp_path, command):
    """Return a function that returns the problems of a manifest, and checks that nothing was fetched or reported twice."""

    def run(name, data):
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        done = command("dpp", "run", name)
        assert done.returncode == 2, done.stderr
        assert not list((tmp_path / "dpp-workspace").glob("downloads"))
        first, *problems = done.stderr.splitlines()
        assert first.endswith("nothing was fetched:")
        return [problem.strip() for problem in problems]

    return run


@pytest.mark.fault(22)
def test_an_object_over_several_lines_is_one_problem(refused, seen):
    (problem,) = refused("x.jsonl", '{"url": "https://h/a"}\n' + json.dumps({"url": "https://h/a", "id": "a"}, indent=2))
    assert problem == "line 2: the value continues on the next line; expected one object per line, or a JSON list: [{...}, {...}]"
    seen("one problem for an object over several lines")


@pytest.mark.fault(24)
@pytest.mark.parametrize(("name", "begin"), [("x.json", "["), ("x.jsonl", '{"a":'), ("x.json", '[{"url": "https://h/a", "x":' + "[")])
def test_json_that_is_nested_too_deep_is_one_problem(refused, seen, name, begin):
    (problem,) = refused(name, begin * 100_000)
    assert problem.endswith("is not JSON: nested too deeply")
    seen("exit 2, nested too deeply")


@pytest.mark.fault(24)
@pytest.mark.parametrize(
    ("name", "begin", "between", "end"), [("x.json", "[", ", ", "]"), pytest.param("x.jsonl", "", "\n", "", marks=pytest.mark.slow)]
)
def test_a_long_list_is_read_in_little_memory(tmp_path, seen, name, begin, between, end):
    with (tmp_path / name).open("w") as stream:
        stream.write(begin)
        for number in range(LARGE * 1024):
            stream.write(f'{{"url": "http://127.0.0.1:9/{number}", "id": "f{number}", "note": "{"x" * 960}"}}{between}')
        stream.write('{"id": 5}' + end)
    limit = f"ulimit -v {(MEMORY + LARGE * KEPT) // 1024}; exec {Path(sys.executable).parent}/dpp run {name}"
    done = subprocess.run(["bash", "-c", limit], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "url is missing" in done.stderr
    seen(f"{LARGE} MiB read to the last entry in {(MEMORY + LARGE * KEPT) // MIB} MiB of addresses")


@pytest.mark.fault(25)
def test_an_id_twice_is_refused_and_ids_that_look_alike_are_kept_apart(refused, command, manifest, site, results, seen):
    a, b = site.add("/a", "a"), site.add("/b", "b")
    (problem,) = refused("x.json", json.dumps([{"url": a, "id": "n"}, {"url": b, "id": "n"}]))
    assert problem == "entry 1: id 'n' was used before with another URL or other fields; give each file its own id"
    ids = ["n", "N", "caf\u00e9", "cafe\u0301", "stra\u00dfe", "strasse"]
    done = command("dpp", "run", manifest([{"url": a, "id": file_id} for file_id in ids]))
    assert done.returncode == 0, done.stderr
    keys = [row["key"].casefold() for row in results().values()]
    assert len(keys) == len(set(keys)) == len(ids)
    seen("exit 2; apart by case and Unicode form")


@pytest.mark.fault(26)
def test_names_that_lead_astray_stay_in_the_workspace(command, manifest, site, results, tmp_path, seen):
    names = ["../../evil", "/tmp/evil", "a\0b", "x" * 300, "..", "\x1b[31mred", "<script>", "\u202egnp.exe", "=1+1"]
    entries = [{"url": site.add(f"/{n}", "x"), "id": name, "name": name} for n, name in enumerate(names)]
    entries += [{"url": site.add(f"/{path}", "x"), "id": path} for path in ("..%2F..%2Fevil", "a%00b", "%1B%5B31m")]
    before = sorted(tmp_path.parent.iterdir())
    done = command("dpp", "run", manifest(entries), "--chunk-size", 1)
    said = [done, *(command("dpp", verb) for verb in ("status", "report", "verify"))]
    assert [run.returncode for run in said] == [0] * len(said), done.stderr
    assert len(results()) == len(entries)
    assert {"\x1b", "\0", "\u202e"}.isdisjoint("".join(run.stdout + run.stderr for run in said))
    assert sorted(tmp_path.parent.iterdir()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dpp-workspace", "x.json"]
    seen(f"{len(entries)} of {len(entries)} inside, nothing else written")


FORGING = """
from dpp import BaseProcessor

class Bad(BaseProcessor):
    def process(self, file):
        raise ValueError("oh\\nFORGED by an exception \\x9b2J \\u202e \\u2028FORGED")
"""
COMMANDS = ("status", "report", "report --format json", "report --format jsonl", "verify", "retry --json")
PLANS = ("plan x.json", "plan x.json --format json", "plan x.json --format jsonl", "run x.json --debug", "run x.json --json")


@pytest.mark.fault(26)
def test_text_forges_no_line_and_controls_no_terminal(command, manifest, site, tmp_path, seen):
    (tmp_path / "mine.py").write_text(FORGING)
    forged = "a\nFORGED by an id \x9b31m \u061c \u2066 \u2028FORGED"
    manifest([{"url": site.add("/a", "x"), "id": forged}, {"url": f"{site.url}/b%0AFORGED%C2%9B31m"}, {"url": "file:///no/x%0AFORGED"}])
    work = ("--processor", "mine:Bad")
    done = [command("dpp", *line.split(), *work) for line in PLANS]
    done += [command("luigi", "--module", "dpp", "RunBatch", "--files", "x.json", *work)]
    done += [command("dpp", *line.split()) for line in COMMANDS]
    done += [command("dpp", "why", forged), command("dpp", "why", forged, "--format", "json")]
    assert not [run for run in done if run.returncode > 1]
    text = "\n".join([run.stdout + run.stderr for run in done] + [path.read_text() for path in tmp_path.rglob("log.txt")])
    assert "FORGED by an id" in text
    assert "FORGED by an exception" in text
    assert not re.search(r"^FORGED|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u2028-\u202e\u2066-\u2069]", text, re.MULTILINE)
    seen("escaped, or indented below their line")


@pytest.mark.fault(22)
def test_a_manifest_in_another_encoding_is_read_with_its_name(refused, command, tmp_path, seen):
    data = f"url,id\n{(tmp_path / 'a').as_uri()},caf\u00e9\n".encode("windows-1252")
    (tmp_path / "a").write_text("a")
    (problem,) = refused("x.csv", data)
    assert problem.startswith("line 2: contains the byte 0xe9, which is not valid UTF-8; if the manifest is Windows-1252")
    done = command("dpp", "run", "x.csv", "--encoding", "windows-1252", "--json")
    assert (done.returncode, "caf\\u00e9" in done.stdout or "caf\u00e9" in done.stdout) == (0, True), done.stderr
    assert command("dpp", "plan", "x.csv", "--encoding", "windows-1252").returncode == 0
    seen("refused with the option; with it, the id is as it was written")
