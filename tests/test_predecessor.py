"""Tests of the predecessor's interface as a library."""

from __future__ import annotations

import inspect
import json
import logging
import re
import tempfile
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest
from dpp import BasePostProcessor, BasePreProcessor, BaseProcessor, ConfigurationError, EnvironmentStop, ManifestError, ProcessingPipeline
from dpp.download.downloader import Downloader

import http_site


@pytest.fixture
def entries(site):
    """Serve three files; return their entries."""
    return [{"url": site.add(f"/{name}.txt", name * 3), "letter": name} for name in "abc"]


class Keep:
    """An old-style post-processor that stores its results by id."""

    seen: ClassVar[dict] = {}

    def __init__(self, debug=False):
        self.debug = debug

    def post_process(self, result, file):
        self.seen[file.id] = (result, file.error and file.error.error_class, self.debug)


@pytest.fixture(autouse=True)
def seen():
    Keep.seen = {}
    return Keep.seen


def test_the_signature_is_the_predecessor_s():
    asked = "pre_processor_class processor_class post_processor_class processing_limit download_queue_size pre_processing_queue_size"
    parameters = list(inspect.signature(ProcessingPipeline).parameters.values())
    assert [parameter.name for parameter in parameters][:9] == [*asked.split(), "download_cache", "simulate_downloads", "debug"]
    assert all(parameter.default is not inspect.Parameter.empty for parameter in parameters)


# Results of a run


@pytest.mark.parametrize("as_path", [True, False])
def test_a_manifest_or_a_list_is_run(entries, manifest, seen, as_path):
    pipeline = ProcessingPipeline(post_processor_class=Keep)
    assert pipeline.run(manifest(entries) if as_path else entries) == 0
    assert sorted(seen) == ["a", "b", "c"]
    assert (pipeline.summary.ok, pipeline.summary.failed) == (3, 0)


def test_an_empty_list_is_no_failure():
    pipeline = ProcessingPipeline()
    assert pipeline.run([]) == 0
    assert pipeline.summary.total == 0


def test_each_of_the_three_classes_has_its_turn(entries, seen):
    class Upper(BasePreProcessor):
        def pre_process(self, file):
            target = file.output_dir / "upper.txt"
            target.write_text(file.local_path.read_text().upper())
            file.local_path = target
            return file

    class Read(BaseProcessor):
        def process(self, file):
            return file.local_path.read_text() + file.letter

    assert ProcessingPipeline(Upper, Read, Keep).run(entries) == 0
    assert {name: result for name, (result, *_) in seen.items()} == {"a": "AAAa", "b": "BBBb", "c": "CCCc"}


@pytest.mark.parametrize("stage", ["pre_process", "process", "post_process"])
def test_an_error_in_a_stage_is_logged_and_fails_its_file_only(entries, tmp_path, stage):
    def act(self, *given):
        if given[-1].id == "b":
            raise ValueError("b is wrong")
        return given[0] if stage == "pre_process" else None

    cls = type("Stage", (), {stage: act})
    pipeline = ProcessingPipeline(**{f"{stage.replace('process', 'processor')}_class": cls}, log_file=tmp_path / "log.txt")
    assert pipeline.run(entries) == 1
    assert (pipeline.summary.ok, pipeline.summary.failed) == (2, 1)
    assert f"b failed in {stage.replace('_', '-')}: ValueError: b is wrong" in (tmp_path / "log.txt").read_text()


def test_a_pre_processor_that_returns_none_fails_that_file_only(entries, seen):
    class Drop(BasePreProcessor):
        def pre_process(self, file):
            return None if file.id == "b" else file

    assert ProcessingPipeline(Drop, post_processor_class=Keep).run(entries) == 1
    assert {name: error for name, (_, error, _) in seen.items()} == {"a": None, "b": "no-file", "c": None}


def test_the_post_processor_sees_files_that_failed(site, entries, seen):
    entries[1]["url"] = f"{site.url}/missing.txt"
    assert ProcessingPipeline(post_processor_class=Keep).run(entries) == 1
    assert seen["missing"][:2] == (None, "http-404")
    assert seen["a"][0]["size"] == 3


@pytest.mark.parametrize("kind", ["pre_processor", "processor", "post_processor"])
@pytest.mark.parametrize("error", [OSError("no licence"), SystemExit(1)], ids=repr)
def test_a_constructor_that_raises_loses_no_file(entries, kind, error, tmp_path):
    class Unmade:
        def __init__(self):
            raise error

        pre_process = process = post_process = print

    pipeline = ProcessingPipeline(**{f"{kind}_class": Unmade}, download_cache=tmp_path / "cache")
    assert pipeline.run(entries) == 1
    assert (pipeline.summary.total, pipeline.summary.failed, pipeline.summary.missing) == (3, 3, 0)
    rows = [json.loads(line) for line in next(tmp_path.glob("cache/batches/*/runs/1/results.jsonl")).read_text().splitlines()]
    assert {(row["stage"], row["error_class"]) for row in rows} == {(kind.replace("_", "-").replace("or", ""), type(error).__name__)}


def test_a_class_that_needs_options_is_refused_at_once(site, entries):
    class Needs(BaseProcessor):
        key: str

        def process(self, file):
            return self.key

    with pytest.raises(ConfigurationError, match="key is missing"):
        ProcessingPipeline(processor_class=Needs).run(entries)
    assert not site.counts()


def test_a_wrong_manifest_is_refused_at_once(site, entries):
    with pytest.raises(ManifestError, match="2 problems, nothing was fetched"):
        ProcessingPipeline().run([{"url": "nowhere"}, {}, entries[0]])
    assert not site.counts()


@pytest.mark.parametrize("limit", ["processing_limit", "download_queue_size", "pre_processing_queue_size"])
def test_limits_below_one_are_refused(limit):
    with pytest.raises(ConfigurationError, match=f"{limit}: should be greater than or equal to 1"):
        ProcessingPipeline(**{limit: 0}).run([])


def test_a_cache_that_cannot_be_written_stops_the_run(entries, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(EnvironmentStop):
        ProcessingPipeline(download_cache=tmp_path / "cache").run(entries)


# Old-style classes


@pytest.mark.parametrize("debug", [True, False])
def test_old_classes_get_debug(entries, seen, debug):
    assert ProcessingPipeline(post_processor_class=Keep, debug=debug).run(entries) == 0
    assert [flag for *_, flag in seen.values()] == [debug] * 3


def test_old_classes_without_arguments_work(entries, seen):
    class Plain:
        def process(self, file_data):
            return Path(file_data.local_path).name

    assert ProcessingPipeline(processor_class=Plain, post_processor_class=Keep, debug=True).run(entries) == 0
    assert seen["a"][0] == "a.txt"


@pytest.mark.parametrize("debug", [True, False])
def test_classes_of_the_bases_know_whether_the_run_is_debugged(entries, debug, seen):
    class Tell(BaseProcessor):
        def process(self, file):
            return self.debug

    class Kept(BasePostProcessor):
        def post_process(self, result, file):
            seen[file.id] = result

    assert ProcessingPipeline(processor_class=Tell, post_processor_class=Kept, debug=debug).run(entries) == 0
    assert seen == dict.fromkeys("abc", debug)


# Threads


@pytest.mark.parametrize("limit", [1, 3])
def test_the_processing_limit_is_reached_and_kept(site, limit):
    running, most, everybody = [], [], threading.Barrier(limit)

    class Meet:
        def process(self, file):
            running.append(file.id)
            most.append(len(running))
            everybody.wait(100)
            running.remove(file.id)

    files = [{"url": site.add(f"/{number}.txt", "x")} for number in range(6)]
    assert ProcessingPipeline(processor_class=Meet, processing_limit=limit).run(files) == 0
    assert max(most) <= limit


def test_small_queues_lose_nothing(site):
    files = [{"url": site.add(f"/{number}.txt", "x")} for number in range(60)]
    pipeline = ProcessingPipeline(processing_limit=1, download_queue_size=1, pre_processing_queue_size=1)
    assert pipeline.run(files) == 0
    assert pipeline.summary.ok == 60


# Downloads


def test_downloads_are_tried_three_times(site):
    again = http_site.status(503, Retry_After=0)
    files = [
        {"url": site.script("/third.txt", again, again, http_site.status(200, b"ok"))},
        {"url": site.script("/never.txt", again)},
        {"url": site.script("/gone.txt", http_site.status(410))},
    ]
    pipeline = ProcessingPipeline()
    assert pipeline.run(files) == 1
    assert site.counts() == {"/third.txt": 3, "/never.txt": 3, "/gone.txt": 1}
    assert (pipeline.summary.ok, pipeline.summary.failed) == (1, 2)


def test_a_cache_is_resumed(site, entries, tmp_path):
    missing = {"url": f"{site.url}/late.txt"}
    assert ProcessingPipeline(download_cache=tmp_path / "cache").run([*entries, missing]) == 1
    site.add("/late.txt", "now")
    site.forget()
    pipeline = ProcessingPipeline(download_cache=tmp_path / "cache")
    assert pipeline.run([*entries, missing]) == 0
    assert site.counts() == {"/late.txt": 1}
    assert (pipeline.summary.cached, pipeline.summary.run) == (3, 2)
    assert (Path(pipeline.summary.folder) / "summary.json").exists()


def test_one_cache_serves_other_classes_too(site, entries, tmp_path):
    class Other(BaseProcessor):
        def process(self, file):
            return 1

    assert ProcessingPipeline(download_cache=tmp_path / "cache").run(entries) == 0
    site.forget()
    assert ProcessingPipeline(processor_class=Other, download_cache=str(tmp_path / "cache")).run(entries) == 0
    assert not site.counts()


def test_the_cache_may_come_from_the_environment(entries, tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_DIR", str(tmp_path / "from-environment"))
    assert ProcessingPipeline().run(entries) == 0
    assert len(list(tmp_path.glob("from-environment/downloads/*/*/*.txt"))) == 3


@pytest.mark.parametrize("code", [0, 1])
def test_a_temporary_cache_is_removed(site, entries, tmp_path, monkeypatch, code):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    pipeline = ProcessingPipeline()
    assert pipeline.run([*entries, {"url": f"{site.url}/missing.txt"}] if code else entries) == code
    assert list((tmp_path / "temporary").iterdir()) == []
    assert pipeline.summary.folder == ""


def test_a_pipeline_runs_again(site, entries):
    pipeline = ProcessingPipeline()
    assert [pipeline.run(entries), pipeline.run(entries[:1])] == [0, 0]
    assert pipeline.summary.total == 1
    assert site.counts()["/a.txt"] == 2


def test_simulated_downloads_make_no_request(site, monkeypatch, seen):
    monkeypatch.setenv("PIPELINE_NO_SLEEP", "1")
    monkeypatch.setattr(Downloader, "_pause", lambda self, seconds: pytest.fail(f"it waits for {seconds} s"))
    files = [{"url": f"{site.url}/{number}.txt", "sha256": "0" * 64, "size": 9} for number in range(20)]
    assert ProcessingPipeline(post_processor_class=Keep, simulate_downloads=True).run(files) == 0
    assert len(seen) == 20
    assert not site.counts()


def test_simulated_downloads_take_a_while(site):
    began = time.monotonic()
    assert ProcessingPipeline(simulate_downloads=True).run([{"url": f"{site.url}/a.txt"}]) == 0
    assert time.monotonic() - began >= 1
    assert not site.counts()


def test_what_was_simulated_is_not_taken_for_the_real_thing(site, entries, tmp_path, monkeypatch):
    monkeypatch.setenv("PIPELINE_NO_SLEEP", "1")
    assert ProcessingPipeline(simulate_downloads=True, download_cache=tmp_path / "cache").run(entries) == 0
    assert ProcessingPipeline(download_cache=tmp_path / "cache").run(entries) == 0
    assert len(site.counts()) == 3


# Logs


def test_debug_logs_name_the_threads(entries, tmp_path):
    class Pass(BasePreProcessor):
        def pre_process(self, file):
            return file

    pipeline = ProcessingPipeline(Pass, post_processor_class=Keep, debug=True, log_file=tmp_path / "log.txt")
    assert pipeline.run(entries) == 0
    text = (tmp_path / "log.txt").read_text()
    for thread, step in (("pre-process-1", "pre-processor"), ("process-", "processor"), ("process-", "post-processor")):
        assert re.search(rf"DEBUG \[MainProcess {thread}.* [abc]: {step} ", text)


def test_without_debug_there_are_no_details(entries, tmp_path):
    assert ProcessingPipeline(log_file=tmp_path / "log.txt").run([*entries, {"url": "file:///not-there"}]) == 1
    assert "DEBUG" not in (tmp_path / "log.txt").read_text()


def test_without_a_log_file_there_is_none(entries, tmp_path):
    assert ProcessingPipeline(log_file=None, download_cache=tmp_path / "cache").run(entries) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert not any(isinstance(handler, logging.FileHandler) for handler in logging.getLogger("dpp").handlers)
