"""Tests of batches and runs: names, locks, how runs end, and that no file contains a secret."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import threading
from contextlib import closing
from pathlib import Path

import pytest
from dpp import ConfigurationError, EnvironmentStop, InputError, LockedError, ManifestError
from dpp.batch import batch as batches
from dpp.batch.batch import batch_name, open_run
from dpp.batch.chunks import ChunkRunner
from dpp.batch.folder import RunFolder, find_run, latest_run, latest_runs
from dpp.batch.run import Run
from dpp.engine.pipeline import Job
from dpp.plugins.registry import load_plugins
from dpp.report.info import RunInfo, read_info
from dpp.settings import make_settings
from dpp.workspace.ledger import Ledger
from dpp.workspace.locks import BatchLock

SECRETS = ("hunter2", "s3cret", "t0ken")


@pytest.fixture(scope="module")
def registry():
    return load_plugins()


@pytest.fixture
def begin(registry, tmp_path):
    """Return a function that starts a run; its lock is released at the end of the test."""
    runs = []

    def start(files, *, shared: bool = False, **values) -> Run:
        runs.append(open_run(files, make_settings({"workspace": tmp_path / "w", **values}), registry, shared=shared))
        return runs[-1]

    yield start
    for run in runs:
        run.release()


@pytest.fixture
def work(registry):
    """Return a function that does the work of a run, chunk by chunk, and returns its summary."""

    def do(run):
        for number, chunk in enumerate(run.workfile.chunks()):
            run.work(run.pipeline(), run.workfile.files(chunk), str(number))
        return run.finish()

    return do


@pytest.fixture
def local(tmp_path):
    """Return a function that makes local files and returns their entries."""

    def make(count: int) -> list[dict[str, str]]:
        paths = [tmp_path / f"f{n}.txt" for n in range(count)]
        # A file that is written again is processed again.
        for path in paths:
            if not path.exists():
                path.write_text(path.stem)
        return [{"url": path.as_uri()} for path in paths]

    return make


def test_a_run_remembers_how_it_was_asked_for(begin, local, manifest):
    files = manifest(local(5))
    run = begin(files, chunk_size=2)
    assert run.info == read_info(run.folder)
    assert (run.info.run, run.info.total, run.info.files, run.info.batch) == (1, 5, str(files), run.batch)
    assert (run.info.pid, [step["name"] for step in run.info.plugins]) == (os.getpid(), ["checksum"])
    assert [chunk.size for chunk in run.workfile.chunks()] == [2, 2, 1]
    assert [file.id for chunk in run.workfile.chunks() for file in run.workfile.files(chunk)] == ["f0", "f1", "f2", "f3", "f4"]
    assert run.workfile.settings.chunk_size == 2
    assert run.workfile.is_open()


def test_a_run_ends_with_results_and_a_summary_and_forgets_what_is_private(begin, work, local, tmp_path):
    run = begin([*local(3), {"url": (tmp_path / "missing.txt").as_uri()}], chunk_size=3)
    seen = run.progress()
    assert (seen.ok, seen.failed, seen.missing, run.summary()) == (0, 0, 4, None)
    summary = work(run)
    assert (summary.ok, summary.failed, summary.missing, summary.complete) == (3, 1, 0, False)
    assert run.summary() == summary
    assert [outcome.id for outcome in run.results() if not outcome.ok] == ["missing"]
    assert not run.workfile.is_open()
    assert not (run.folder.parent.parent / "manifest").exists()
    assert run.conclude() == (summary, 1)
    assert run.conclude(interrupted=True) == (summary, 130)


def test_the_next_run_has_the_next_number_and_takes_up_what_is_done(begin, work, local):
    first = begin(local(3), chunk_size=9)
    assert work(first).complete
    first.release()
    second = begin(local(3), chunk_size=9)
    assert (second.number, second.batch) == (2, first.batch)
    assert [outcome.cached for outcome in second.results()] == []
    assert (work(second).cached, first.summary().cached) == (3, 0)
    assert second.conclude()[1] == 0


def test_a_ledger_that_has_outcomes_already_is_not_worked_again(begin, local):
    run, seen = begin(local(2), chunk_size=9), []
    with closing(ChunkRunner(run)) as runner:
        for _ in range(2):
            assert runner.run(0, lambda *counts: seen.append(counts)) == "done"
            run.chunk_ledger(0).rename(run.chunk_ledger(0).with_name("00000.jsonl.open"))
    assert seen[-1] == (2, 0, 2)
    assert {outcome.id for outcome in run.results()} == {"f0", "f1"}
    assert (run.progress().ok, run.progress().missing) == (2, 0)


def test_what_was_complete_before_is_recorded_for_a_small_batch(begin, work, local, registry):
    first = begin(local(2), chunk_size=9)
    work(first)
    first.release()
    again = begin([*local(2), {"url": "file:///none", "id": "x"}], chunk_size=1)
    again.record_known()
    assert sorted((outcome.id, outcome.cached) for outcome in again.results()) == [("f0", True), ("f1", True)]


def test_a_file_of_this_run_is_not_recorded_as_known(begin, work, local, registry):
    first = begin(local(1), chunk_size=9)
    work(first)
    first.release()
    run = begin(local(1))
    pipeline = run.pipeline()
    (file,) = run.workfile.files(run.workfile.chunks()[0])
    ledger = Ledger(run.ledger(pipeline.recall(Job(file)).key))
    ledger.finish()
    run.record_known()
    assert list(run.results()) == []


def test_a_run_without_a_summary_that_nobody_works_on_is_summed_up(begin, local):
    run = begin(local(2))
    summary, code = run.conclude()
    assert (summary.missing, code) == (2, 1)
    assert run.summary() == summary


def test_a_run_that_others_work_on_is_only_looked_at(begin, local):
    run, other = begin(local(2), shared=True), begin(local(2), shared=True)
    assert run.conclude(interrupted=True)[1] == 130
    assert run.summary() is None
    assert other.folder == run.folder


def test_a_run_that_its_surroundings_stopped_says_so(begin, local, registry):
    run = begin(local(2), chunk_size=9)
    (run.folder.parents[2].parent / "downloads").write_text("in the way")
    with pytest.raises(EnvironmentStop, match="a file is in the way"):
        run.work(run.pipeline(), run.workfile.files(run.workfile.chunks()[0]), "0")
    assert run.conclude()[1] == 3


def test_a_run_that_can_not_even_note_why_it_stops_goes_on_stopping(begin, local):
    run = begin(local(1))
    run.folder.joinpath("stopped.json").mkdir()
    run.stop(EnvironmentStop("the disk is full"))
    assert run.folder.joinpath("stopped.json").is_dir()


def test_a_run_that_has_ended_has_no_plan(begin, work, local):
    run = begin(local(1))
    work(run)
    with pytest.raises(ConfigurationError, match=rf"^run {run.label} has ended or was replaced; start RunBatch again"):
        run.workfile.chunks()


def test_a_run_that_was_replaced_has_no_plan(begin, local):
    run = begin(local(1))
    run.release()
    assert begin(local(1)).number == 2
    with pytest.raises(ConfigurationError, match="has ended or was replaced"):
        run.workfile.chunks()
    assert not run.workfile.is_open()


def test_a_file_of_a_small_batch_has_a_place_for_notes(begin, local):
    run = begin(local(1))
    assert run.notes("key") == run.folder / "jobs" / "key.json"


def test_two_do_not_run_one_batch_but_two_batches(begin, local):
    run = begin(local(2))
    with pytest.raises(LockedError, match=f"run by pid {os.getpid()}"):
        begin(local(2))
    assert begin(local(2), processor="checksum", options={"checksum": {"algorithm": "md5"}}).batch != run.batch
    assert RunFolder(run.folder).is_held()


def test_a_released_run_is_held_by_nobody(begin, local):
    run = begin(local(2))
    run.release()
    run.release()
    assert not RunFolder(run.folder).is_held()


def test_several_share_the_run_that_one_of_them_began(begin, local):
    found: list[Run] = []
    threads = [threading.Thread(target=lambda: found.append(begin(local(2), shared=True))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert {run.number for run in found} == {1}


def test_who_comes_to_a_shared_run_that_has_ended_begins_the_next(begin, work, local):
    first = begin(local(1), shared=True)
    work(first)
    first.release()
    assert begin(local(1), shared=True).number == 2


def test_who_comes_while_others_still_hold_an_ended_run_waits_for_them(begin, work, local):
    first, found = begin(local(1), shared=True), []
    work(first)
    waits = threading.Thread(target=lambda: found.append(begin(local(1), shared=True)))
    waits.start()
    waits.join(0.2)
    assert waits.is_alive()
    first.release()
    waits.join()
    assert [run.number for run in found] == [2]


def test_waiting_for_a_run_that_somebody_has_alone_ends(begin, local, monkeypatch):
    monkeypatch.setattr(batches, "SHARING_SECONDS", 0.2)
    begin(local(1))
    with pytest.raises(LockedError):
        begin(local(1), shared=True)


@pytest.mark.parametrize("shared", [False, True])
def test_a_wrong_manifest_leaves_no_run_and_no_lock(begin, local, tmp_path, shared):
    wrong = [*local(1), {"url": "nope"}, 5, {"id": 1}]
    for _ in range(2):
        with pytest.raises(ManifestError) as caught:
            begin(wrong, shared=shared)
        assert str(caught.value).startswith("list of 4 files: 3 problems, nothing was fetched:\n  entry 1: url: has no scheme")
    (folder,) = (tmp_path / "w" / "batches").iterdir()
    assert [path.name for path in folder.iterdir()] == ["lock"]
    assert BatchLock(folder / "lock").try_alone()
    assert [path.name for path in (tmp_path / "w").iterdir()] == ["batches"]


@pytest.mark.parametrize("entries", [[5], ["h"], [None], [{1: 2, "a": 3}], [{"url": "https://h/", "x": {1: 2, "y": object()}}]])
def test_a_list_of_anything_is_a_manifest_error(begin, entries):
    with pytest.raises(ManifestError, match="entry 0: "):
        begin(entries)


def test_a_list_in_itself_is_a_manifest_error(begin):
    endless: list = []
    endless.append(endless)
    with pytest.raises(ManifestError):
        begin([{"url": "https://h/", "x": endless}])


def test_an_empty_list_is_a_run_without_files(begin, work):
    assert work(begin([], allow_empty=True)).complete


def test_a_wrong_setting_is_found_before_anything_is_made(begin, local, tmp_path):
    with pytest.raises(ConfigurationError, match="unknown processor 'chekcsum'; did you mean 'checksum'"):
        begin(local(1), processor="chekcsum")
    assert not (tmp_path / "w").exists()


def test_a_workspace_that_can_not_be_written_to_stops_the_run(begin, local, tmp_path):
    (tmp_path / "w").write_text("")
    with pytest.raises(EnvironmentStop):
        begin(local(1))


def test_a_private_folder_that_can_not_be_made_stops_the_run_and_lets_go(begin, local, tmp_path):
    run = begin(local(1))
    private = run.folder.parent.parent / "manifest"
    run.finish()
    run.release()
    private.write_text("in the way")
    with pytest.raises(EnvironmentStop, match="cannot write"):
        begin(local(1))
    assert not RunFolder(run.folder).is_held()


def test_no_secret_is_left_in_the_workspace_or_in_the_outcomes(begin, work, site, tmp_path):
    host = site.url.removeprefix("http://")
    for path in ("/a", "/b"):
        site.add(path, "body")
    secret = {"headers": {"Authorization": "Bearer t0ken"}}
    entries = [
        {"url": f"http://me:hunter2@{host}/a?sig=s3cret", **secret},
        {"url": f"http://me:hunter2@{host}/gone?sig=s3cret", "urls": [f"http://me:hunter2@{host}/gone2?sig=s3cret"], **secret},
    ]
    run = begin(entries, attempts=1, retry_wait=0)
    private = {path.parent.name for path in texts(tmp_path / "w") if holds_secret(path)}
    assert private == {"manifest"}
    summary = work(run)
    assert (summary.ok, summary.failed) == (1, 1)
    assert not [path for path in texts(tmp_path / "w") if holds_secret(path)]
    assert not [secret for secret in SECRETS if secret in repr(list(run.results())) + repr(summary) + page_rows(run)]


def page_rows(run: Run) -> str:
    """Return the rows that are compressed in the run's page."""
    packed = re.findall(r'data-rows="2">([^<]*)<', (run.folder / "report.html").read_text())
    return "".join(gzip.decompress(base64.b64decode(block)).decode() for block in packed) or pytest.fail("the page has no rows")


def test_what_was_asked_has_no_secret_of_a_place(begin, local, tmp_path):
    (tmp_path / "there").mkdir()
    run = begin(local(1), skip_existing=f"{(tmp_path / 'there').as_uri()}?pattern=s3cret")
    assert run.info.settings["skip_existing"].endswith("/there?***")


def texts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def holds_secret(path: Path) -> bool:
    return any(secret in path.read_text() or secret in str(path) for secret in SECRETS)


def test_what_is_private_only_its_owner_may_read(begin, local):
    run = begin(local(1))
    assert (run.folder.parent.parent / "manifest").stat().st_mode & 0o777 == 0o700


def test_a_url_as_manifest_that_no_plugin_reads_is_refused_without_its_secrets(begin, tmp_path):
    with pytest.raises(InputError, match="no plugin reads manifests") as caught:
        begin("https://me:hunter2@h/x.json?sig=s3cret")
    assert not [secret for secret in SECRETS if secret in str(caught.value)]
    assert not [path for path in (tmp_path / "w").rglob("*") if "hunter2" in str(path)]


@pytest.fixture
def steps(registry):
    return registry.steps(make_settings({}))


def test_a_batch_is_its_manifest_and_its_steps(steps, registry, tmp_path):
    other = registry.steps(make_settings({"options": {"checksum": {"algorithm": "md5"}}}))
    name = batch_name("x.json", steps)
    assert name == batch_name(tmp_path / "x.json", steps) == batch_name("a/../x.json", steps)
    assert name.startswith("x-")
    assert len({name, batch_name("y/x.json", steps), batch_name("x.json", other), batch_name("x.jsonl", steps)}) == 4


def test_a_list_is_the_same_batch_in_every_order_of_keys(steps):
    name = batch_name([{"url": "a:b", "x": {"p": 1, "q": Path("x")}}], steps)
    assert name == batch_name(({"x": {"q": Path("x"), "p": 1}, "url": "a:b"},), steps)
    assert name != batch_name([{"url": "a:c"}], steps)
    assert name.startswith("list-")


@pytest.mark.parametrize(
    ("files", "title"),
    [
        ("x" * 250 + ".json", "x" * 40),
        ("Ünï code.json", "uni-code"),
        ("..json", "file"),
        (os.fsdecode(b"caf\xe9.json"), "caf"),
        ("sftp://me:hunter2@h/My%20list.json?sig=s3cret", "my-list"),
        ("sftp://[bad", "file"),
        ("sftp://host", "host"),
    ],
)
def test_names_of_batches_are_short_and_safe(files, title, steps):
    name = batch_name(files, steps)
    assert name.rpartition("-")[0] == title
    assert not [secret for secret in SECRETS if secret in name]


def test_a_manifest_whose_name_is_no_unicode_can_be_run(begin, local, work, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.json")
    path.write_text(json.dumps(local(1)))
    run = begin(str(path))
    assert run.info.files == f"{tmp_path}/caf\\udce9.json"
    assert work(run).complete


def test_runs_are_found_again(begin, local, tmp_path):
    begin(local(1)).release()
    begin(local(1)).release()
    newest = begin(local(2))
    older = latest_run(tmp_path / "w" / "batches" / find_run(tmp_path / "w", number=1).batch)
    runs = latest_runs(tmp_path / "w")
    assert [run.number for run in runs] == [1, 2]
    assert find_run(tmp_path / "w").folder == newest.folder == older.folder
    assert find_run(tmp_path / "w", runs[1].batch, 1).folder.name == "1"
    assert find_run(tmp_path / "w", runs[1].batch[:-2]).number == 2


@pytest.mark.parametrize(("batch", "text"), [("", "no batch was run in"), ("nope", "no batch 'nope' was run in")])
def test_where_nothing_was_run_one_is_told(batch, text, tmp_path):
    with pytest.raises(ConfigurationError, match=f"^{text} .*; list batches with dpp status, or choose another folder with --workspace"):
        find_run(tmp_path, batch)


@pytest.mark.parametrize("number", [0, 7, -1])
def test_a_number_that_never_ran_is_refused(begin, local, tmp_path, number):
    run = begin(local(1))
    with pytest.raises(ConfigurationError, match=f"batch {run.batch} has no run {number}; its last run is 1"):
        find_run(tmp_path / "w", run.batch, number)


def test_folders_that_are_no_runs_are_passed_over(begin, local, tmp_path):
    run = begin(local(1))
    (run.folder.parent / "notes").mkdir()
    (tmp_path / "w" / "batches" / "empty").mkdir()
    assert [found.folder for found in latest_runs(tmp_path / "w")] == [run.folder]


def test_a_run_whose_note_has_gone_is_not_summed_up_as_one_of_no_files(begin, work, local):
    run = begin(local(1))
    (run.folder / "run.json").unlink()
    with pytest.raises(EnvironmentStop, match=r"run\.json was removed or damaged during the run; run the same command again"):
        work(run)
    assert run.summary() is None


@pytest.mark.parametrize("text", ["", "[]", '{"run": '])
def test_a_torn_run_json_is_one_with_defaults(begin, local, text):
    run = begin(local(1))
    (run.folder / "run.json").write_text(text)
    found = RunFolder(run.folder)
    assert found.info == RunInfo()
    assert found.progress().batch == run.batch


@pytest.mark.parametrize("files", ["empty.txt", "header.csv", "list.json", "folder", "*.none", "file:folder", []])
def test_a_list_without_files_is_refused_unless_that_is_allowed(files, begin, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in (("empty.txt", "# none\n"), ("header.csv", "url\n"), ("list.json", "[]")):
        (tmp_path / name).write_text(text)
    (tmp_path / "folder").mkdir()
    files = f"file://{tmp_path}/folder" if files == "file:folder" else files
    with pytest.raises(InputError, match=r": the list names no files; if that is right, use --allow-empty$"):
        begin(files)
    assert begin(files, allow_empty=True).info.total == 0


def test_files_that_are_skipped_are_files(begin, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a").write_text("a")
    assert begin([{"url": "https://h/a"}], skip_existing=str(tmp_path / "there")).info.skipped == 1


def test_a_list_of_urls_is_a_manifest(begin, work, tmp_path):
    (tmp_path / "a").write_text("a")
    assert work(begin([(tmp_path / "a").as_uri()])).ok == 1
