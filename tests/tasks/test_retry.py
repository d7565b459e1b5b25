"""``dpp retry``: only the selected files are run again, with the settings of the last run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dpp.batch.folder import find_run
from dpp.tasks.batch import start_batch

from http_site import status

HEADER = "from dpp import hookimpl\n"
MODES = [
    pytest.param((), id="graph"),
    pytest.param(("--chunk-size", 3), id="chunks"),
    pytest.param(("--chunk-size", 3, "--workers", 2), id="workers"),
]


@pytest.fixture
def broken(site, manifest):
    """Write a manifest: one file exists; the others have the status 404, 410 or 503, or a wrong digest."""
    site.script("/gone", status(410))
    site.script("/busy", status(503))
    urls = [site.add("/fine", "fine"), site.add("/wrong", "other"), *(f"{site.url}/{path}" for path in ("missing", "gone", "busy"))]
    return manifest([{"url": url} | ({"sha256": "0" * 64} if "wrong" in url else {}) for url in urls])


def outcomes(results):
    return {name: (row["status"], row["error_class"], row["cached"]) for name, row in results().items()}


@pytest.mark.parametrize("mode", MODES)
def test_retry_tries_all_failures_but_what_is_not_there(broken, site, dpp, results, mode):
    assert dpp("run", broken, "--attempts", 1, *mode)[0] == 1
    site.forget()
    site.script("/busy", status(200, b"at last"))
    code, out, err = dpp("retry", *mode[2:])
    assert (code, set(site.counts())) == (1, {"/busy", "/wrong"})
    assert "retrying 2 of 4 failed files" in err
    assert "run 2: 2 of 5 ok (1 already done), 3 failed (2 not retried)" in out
    assert outcomes(results) == {
        "fine": ("ok", None, True),
        "busy": ("ok", None, False),
        "missing": ("failed", "http-404", True),
        "gone": ("failed", "http-410", True),
        "wrong": ("failed", "checksum", False),
    }


@pytest.mark.parametrize(
    ("asked", "tried"),
    [
        (("--class", "http-5xx"), {"/busy"}),
        (("--class", "http-404,http-410"), {"/missing", "/gone"}),
        (("--class", "http-404", "--class", "checksum"), {"/missing", "/wrong"}),
        (("--all", "--stage", "download", "--host", "127.0.0.1"), {"/busy", "/missing", "/gone", "/wrong"}),
        (("--stage", "process"), set()),
    ],
)
def test_retry_tries_what_is_asked_for(broken, site, dpp, asked, tried):
    dpp("run", broken, "--attempts", 1)
    site.forget()
    assert dpp("retry", *asked)[0] == 1
    assert set(site.counts()) == tried


def test_a_plain_run_tries_every_failure_again(broken, site, dpp):
    dpp("run", broken, "--attempts", 1)
    dpp("retry", "--class", "http-5xx")
    site.forget()
    assert "4 failed; " in dpp("run", broken, "--attempts", 1)[1]
    assert set(site.counts()) == {"/busy", "/missing", "/gone", "/wrong"}


def test_settings_and_options_of_the_last_run_count_from_any_folder(site, manifest, dpp, results, monkeypatch, tmp_path):
    files = manifest([{"url": site.add("/a", "a")}, {"url": site.script("/b", status(503))}])
    dpp("run", "x.json", "--attempts", 2, "--retry-wait", 0, "--options", '{"checksum": {"algorithm": "md5"}}')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    site.forget()
    assert dpp("retry", "x", "--workspace", tmp_path / "dpp-workspace")[0] == 1
    assert site.counts() == {"/b": 2}
    assert dpp("retry", "--workspace", tmp_path / "dpp-workspace", "--attempts", 3)[0] == 1
    assert site.counts() == {"/b": 5}
    assert "md5" in results()["a"]["result"]
    assert find_run(tmp_path / "dpp-workspace").info.source == str(files)


def test_a_workspace_that_was_moved_is_retried_where_it_is(broken, dpp, tmp_path):
    dpp("run", broken, "--attempts", 1)
    (tmp_path / "dpp-workspace").rename(tmp_path / "moved")
    assert dpp("retry", "--workspace", "moved", "--class", "checksum")[0] == 1
    assert find_run(tmp_path / "moved").number == 2
    assert not (tmp_path / "dpp-workspace").exists()


def test_simulated_downloads_stay_simulated(dpp, tmp_path, manifest, monkeypatch):
    monkeypatch.setenv("PIPELINE_NO_SLEEP", "1")
    (tmp_path / "fails.py").write_text("class Fails:\n    def process(self, file):\n        raise ValueError(file.id)\n")
    dpp("run", manifest([{"url": "https://h.invalid/a"}]), "--simulate-downloads", "--processor", "fails:Fails")
    code, out, _ = dpp("retry", "--workspace", "dpp-workspace/simulated", "--class", "ValueError")
    assert (code, "run 2: 0 of 1 ok, 1 failed; " in out) == (1, True)


def test_files_without_an_outcome_are_done_as_well(broken, dpp, results, manifest, site):
    dpp("run", broken, "--attempts", 1)
    entries = json.loads(broken.read_text())
    manifest([*entries, {"url": site.add("/new", "new")}])
    assert dpp("retry", "--class", "checksum")[0] == 1
    assert outcomes(results)["new"] == ("ok", None, False)


def test_what_results_that_were_cut_do_not_tell_is_looked_at_anew(broken, dpp, results, tmp_path):
    dpp("run", broken, "--attempts", 1)
    path = find_run(tmp_path / "dpp-workspace").results_path
    path.write_bytes(b"")
    assert dpp("retry", "--class", "checksum,http-404")[0] == 1
    assert len(results()) == 5


def test_nothing_to_retry_is_said_and_begins_no_run(site, manifest, dpp, tmp_path):
    files = manifest([{"url": f"{site.url}/missing"}])
    dpp("run", files)
    code, out, _ = dpp("retry")
    assert (code, find_run(tmp_path / "dpp-workspace").number) == (1, 1)
    assert "nothing to retry in batch x-" in out
    assert "(1 x http-404); to retry them: dpp retry x-" in out
    assert out.endswith(" --all\n")
    site.add("/missing", "here now")
    assert dpp("retry", "--all")[0] == 0
    assert dpp("retry")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--class", "chekcsum"), "unknown error class 'chekcsum'; did you mean 'checksum'?"),
        (("--stage", "fetch"), "unknown stage 'fetch'; choose from download, "),
        (("nope",), "no batch 'nope' was run in"),
        (("--options", '{"checksum": {"algorithm": "md5"}}'), "processor checksum has other options"),
    ],
)
def test_what_can_not_be_retried_is_refused(broken, dpp, tmp_path, arguments, message):
    dpp("run", broken, "--attempts", 1)
    code, _, err = dpp("retry", *arguments)
    assert (code, message in err) == (2, True), err
    assert find_run(tmp_path / "dpp-workspace").number == 1


STEP = """
from typing import ClassVar
from dpp import BaseProcessor
from pydantic import Field, SecretStr

class Signed(BaseProcessor):
    name: ClassVar[str] = "signed"
    version: ClassVar[str] = "{version}"
    seal: SecretStr = SecretStr("")
    other: SecretStr = Field(SecretStr(""), alias="sign")
    level: int = 1
    password: str = ""
    note: str = ""
    def process(self, file):
        raise ValueError("not signed")
"""


@pytest.fixture
def signed(site, manifest, dpp, tmp_path, monkeypatch):
    """Run a batch that fails, with a step that has a secret option."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "signing.py").write_text(STEP.format(version=1))
    files = manifest([{"url": site.add("/a", "a")}])
    options = {"seal": "hunter2", "level": 3, "password": "s3cret", "note": "see ftp://me:t0ken@h.example/"}
    dpp("run", files, "--processor", "signing:Signed", "--options", json.dumps({"signed": options}))


def test_secret_options_are_not_stored_and_are_to_be_given_again(signed, dpp, tmp_path):
    run = find_run(tmp_path / "dpp-workspace")
    assert run.info.options == {"signed": {"level": 3}}
    assert run.info.withheld == ["signed.note", "signed.password", "signed.seal"]
    stored = "".join(path.read_text() for path in (tmp_path / "dpp-workspace" / "batches").rglob("*") if path.is_file())
    assert not [secret for secret in ("hunter2", "s3cret", "t0ken") if secret in stored]
    code, _, err = dpp("retry")
    assert code == 2
    assert f"""dpp retry {run.batch} --options '{{"signed": {{"note": ...}}}}'""" in err
    given = {"seal": "hunter2", "password": "s3cret", "note": "see ftp://me:t0ken@h.example/"}
    assert dpp("retry", "--options", json.dumps({"signed": given}))[0] == 1
    assert find_run(tmp_path / "dpp-workspace").number == 2


@pytest.mark.parametrize(
    ("options", "stored"),
    [({"level": 2}, {"level": 2}), ({"level": 2, "seal": "hunter2"}, {"level": 2}), ({"level": 2, "sign": "hunter2"}, {})],
)
def test_only_what_may_be_secret_is_withheld(signed, dpp, tmp_path, options, stored):
    dpp("run", "x.json", "--processor", "signing:Signed", "--options", json.dumps({"signed": options}))
    assert find_run(tmp_path / "dpp-workspace").info.options["signed"] == stored


def test_a_step_that_is_of_another_version_by_now_makes_another_batch(site, manifest, command, tmp_path):
    files = manifest([{"url": site.add("/a", "a")}])
    for version in (1, 2):
        (tmp_path / "signing.py").write_text(STEP.format(version=version))
        done = command(
            "dpp", *(("retry",) if version == 2 else ("run", files, "--processor", "signing:Signed")), PYTHONDONTWRITEBYTECODE="1"
        )
    assert done.returncode == 2
    assert "processor signed was version 1 and is now version 2. To run it as a new batch, use the original command" in done.stderr


def test_a_list_can_not_be_read_again(site, dpp):
    start_batch([{"url": f"{site.url}/missing"}])
    code, _, err = dpp("retry", "--all")
    assert code == 2
    assert "was run from list of 1 file, which cannot be read again" in err


@pytest.mark.parametrize("feed", ["echo {url} | {dpp} run /dev/stdin", "(echo {url} > pipe &); {dpp} run pipe"], ids=["stdin", "fifo"])
def test_what_can_be_read_only_once_is_not_read_again(feed, site, dpp, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    line = feed.format(url=f"{site.url}/missing", dpp=Path(sys.executable).with_name("dpp"))
    assert subprocess.run(line, shell=True, capture_output=True, check=False).returncode == 1
    assert "which cannot be read again" in dpp("retry", "--all")[2]


def test_a_named_batch_is_retried_with_the_options_that_luigi_cfg_has_now(site, manifest, dpp, tmp_path, command):
    files = manifest([{"url": f"{site.url}/a"}])
    config = tmp_path / "luigi.cfg"
    config.write_text(f"[batch:acme]\nfiles={files}\nattempts=1\n[checksum]\nalgorithm=md5\n")
    assert command("dpp", "run", "--batch", "acme").returncode == 1
    info = find_run(tmp_path / "dpp-workspace").info
    assert (info.name, info.options, info.withheld) == ("acme", {}, [])
    site.add("/a", "a")
    done = command("dpp", "retry", "acme", "--all")
    assert "batch acme-" in done.stdout
    assert "1 of 1 ok" in done.stdout


LISTING = """
@hookimpl
def dpp_sources(files, settings):
    return [] if files.startswith("listing:") else None
"""


def test_a_place_to_leave_files_out_is_stored_without_its_password(site, manifest, command, install, tmp_path):
    install("listing", LISTING)
    place = ("--skip-existing", "listing://me:hunter2@h/")
    assert command("dpp", "run", manifest([{"url": f"{site.url}/missing"}]), *place).returncode == 1
    assert find_run(tmp_path / "dpp-workspace").info.settings["skip_existing"] == "listing://***@h/"
    refused = command("dpp", "retry", "--all")
    assert (refused.returncode, "skip_existing: not stored" in refused.stderr, "--skip-existing ..." in refused.stderr) == (2, True, True)
    assert command("dpp", "retry", "--all", *place).returncode == 1


def test_what_was_run_by_an_older_dpp_is_not_repeated(broken, dpp, tmp_path):
    dpp("run", broken, "--attempts", 1)
    path = find_run(tmp_path / "dpp-workspace").folder / "run.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "source"}))
    assert dpp("retry")[0] == 2


def test_a_run_whose_run_json_is_damaged_is_not_repeated(broken, dpp, command, tmp_path):
    dpp("run", broken, "--attempts", 1)
    (find_run(tmp_path / "dpp-workspace").folder / "run.json").write_text('{"run": ')
    refused = command("dpp", "retry")
    assert (refused.returncode, "run.json of the last run is missing or damaged" in refused.stderr) == (2, True)
