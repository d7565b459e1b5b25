"""``dpp why``: the history of a file, from its targets and its outcome."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from dpp.batch.folder import find_run
from dpp.maintenance.history import file_history, find_outcome

from http_site import status


def stages(dpp, file_id, *arguments):
    code, out, err = dpp("why", file_id, "--format", "json", *arguments)
    assert code == 0, err
    found = json.loads(out)
    return found, {record["stage"]: record for record in found["stages"]}


CHAIN = """
from typing import ClassVar
from dpp import BasePreProcessor, BasePostProcessor

class Upper(BasePreProcessor):
    name: ClassVar[str] = "upper"
    version: ClassVar[str] = "3"
    def pre_process(self, file):
        target = file.output_dir / file.local_path.name
        target.write_text(file.local_path.read_text().upper())
        file.local_path = target
        return file

class Seen(BasePostProcessor):
    name: ClassVar[str] = "seen"
    version: ClassVar[str] = "1"
    def post_process(self, result, file):
        pass
"""


def test_each_stage_of_a_chain_tells_step_digests_and_target(site, manifest, dpp, tmp_path):
    (tmp_path / "chain.py").write_text(CHAIN)
    files = manifest([{"url": site.add("/a.txt", "body")}])
    assert dpp("run", files, "--pre-processors", "chain:Upper", "--post-processors", "chain:Seen")[0] == 0
    found, by_stage = stages(dpp, "a")
    assert list(by_stage) == ["download", "pre-process", "process", "post-process", "report"]
    assert (by_stage["pre-process"]["steps"][0]["name"], by_stage["pre-process"]["steps"][0]["version"]) == ("upper", "3")
    assert by_stage["download"]["output"] == by_stage["pre-process"]["input"] == hashlib.sha256(b"body").hexdigest()
    assert by_stage["pre-process"]["output"] == by_stage["process"]["input"] == hashlib.sha256(b"BODY").hexdigest()
    assert by_stage["process"]["output"] == hashlib.sha256(Path(by_stage["process"]["path"]).read_bytes()).hexdigest()
    assert [record["state"] for record in found["stages"]] == ["complete", "complete", "complete", "done", "complete"]
    assert (found["again"], found["why"], found["outcome"]["attempts"]) == (False, "its report is ok", 1)
    assert "upper\t3\t-" in dpp("why", "a")[1]


def test_a_failed_file_says_how_it_is_tried_again(site, manifest, dpp):
    site.script("/busy", status(503))
    dpp("run", manifest([{"url": f"{site.url}/missing"}, {"url": f"{site.url}/busy"}]), "--attempts", 1)
    found, by_stage = stages(dpp, "busy")
    assert (found["again"], by_stage["download"]["state"]) == (True, "missing")
    assert re.search(r"; to retry it: dpp retry x-\w+$", found["why"])
    assert stages(dpp, "missing")[0]["why"].endswith(" --class http-404")
    assert "failed in download: http-503: the server responded with 503" in dpp("why", "busy")[1]


@pytest.fixture
def done(site, manifest, dpp, tmp_path):
    """Run a batch of one file, which is ok; return the path of its download."""
    assert dpp("run", manifest([{"url": site.add("/a.txt", "body")}]))[0] == 0
    return next((tmp_path / "dpp-workspace" / "downloads").rglob("a.txt"))


@pytest.mark.parametrize(
    ("name", "body", "state", "again"),
    [
        ("other", "", "missing", False),
        ("a.txt", "b", "damaged: 1 of 4 bytes", True),
        ("a.txt.part", "bo", "partial: 2 bytes", False),
    ],
)
def test_what_happened_to_a_download_is_told(done, dpp, name, body, state, again):
    done.unlink()
    done.with_name(name).write_text(body)
    found, by_stage = stages(dpp, "a")
    assert (by_stage["download"]["state"], found["again"]) == (state, again)
    assert (dpp("run", "x.json")[1].find("(1 already done)") < 0) is again


@pytest.mark.parametrize(
    ("folder", "stage", "state"), [("reports", "report", "damaged"), ("processed", "process", "damaged, or of another download")]
)
def test_what_happened_to_a_report_or_result_is_told(done, dpp, tmp_path, folder, stage, state):
    (path,) = (tmp_path / "dpp-workspace" / folder).rglob("*.json")
    path.write_text('{"id": ')
    found, by_stage = stages(dpp, "a")
    assert (by_stage[stage]["state"], found["again"]) == (state, stage == "report")


def test_a_download_whose_address_is_secret_is_found(site, manifest, dpp):
    dpp("run", manifest([{"url": site.add("/a.txt", "one") + "?sig=s3cret"}, {"url": f"{site.url}/a.txt?sig=other", "id": "b"}]))
    found, by_stage = stages(dpp, "a")
    assert by_stage["download"]["state"] == "complete"
    assert "s3cret" not in json.dumps(found)


def test_a_mistyped_id_gets_the_near_one(site, manifest, dpp):
    dpp("run", manifest([{"url": site.add("/april.txt", "a")}]))
    code, _, err = dpp("why", "arpil")
    assert (code, "did you mean 'april'?" in err) == (2, True)


def test_steps_that_are_not_the_same_any_more_are_told(site, manifest, dpp, tmp_path, monkeypatch):
    dpp("run", manifest([{"url": site.add("/a", "a")}]))
    run = find_run(tmp_path / "dpp-workspace")
    info = run.info
    info.plugins[0]["version"] = info.settings["processor"] = "line-count"
    (run.folder / "run.json").write_text(info.model_dump_json())
    assert "cannot be repeated: " in dpp("why", "a")[1]
    assert file_history(run, find_outcome(run, "a")).outcome.ok


def test_a_local_source_that_has_changed_makes_the_file_run_again(manifest, dpp, tmp_path):
    (tmp_path / "a").write_text("first")
    assert dpp("run", manifest([{"url": (tmp_path / "a").as_uri()}]))[0] == 0
    assert stages(dpp, "a")[0]["again"] is False
    (tmp_path / "a").write_text("second")
    assert [stages(dpp, "a")[0][field] for field in ("again", "why")] == [True, "its source has changed"]
    (tmp_path / "a").unlink()
    assert stages(dpp, "a")[0]["again"] is False
