"""The Luigi tasks, from a program that calls ``luigi.build``."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import luigi
import pytest
from dpp import ConfigurationError, DownloadTarget, InputError, ManifestError, PreProcessed, Processed, Report, RunBatch
from dpp.engine.snapshot import read_snapshots
from dpp.tasks.batch import start_batch
from dpp.tasks.chunks import FileChunk

from listening import wait_until


def build(*tasks, workers=1):
    return luigi.build(tasks, workers=workers, local_scheduler=True)


@pytest.mark.parametrize(
    ("task", "folder"), [(DownloadTarget, "downloads"), (PreProcessed, "downloads"), (Processed, "processed"), (Report, "reports")]
)
def test_each_task_makes_its_target(site, tmp_path, task, folder):
    made = task(url=site.add("/a.txt", "hello"))
    assert not made.complete()
    assert build(made)
    assert made.complete()
    assert f"dpp-workspace/{folder}/" in made.output().path


@pytest.mark.parametrize("died", ["before its ledger", "before the name of its ledger", "at its end"])
@pytest.mark.parametrize("name", ["a.txt", "missing"])
def test_a_report_whose_process_died_is_not_made_twice(site, tmp_path, name, died):
    site.add("/a.txt", "a")
    batch = RunBatch(files=[{"url": f"{site.url}/{name}"}])
    (report,) = batch.requires()
    build(report)
    target, ledger = Path(report.output().path), report._ledger_path()
    before = target.read_bytes(), ledger.read_bytes()
    if died == "before its ledger":
        ledger.unlink()
    elif died == "before the name of its ledger":
        ledger.rename(f"{ledger}.open")
    report.run()
    made_again = name == "missing" and died == "before its ledger"
    assert ((target.read_bytes(), ledger.read_bytes()) == before) is not made_again
    assert target.read_bytes() == ledger.read_bytes()
    batch.close()


def test_what_a_run_has_made_stays_made_when_cleanup_of_the_same_download_takes_it(site, results):
    url = site.add("/a.txt", "a")
    batch = RunBatch(files=[{"url": url}, {"url": url, "id": "again"}], cleanup=True)
    first, again = batch.requires()
    prepared = again.requires().requires()
    assert build(prepared)
    assert build(first)
    assert not prepared.output().exists()
    assert prepared.complete()
    assert build(batch)
    assert results()["again"]["status"] == "ok"


@pytest.mark.parametrize("size", [1, 0])
def test_luigi_may_schedule_in_parallel(command, site, tmp_path, results, size):
    urls = [site.add(f"/{name}.txt", name) for name in "abc"]
    (tmp_path / "urls.txt").write_text("\n".join(urls))
    (tmp_path / "program.py").write_text(
        "import luigi, dpp\n"
        f"batch = dpp.RunBatch(files='urls.txt', chunk_size={size}, options={{'checksum': {{'algorithm': 'md5'}}}})\n"
        "assert luigi.build([batch], local_scheduler=True, workers=2, parallel_scheduling=True, parallel_scheduling_processes=2)\n"
        "assert batch.complete()\n"
        "assert not luigi.build([dpp.DownloadTarget(url='gopher://h/x')], local_scheduler=True, parallel_scheduling=True)\n"
    )
    done = command(sys.executable, "program.py", timeout=60)
    assert done.returncode == 0, done.stderr
    assert {name: row["status"] for name, row in results().items()} == dict.fromkeys("abc", "ok")


class Yields(luigi.Task):
    """A task of a program that yields a batch, and whose batch is chosen while it runs."""

    url = luigi.Parameter()
    kind = luigi.Parameter()
    done = False

    def run(self):
        """Run the batch."""
        files = [{"url": self.url}] if self.kind == "list" else "urls.txt"
        yield RunBatch(files=files, options={"checksum": {"algorithm": "md5"}} if self.kind == "options" else {})
        self.done = True

    def complete(self):
        """Return whether the batch was run."""
        return self.done


@pytest.mark.parametrize("kind", ["path", "list", "options"])
def test_a_task_may_yield_a_batch(site, tmp_path, results, kind):
    (tmp_path / "urls.txt").write_text(url := site.add("/a.txt", "a"))
    assert build(Yields(url=url, kind=kind))
    assert results()["a"]["status"] == "ok"


def test_a_list_of_dicts_is_a_batch(site, results):
    batch = RunBatch(files=[{"url": site.add("/a.txt", "a"), "headers": {"X-A": "1"}, "tags": ["x", {"y": 1}]}])
    assert build(batch)
    assert batch.complete()
    assert results()["a"]["status"] == "ok"


def test_a_batch_that_failed_is_tried_anew_by_the_next_build(site):
    batch = RunBatch(files=[{"url": f"{site.url}/later.txt"}])
    assert not build(batch)
    site.add("/later.txt", "now")
    assert build(batch)
    assert batch.complete()
    batch.close()


def test_another_task_can_require_a_batch(site, tmp_path):
    class After(luigi.Task):
        files = luigi.Parameter()

        def requires(self):
            return RunBatch(files=self.files)

        def output(self):
            return luigi.LocalTarget(tmp_path / "after")

        def run(self):
            with self.output().open("w") as stream:
                stream.write("done")

    (tmp_path / "x.json").write_text(json.dumps([{"url": site.add("/a.txt", "a")}]))
    assert build(After(files="x.json"), workers=2)
    assert (tmp_path / "after").read_text() == "done"


def test_a_batch_is_run_anew_where_an_earlier_task_of_this_process_was_the_same(site, tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.json").write_text(json.dumps([{"url": site.add(f"/{name}.txt", name)}]))
    monkeypatch.chdir(tmp_path / "one")
    assert build(RunBatch(files="x.json"))
    monkeypatch.chdir(tmp_path / "two")
    assert start_batch("x.json")[0].ok == 1
    assert site.counts() == {"/one.txt": 1, "/two.txt": 1}


def test_a_chunk_reports_its_progress_to_the_scheduler(site, manifest, monkeypatch):
    said = []
    monkeypatch.setattr("luigi.worker.TaskStatusReporter.update_status_message", lambda self, message: said.append(message))
    monkeypatch.setattr("luigi.worker.TaskStatusReporter.update_progress_percentage", lambda self, share: said.append(share))
    files = manifest([{"url": site.add("/a.txt", "a")}, {"url": f"{site.url}/missing"}])
    start_batch(files, chunk_size=5)
    assert said[-2:] == ["2 of 2 files, 1 failed", 100]


@pytest.mark.parametrize("make", [lambda url: Report(url=url), lambda url: RunBatch(files=[{"url": url}])], ids=["task", "batch"])
def test_a_file_with_tasks_of_its_own_reports_its_bytes(site, monkeypatch, make):
    said = []
    monkeypatch.setattr("dpp.tasks.progress.SECONDS", 0.0)
    monkeypatch.setattr("luigi.worker.TaskStatusReporter.update_status_message", lambda self, message: said.append(message))
    url = site.script(
        "/a", lambda handler: (handler.send(200, b"x" * 5000, Content_Length=5001), wait_until(lambda: said), handler.wfile.write(b"y"))
    )
    assert build(make(url))
    assert set(said) == {"5,000 bytes downloaded"}


def test_the_snapshot_of_a_file_with_tasks_of_its_own_has_its_bytes(site, tmp_path):
    def reply(handler):
        handler.send(200, b"x" * 5000, Content_Length=5001)
        wait_until(lambda: 5000 in [snapshot.bytes for folder in tmp_path.rglob("progress") for snapshot in read_snapshots(folder)])
        handler.wfile.write(b"y")

    summary, _ = start_batch([{"url": site.script("/a", reply)}])
    assert summary.complete


def test_a_chunk_of_a_run_that_ended_says_so(site, manifest):
    files = manifest([{"url": site.add("/a.txt", "a")}])
    summary, _ = start_batch(files, chunk_size=5)
    with pytest.raises(ConfigurationError, match="has ended or was replaced"):
        FileChunk(run_folder=summary.folder, index=0).run()


def test_run_batch_returns_the_summary_and_the_exit_code(site, manifest):
    summary, code = start_batch(manifest([{"url": site.add("/a.txt", "a")}, {"url": f"{site.url}/missing"}]), workers=2)
    assert (summary.ok, summary.failed, code) == (1, 1, 1)


def test_a_program_gets_errors_as_exceptions(manifest):
    with pytest.raises(ManifestError, match="url is missing"):
        start_batch(manifest([{"id": 1}]))
    with pytest.raises(InputError, match="no files"):
        RunBatch().open()


def test_tasks_with_other_secrets_or_options_are_other_tasks():
    one, two = (Report(url=f"http://h/a?sig={secret}") for secret in ("canary1", "canary2"))
    assert one.task_id != two.task_id
    assert "canary" not in str(one) + one.task_id + json.dumps(one.to_str_params())
    assert Report(url="http://h/a", options={"p": {"x": 1}}).task_id != Report(url="http://h/a", options={"p": {"x": 2}}).task_id


def test_a_task_made_from_what_a_scheduler_knows_of_it_says_that_its_secrets_are_gone():
    shown = Report(url="http://h/a?sig=canary1").to_str_params()["url"][:-8] + "of-other"
    with pytest.raises(ConfigurationError, match="does not store the secrets"):
        Report.from_str_params({"url": shown})


def test_a_new_run_in_a_removed_workspace_is_about_its_own_files(tmp_path, manifest):
    """Luigi keeps task objects for the life of a process."""
    for text in ("one", "other"):
        source = tmp_path / f"{text}.txt"
        source.write_text(text)
        summary, code = start_batch(manifest([{"url": source.as_uri(), "id": "x"}]), workspace=tmp_path / "w")
        (row,) = (Path(summary.folder) / "results.jsonl").read_text().splitlines()
        assert (code, json.loads(row)["url"]) == (0, source.as_uri())
        shutil.rmtree(tmp_path / "w")


@pytest.mark.fault(38)
@pytest.mark.parametrize("more", [(), ("--chunk-size", "1"), ("--chunk-size", "4", "--cleanup")])
def test_a_rewritten_local_file_is_processed_again(manifest, run_batch, results, tmp_path, more, seen):
    for name in "ab":
        (tmp_path / name).write_text(f"first {name}")
    files = manifest([{"url": (tmp_path / name).as_uri()} for name in "ab"])
    assert run_batch(files, *more).returncode == 0
    before = results()
    (tmp_path / "a").write_text("a later")
    assert run_batch(files, *more).returncode == 0
    after = results()
    assert {name: row["cached"] for name, row in after.items()} == {"a": False, "b": True}
    assert after["a"]["result"]["sha256"] == hashlib.sha256(b"a later").hexdigest() != before["a"]["result"]["sha256"]
    seen("processed again")


DAMAGES = """
from dpp import BaseProcessor

class Damages(BaseProcessor):
    name = "damages"
    def process(self, file):
        with file.local_path.open("r+b") as stream:
            stream.write(b"X")
        return 1
"""


@pytest.mark.fault(40)
@pytest.mark.parametrize("chunk_size", [1, 4])
def test_a_step_that_changes_the_download_fails_the_file(site, manifest, run_batch, results, tmp_path, chunk_size, seen):
    (tmp_path / "damages.py").write_text(DAMAGES)
    files = manifest([{"url": site.add(f"/{name}", "text"), "id": name} for name in "ab"])
    assert run_batch(files, "--processor", "damages:Damages", "--chunk-size", chunk_size).returncode == 1
    assert {row["error_class"] for row in results().values()} == {"modified"}
    assert run_batch(files, "--chunk-size", chunk_size).returncode == 0
    assert site.counts() == {"/a": 2, "/b": 2}
    seen("modified, fetched again by a rerun")


@pytest.mark.fault(41)
def test_a_web_page_in_place_of_a_document_is_named_or_fails(site, manifest, run_batch, results, seen):
    def sign_in(handler):
        handler.send(200, b"<html><form>", Content_Type="text/html")

    files = manifest([{"url": site.script("/a.pdf", *[sign_in] * 4)}, {"url": site.add("/b.txt", "b"), "expect_type": "*/*"}])
    run = run_batch(files, "--expect-type", "text/html")
    assert run.returncode == 1, run.stderr
    assert {name: row["error_class"] for name, row in results().items()} == {"a": None, "b": "media-type"}
    run = run_batch(manifest([{"url": site.script("/c.pdf", sign_in)}]))
    assert run.returncode == 0, run.stderr
    assert "warning: 1 ok, but probably not the expected file, for example c " in run.stderr + run.stdout
    seen("a warning; media-type with expect_type")
