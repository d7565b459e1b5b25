"""``dpp plan``: what a run would do."""

from __future__ import annotations

import json
import os

import pytest

from http_site import cut, status

BIG = b"x" * 100_000


@pytest.fixture
def planned(dpp):
    """Run ``dpp plan``; return action, reason, bytes to download and bytes of a partial download, by id."""

    def plan(*arguments):
        code, out, err = dpp("plan", *arguments, "--format", "jsonl")
        assert code == 0, err
        rows = map(json.loads, out.splitlines())
        return {row["id"]: (row["action"], row["reason"], row["bytes"], row["have"]) for row in rows}

    return plan


def listing(folder):
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_new_batch_is_all_downloads_and_nothing_is_written(site, manifest, planned, tmp_path):
    files = manifest([{"url": site.add("/a", "a"), "size": 1}, {"url": site.add("/b", "b")}])
    before = listing(tmp_path)
    assert planned(files) == {"a": ("download", "new", 1, 0), "b": ("download", "new", None, 0)}
    assert listing(tmp_path) == before
    assert not site.requests


def test_what_is_done_failed_or_begun_is_told_and_left_as_it_is(site, manifest, dpp, planned, tmp_path):
    site.script("/big", cut(BIG, 70_000))
    entries = [{"url": site.add("/fine", "fine")}, {"url": site.script("/busy", status(503))}, {"url": f"{site.url}/big"}]
    files = manifest(entries)
    dpp("run", files, "--attempts", 1)
    before = listing(tmp_path / "dpp-workspace")
    assert planned(files) == {
        "fine": ("nothing", "already done", None, 0),
        "busy": ("download", "failed before: http-503", None, 0),
        "big": ("download", "failed before: truncated, partial download continues", 30_000, 70_000),
    }
    assert listing(tmp_path / "dpp-workspace") == before


def test_other_steps_begin_with_what_is_there(site, manifest, dpp, planned, tmp_path):
    (tmp_path / "planning.py").write_text(
        "class Copies:\n    def pre_process(self, file):\n        return file\n"
        "class Fails:\n    def process(self, file):\n        raise ValueError\n"
        "class Seen:\n    def post_process(self, result, file):\n        pass\n"
    )
    files = manifest([{"url": site.add("/a", "a")}])
    dpp("run", files)
    assert planned(files, "--options", '{"checksum": {"algorithm": "md5"}}')["a"][:2] == (
        "process",
        "done with another step, version or options",
    )
    assert planned(files, "--post-processors", "planning:Seen")["a"][:2] == ("report", "done with other post-processors")
    assert planned(files, "--pre-processors", "planning:Copies")["a"][:2] == ("pre-process", "not done yet")
    dpp("run", files, "--processor", "planning:Fails")
    assert planned(files, "--processor", "planning:Fails")["a"][:2] == ("process", "failed before: ValueError")
    dpp("run", files, "--pre-processors", "planning:Copies")
    assert planned(files, "--pre-processors", "planning:Copies,planning:Copies")["a"][1] == "done with other pre-processors"


def test_a_download_that_is_not_what_is_expected_is_fetched_again(site, manifest, dpp, planned):
    dpp("run", manifest([{"url": site.add("/a", "a")}]))
    assert planned(manifest([{"url": f"{site.url}/a", "size": 7}]))["a"] == ("download", "differs from the manifest or its sidecar", 7, 0)


def test_totals_group_files_and_tell_the_room(site, manifest, dpp):
    files = manifest([{"url": f"{site.url}/{n}", "size": 1000} for n in range(30)] + [{"url": f"{site.url}/unknown"}])
    found = json.loads(dpp("plan", files, "--format", "json")[1])
    assert found["groups"] == [{"action": "download", "reason": "new", "files": 31, "bytes": 30_000, "unknown": 1}]
    assert (found["bytes"], found["unknown"], found["total"]) == (30_000, 1, 31)
    out = dpp("plan", files)[1]
    assert "31\tdownload\tnew\t29.3 KiB, 1 of unknown size" in out
    assert "unknown: download" not in out


def test_too_little_room_is_said(site, manifest, dpp):
    room = os.statvfs(".").f_frsize * os.statvfs(".").f_blocks
    assert " (not enough)" in dpp("plan", manifest([{"url": f"{site.url}/a", "size": room}]))[1]


def test_a_named_batch_is_planned_with_its_settings(site, manifest, command, tmp_path):
    files = manifest([{"url": site.add("/a", "a")}])
    (tmp_path / "luigi.cfg").write_text(f"[batch:acme]\nfiles={files}\nworkspace=w\n")
    done = command("dpp", "plan", "--batch", "acme")
    assert done.stdout.startswith("batch acme-")
    assert command("dpp", "run", "--batch", "acme").stdout.startswith(done.stdout.split(":")[0])


def test_files_that_are_where_they_should_get_to_are_left_out(site, manifest, dpp, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.txt").write_text("a")
    files = manifest([{"url": site.add("/a.txt", "a")}, {"url": site.add("/b.txt", "b")}])
    assert ": 1 file, 1 skipped (already at the destination)" in dpp("plan", files, "--skip-existing", "there", "--cleanup")[1]


@pytest.mark.parametrize(
    ("entries", "arguments", "message"),
    [
        ([{"url": "nope"}, {"url": "also"}], (), "2 problems, nothing was fetched"),
        ([], ("--processor", "chekcsum"), "did you mean 'checksum'?"),
        ([], ("--attempts", "0"), "attempts"),
        ([], (), "the list names no files"),
    ],
)
def test_what_a_run_would_refuse_is_refused(manifest, dpp, tmp_path, entries, arguments, message):
    code, _, err = dpp("plan", manifest(entries), *arguments)
    assert (code, message in err) == (2, True), err
    assert not (tmp_path / "dpp-workspace").exists()
    assert dpp("plan")[0] == 2


@pytest.mark.parametrize("cleanup", [(), ("--cleanup",)])
def test_a_source_that_has_changed_is_a_download(manifest, dpp, planned, tmp_path, cleanup):
    (tmp_path / "a").write_text("first")
    files = manifest([{"url": (tmp_path / "a").as_uri()}])
    assert dpp("run", files, *cleanup)[0] == 0
    (tmp_path / "a").write_text("second")
    assert planned(files, *cleanup)["a"][:2] == ("download", "its source has changed")
