"""Tests of the stages of one file: errors become values, and files on disk are reused."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import logging
import os
import shutil
import sys
from pathlib import Path

import pytest
from dpp import (
    BasePostProcessor,
    BasePreProcessor,
    BaseProcessor,
    EnvironmentStop,
    Failure,
    FileData,
    InputError,
    Outcome,
    Settings,
)
from dpp.engine.pipeline import Job, Pipeline
from dpp.plugins.builtin import Checksum
from dpp.plugins.registry import registry
from dpp.plugins.steps import ConfiguredStep, Steps
from dpp.workspace.ledger import read_outcome

from http_site import serve_file, status


def entry(url: str, **digests: str | None) -> FileData:
    """Return the file "a" as a manifest with these digests lists it."""
    sha256 = digests.pop("sha256", None)
    return FileData(url=url, id="a", sha256=sha256, digests={name: value for name, value in digests.items() if value} or None)


class Text(BaseProcessor):
    """Return the text of a file, or the texts of the files in a folder."""

    def process(self, file):
        path = file.local_path
        return {child.name: child.read_text() for child in sorted(path.iterdir())} if path.is_dir() else path.read_text()


@pytest.fixture
def make(tmp_path):
    """Return a function that makes a pipeline of step classes."""
    made = []

    def pipeline(*pre, processor=Text, post=(), run="r/1", **settings):
        steps = Steps(
            [ConfiguredStep("pre-processor", cls, {}) for cls in pre],
            ConfiguredStep("processor", processor, {}),
            [ConfiguredStep("post-processor", cls, {}) for cls in post],
        )
        settings = Settings(**{"workspace": tmp_path / "ws", "attempts": 1, **settings})
        made.append(Pipeline(settings, registry(), run, steps))
        return made[-1]

    yield pipeline
    for one in made:
        one.close()


def run(pipeline, file):
    """Run all stages for a file; return its job and its outcome."""
    job = Job(file)
    for stage in (pipeline.download, pipeline.pre_process, pipeline.process):
        stage(job)
    return job, pipeline.report(job).outcome


@pytest.fixture
def a(site):
    return FileData(url=site.add("/a.txt", "text"))


@pytest.fixture
def upper():
    """A pre-processor that counts its calls."""

    class Upper(BasePreProcessor):
        name = "upper"

        def pre_process(self, file):
            calls.append(file.id)
            made = file.output_dir / file.local_path.name
            made.write_text(file.local_path.read_text().upper())
            file.local_path = made
            return file

    calls = []
    Upper.calls = calls
    return Upper


def failing(base, method, action):
    """Return a step class whose method is a bad one."""
    return type("Bad", (base,), {"name": "bad", method: lambda self, *args: action(*args)})


def raised(error):
    def action(*args):
        raise error

    return action


def caused(error, cause):
    """Return an error that was raised from another one."""
    error.__cause__ = cause
    return error


@pytest.fixture
def unwritable(tmp_path):
    """Return a function that makes an action, which moves the workspace away and raises an error."""

    def make(error):
        def action(*args):
            (tmp_path / "ws").rename(tmp_path / "gone")
            raise error

        return action

    return make


class TestOutcomes:
    """The fields of an outcome."""

    def test_a_file_that_is_ok(self, make, a, site):
        job, outcome = run(make(processor=Checksum), a)
        sha256 = "982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1"
        assert outcome.model_dump(exclude={"seconds", "at", "key"}) == {
            **dict.fromkeys(
                [
                    "stage",
                    "error_class",
                    "message",
                    "http_status",
                    "digests",
                    "content_type",
                    "media_type",
                    "warning",
                    "source_version",
                    "traceback",
                ]
            ),
            "id": "a",
            "name": "a",
            "url": site.url + "/a.txt",
            "status": "ok",
            "attempts": 1,
            "bytes": 4,
            "sha256": sha256,
            "plugins": [{"kind": "processor", "name": "checksum", "version": "1"}],
            "result": {"size": 4, "sha256": sha256, "media_type": "text/plain"},
            "run": "r/1",
            "cached": False,
        }
        assert outcome.seconds.keys() == {"download", "process"}
        assert job.failure is None

    def test_a_download_that_fails_is_a_value(self, make, site):
        _, outcome = run(make(), FileData(url=site.url + "/gone"))
        assert (outcome.status, outcome.stage, outcome.error_class, outcome.http_status) == ("failed", "download", "http-404", 404)
        assert (outcome.message, outcome.traceback, outcome.result, outcome.bytes) == (
            "the server responded with 404: no such file",
            None,
            None,
            None,
        )

    def test_attempts_are_counted(self, make, site, a):
        site.script("/a.txt", status(503, Retry_After="0"), status(503, Retry_After="0"), serve_file)
        assert run(make(attempts=3), a)[1].attempts == 3

    def test_the_report_is_the_outcome(self, make, a):
        pipeline = make()
        _, outcome = run(pipeline, a)
        assert Outcome.model_validate_json(pipeline.report_path(a).read_bytes()) == outcome

    @pytest.mark.fault(29)
    @pytest.mark.parametrize(
        ("error", "error_class", "message"),
        [
            (ValueError("bad value"), "ValueError", "bad value"),
            (KeyError(), "KeyError", "KeyError"),
            (SystemExit(3), "SystemExit", "3"),
            (sys.exit, "SystemExit", "SystemExit"),
            (RecursionError("deep"), "RecursionError", "deep"),
            (MemoryError(), "MemoryError", "MemoryError"),
            (OSError(errno.ENOENT, "not there"), "FileNotFoundError", "[Errno 2] not there"),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
    )
    @pytest.mark.parametrize(
        ("stage", "base", "method"),
        [
            ("pre-process", BasePreProcessor, "pre_process"),
            ("process", BaseProcessor, "process"),
            ("post-process", BasePostProcessor, "post_process"),
        ],
    )
    def test_whatever_a_plugin_raises_is_a_value(self, make, a, stage, base, method, error, error_class, message):
        bad = failing(base, method, (lambda *_: error()) if callable(error) else raised(error))
        pipeline = {"pre-process": lambda: make(bad), "process": lambda: make(processor=bad), "post-process": lambda: make(post=[bad])}
        _, outcome = run(pipeline[stage](), a)
        assert (outcome.status, outcome.stage, outcome.error_class, outcome.message) == ("failed", stage, error_class, message)
        assert outcome.result is None
        assert outcome.traceback.startswith("Traceback (most recent call last):")
        assert "in action" in outcome.traceback or callable(error)

    @pytest.mark.fault(29)
    @pytest.mark.parametrize("base", [BasePreProcessor, BaseProcessor, BasePostProcessor])
    def test_a_constructor_that_raises_fails_the_file(self, make, a, base):
        class Unmakeable(base):
            def model_post_init(self, context):
                raise RuntimeError("no licence")

            pre_process = process = post_process = lambda self, *args: None

        pipeline = {
            BasePreProcessor: lambda: make(Unmakeable),
            BaseProcessor: lambda: make(processor=Unmakeable),
            BasePostProcessor: lambda: make(post=[Unmakeable]),
        }
        outcome = run(pipeline[base](), a)[1]
        assert (outcome.status, outcome.error_class, outcome.message) == ("failed", "RuntimeError", "no licence")

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), EnvironmentStop("stop"), InputError("no")])
    def test_what_is_no_files_own_goes_on(self, make, a, error):
        with pytest.raises(type(error)):
            run(make(processor=failing(BaseProcessor, "process", raised(error))), a)

    @pytest.mark.fault(34)
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE])
    def test_an_error_of_another_disk_is_the_files_own(self, make, a, number):
        outcome = run(make(processor=failing(BaseProcessor, "process", raised(OSError(number, "broken")))), a)[1]
        assert (outcome.status, outcome.error_class, outcome.message) == ("failed", "OSError", f"[Errno {number}] broken")

    @pytest.mark.parametrize(
        "error", [OSError(errno.ENOSPC, "full"), caused(RuntimeError("no output"), OSError(errno.EDQUOT, "full"))], ids=str
    )
    def test_where_the_workspace_cannot_be_written_either_the_run_stops(self, make, a, error, unwritable):
        pipeline = make(processor=failing(BaseProcessor, "process", unwritable(error)))
        with pytest.raises(EnvironmentStop, match=r"cannot write .*ws: "):
            run(pipeline, a)
        assert not pipeline.report_path(a).exists()

    def test_a_group_of_exceptions_names_the_first_one(self, make, a):
        group = ExceptionGroup("tasks", [ExceptionGroup("inner", [ValueError("bad"), KeyError("x")])])
        _, outcome = run(make(processor=failing(BaseProcessor, "process", raised(group))), a)
        assert (outcome.error_class, outcome.message) == ("ExceptionGroup", "tasks (1 sub-exception) - ValueError: bad")


class TestSecrets:
    """No written file contains a secret."""

    @pytest.mark.parametrize(
        ("stage", "base", "method"),
        [("pre-process", BasePreProcessor, "pre_process"), ("process", BaseProcessor, "process")],
    )
    def test_a_plugin_that_tells_them_in_its_error(self, make, site, caplog, stage, base, method):
        def tell(file):
            raise ValueError(f"{file.url} {file.headers} {file.urls} at hunter22")

        site.add("/a", "x")
        url = site.url.replace("//", "//me:hunter22@") + "/a?sig=s1gn4ture&x=1"
        file = FileData(url=url, headers={"X-Key": "k3yk3y"}, urls=[site.url + "/b?token=t0k3n0"])
        bad = failing(base, method, tell)
        caplog.set_level(logging.DEBUG)
        pipeline = make(bad) if stage == "pre-process" else make(processor=bad)
        _, outcome = run(pipeline, file)
        assert (outcome.stage, outcome.error_class) == (stage, "ValueError")
        assert "/a?***" in outcome.message
        assert outcome.message.endswith("at ***")
        written = b"".join(path.read_bytes() for path in Path("ws").rglob("*") if path.is_file()).decode()
        for secret in ("hunter22", "s1gn4ture", "k3yk3y", "t0k3n0", "me:"):
            assert secret not in outcome.model_dump_json() + written + caplog.text

    def test_a_cause_that_tells_them(self, make, site):
        def tell(file):
            try:
                Path(f"/none/{file.url}").read_text()
            except OSError as error:
                raise RuntimeError("failed") from error

        site.add("/a", "x")
        file = FileData(url=site.url + "/a?sig=s1gn4ture")
        _, outcome = run(make(processor=failing(BaseProcessor, "process", tell)), file)
        assert "No such file" in outcome.traceback
        assert "s1gn4ture" not in outcome.model_dump_json()

    def test_a_download_that_fails(self, make, site, caplog):
        caplog.set_level(logging.DEBUG)
        file = FileData(url=site.url.replace("//", "//me:hunter22@") + "/a?sig=s1gn4ture", urls=["http://127.0.0.1:1/b?token=t0k3n0"])
        _, outcome = run(make(), file)
        assert outcome.error_class == "connection"
        for secret in ("hunter22", "s1gn4ture", "t0k3n0"):
            assert secret not in outcome.model_dump_json() + caplog.text


class TestPreProcessors:
    """The chain of pre-processors."""

    def test_without_any_the_download_is_what_is_processed(self, make, a):
        job, outcome = run(make(), a)
        assert (outcome.result, job.prepared.local_path) == ("text", job.download.path)
        assert not Path("ws/pre_processed").exists()

    def test_what_it_made_is_processed_and_kept(self, make, a, upper):
        pipeline = make(upper)
        job, outcome = run(pipeline, a)
        assert outcome.result == "TEXT"
        assert job.prepared.local_path.is_relative_to(pipeline.prepared_path(a))
        assert job.prepared.processing_history == [{"kind": "pre-processor", "name": "upper", "version": "0"}]
        assert job.prepared.output_dir is None
        assert job.download.path.read_text() == "text"

    def test_a_chain_of_two_runs_in_order_and_keeps_the_last(self, make, a, upper):
        class Twice(BasePreProcessor):
            name = "twice"

            def pre_process(self, file):
                assert not list(file.output_dir.iterdir())
                made = file.output_dir / "twice.txt"
                made.write_text(file.local_path.read_text() * 2)
                return file.model_copy(update={"local_path": made})

        pipeline = make(upper, Twice)
        job, outcome = run(pipeline, a)
        assert outcome.result == "TEXTTEXT"
        assert [step["name"] for step in job.prepared.processing_history] == ["upper", "twice"]
        assert [path.name for path in pipeline.prepared_path(a).rglob("*") if path.is_file()] == ["twice.txt"]

    def test_a_step_that_passes_on_what_the_one_before_made(self, make, a, upper):
        passing = failing(BasePreProcessor, "pre_process", lambda file: file)
        pipeline = make(upper, passing)
        assert run(pipeline, a)[1].result == "TEXT"
        assert pipeline.has_prepared(a)

    def test_a_step_that_leaves_the_download_as_it_is_copies_nothing(self, make, a):
        passing = failing(BasePreProcessor, "pre_process", lambda file: file)
        pipeline = make(passing)
        job, outcome = run(pipeline, a)
        assert (outcome.result, job.prepared.local_path) == ("text", job.download.path)
        assert list(pipeline.prepared_path(a).iterdir()) == []
        assert run(make(passing), a)[0].prepared.local_path == job.download.path

    @pytest.mark.parametrize("folder", [False, True])
    def test_what_lies_outside_output_dir_is_copied(self, make, a, tmp_path, folder):
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "o.txt").write_text("out")
        made = outside if folder else outside / "o.txt"
        pipeline = make(failing(BasePreProcessor, "pre_process", lambda file: file.model_copy(update={"local_path": made})))
        job, outcome = run(pipeline, a)
        assert outcome.result == ({"o.txt": "out"} if folder else "out")
        shutil.rmtree(outside)
        assert job.prepared.local_path.is_relative_to(pipeline.prepared_path(a))
        assert pipeline.has_prepared(a)

    @pytest.mark.parametrize(
        ("returned", "message"),
        [
            (lambda file: None, "bad returned NoneType; expected a FileData"),
            (lambda file: str(file.local_path), "bad returned str; expected a FileData"),
            (lambda file: file.model_copy(update={"local_path": None}), "bad returned a file whose local_path does not exist: None"),
            (
                lambda file: file.model_copy(update={"local_path": Path("/nope")}),
                "bad returned a file whose local_path does not exist: /nope",
            ),
        ],
    )
    def test_what_is_no_file_fails_it(self, make, a, returned, message):
        pipeline = make(failing(BasePreProcessor, "pre_process", returned))
        _, outcome = run(pipeline, a)
        assert (outcome.stage, outcome.error_class, outcome.message) == ("pre-process", "no-file", message)
        assert not list(Path("ws/pre_processed").rglob("*.json"))

    def test_a_chain_that_fails_leaves_nothing(self, make, a, upper):
        bad = failing(BasePreProcessor, "pre_process", raised(ValueError("bad")))
        _, outcome = run(make(upper, bad), a)
        assert outcome.error_class == "ValueError"
        assert not [path for path in Path("ws/pre_processed").rglob("*") if path.is_file()]
        assert not list(Path("ws/pre_processed").rglob("*.tmp"))

    def test_extra_fields_that_it_changes_reach_the_processor_also_from_disk(self, make, site):
        class Enrich(BasePreProcessor):
            def pre_process(self, file):
                file.lines = 7
                file.provider = file.provider.upper()
                return file

        class Fields(BaseProcessor):
            def process(self, file):
                return [file.lines, file.provider, file.kept]

        file = FileData(url=site.add("/a", "x"), provider="acme", kept=[1])
        assert run(make(Enrich, processor=Fields), file)[1].result == [7, "ACME", [1]]
        shutil.rmtree("ws/processed")
        assert run(make(Enrich, processor=Fields), file)[1].result == [7, "ACME", [1]]
        assert (file.provider, file.processing_history) == ("acme", [])

    def test_an_extra_field_that_json_cannot_hold_fails_the_file(self, make, a):
        def spoil(file):
            file.thing = object()
            return file

        _, outcome = run(make(failing(BasePreProcessor, "pre_process", spoil)), a)
        assert (outcome.status, outcome.stage) == ("failed", "pre-process")

    def test_a_processor_cannot_change_what_post_processors_see(self, make, a):
        class Greedy(BaseProcessor):
            def process(self, file):
                file.local_path.with_name("x")
                file.id = "other"
                return 1

        class Look(BasePostProcessor):
            def post_process(self, result, file):
                seen.append(file.id)

        seen = []
        run(make(processor=Greedy, post=[Look]), a)
        assert seen == ["a"]


class TestResults:
    """The return value of a processor."""

    @pytest.mark.parametrize(
        ("result", "stored"),
        [(None, None), (0, 0), ("", ""), ({1: (2, 3)}, {"1": [2, 3]}), ([], []), ({"deep": {"er": [True]}}, {"deep": {"er": [True]}})],
    )
    def test_is_what_a_reader_of_json_will_see(self, make, a, result, stored):
        pipeline = make(processor=failing(BaseProcessor, "process", lambda file: result))
        job, outcome = run(pipeline, a)
        assert (outcome.status, outcome.result, job.result) == ("ok", stored, stored)
        assert json.loads(pipeline.result_path(a).read_text())["result"] == stored
        assert pipeline.has_result(a)

    @pytest.mark.fault(29)
    @pytest.mark.parametrize(
        "result",
        [float("nan"), float("inf"), {1, 2}, b"bytes", object(), {(1, 2): 3}, {1: 2, "1": 3}],
        ids=lambda value: type(value).__name__,
    )
    def test_that_json_cannot_hold_fails_the_file(self, make, a, result):
        pipeline = make(processor=failing(BaseProcessor, "process", lambda file: result))
        _, outcome = run(pipeline, a)
        assert (outcome.stage, outcome.error_class) == ("process", "result")
        assert outcome.message.startswith("invalid result of bad: ")
        assert not pipeline.has_result(a)

    @pytest.mark.fault(29)
    def test_that_contains_itself_fails_the_file(self, make, a):
        endless = []
        endless.append(endless)
        _, outcome = run(make(processor=failing(BaseProcessor, "process", lambda file: endless)), a)
        assert (outcome.error_class, outcome.message) == ("result", "invalid result of bad: it is nested too deeply, or contains itself")

    def test_that_is_awaited_is_that_of_the_coroutine(self, make, a):
        async def process(file):
            await asyncio.sleep(0)
            return file.id

        pipeline = make(processor=failing(BaseProcessor, "process", process))
        assert run(pipeline, a)[1].result == "a"
        # Otherwise Python warns of the loop of this thread whenever it comes to collect it, in the middle of another test.
        pipeline.steps.processor._local.runner.close()

    def test_with_half_a_surrogate_pair_fails_the_file(self, make, a):
        _, outcome = run(make(processor=failing(BaseProcessor, "process", lambda file: {"name": "\ud800"})), a)
        assert (outcome.status, outcome.stage) == ("failed", "process")
        assert outcome.message.startswith("invalid result of bad: result['name'] is text with a lone surrogate")

    @pytest.mark.parametrize("text", ["7", "[]", "null", '"result"', "{", "{}"])
    def test_a_target_that_is_none_is_no_result(self, make, a, text):
        pipeline = make()
        run(pipeline, a)
        pipeline.result_path(a).write_text(text)
        assert not pipeline.has_result(a)
        assert run(pipeline, a)[1].result == "text"


class TestPostProcessors:
    """The arguments of post-processors, and their errors."""

    @pytest.fixture
    def seen(self):
        return []

    @pytest.fixture
    def look(self, seen):
        class Look(BasePostProcessor):
            name = "look"

            def post_process(self, result, file):
                seen.append((result, file.error, file.local_path))

        return Look

    def test_a_generator_fails_the_file(self, make, a):
        def post_process(result, file):
            yield

        _, outcome = run(make(post=[failing(BasePostProcessor, "post_process", post_process)]), a)
        assert (outcome.stage, outcome.error_class) == ("post-process", "result")
        assert outcome.message == "post_process() of bad returned a generator, which has not run; use return instead of yield, and a list"

    def test_a_result_and_its_file(self, make, a, look, seen, upper):
        job, _ = run(make(upper, post=[look, look]), a)
        assert seen == [("TEXT", None, job.prepared.local_path)] * 2

    @pytest.mark.parametrize("stage", ["download", "pre-process", "process"])
    def test_a_failure(self, make, a, site, look, seen, stage):
        if stage == "download":
            a = FileData(url=site.url + "/gone")
        bad = raised(ValueError("bad"))
        pre = [failing(BasePreProcessor, "pre_process", bad)] if stage == "pre-process" else []
        processor = failing(BaseProcessor, "process", bad) if stage == "process" else Text
        run(make(*pre, processor=processor, post=[look]), a)
        ((result, error, path),) = seen
        assert (result, error.stage, path) == (None, stage, None)

    def test_one_that_raises_leaves_the_others_their_turn_and_fails_the_file(self, make, a, look, seen):
        bad = failing(BasePostProcessor, "post_process", raised(ValueError("no")))
        _, outcome = run(make(post=[bad, look]), a)
        assert (outcome.status, outcome.stage, outcome.error_class, outcome.result) == ("failed", "post-process", "ValueError", None)
        assert seen[0][1].stage == "post-process"

    def test_one_that_raises_for_a_failed_file_does_not_hide_the_first_failure(self, make, site):
        bad = failing(BasePostProcessor, "post_process", raised(ValueError("no")))
        _, outcome = run(make(post=[bad]), FileData(url=site.url + "/gone"))
        assert (outcome.stage, outcome.error_class) == ("download", "http-404")

    def test_they_are_called_again_for_a_file_that_was_not_reported(self, make, a, look, seen):
        pipeline = make(post=[look])
        run(pipeline, a)
        pipeline.report_path(a).unlink()
        run(pipeline, a)
        assert len(seen) == 2


class TestResuming:
    """Files on disk are reused, but only if they were made from the same input."""

    @pytest.fixture
    def counted(self):
        """A processor that counts its calls."""

        class Counted(BaseProcessor):
            name = "counted"

            def process(self, file):
                calls.append(file.id)
                return file.local_path.read_text()

        calls = []
        Counted.calls = calls
        return Counted

    def test_every_stage_is_taken_from_disk(self, make, a, site, upper, counted):
        run(make(upper, processor=counted), a)
        job, outcome = run(make(upper, processor=counted), a)
        assert (outcome.result, outcome.attempts) == ("TEXT", 0)
        assert (len(upper.calls), len(counted.calls), site.counts()) == (1, 1, {"/a.txt": 1})
        assert job.prepared.processing_history[0]["name"] == "upper"

    def test_another_content_makes_every_stage_anew(self, make, a, site, upper, counted):
        run(make(upper, processor=counted), a)
        site.add("/a.txt", "else")
        shutil.rmtree("ws/downloads")
        pipeline = make(upper, processor=counted)
        job = Job(a)
        pipeline.download(job)
        assert not pipeline.has_prepared(a)
        pipeline.pre_process(job)
        pipeline.process(job)
        assert job.result == "ELSE"

    @pytest.mark.parametrize(
        "damage",
        [
            lambda made, record: made.write_text(""),
            lambda made, record: made.write_text("TEX"),
            lambda made, record: made.unlink(),
            lambda made, record: record.unlink(),
            lambda made, record: record.write_text("["),
            lambda made, record: record.write_text("[]"),
            lambda made, record: (made.unlink(), made.mkdir()),
        ],
    )
    def test_a_damaged_pre_processed_file_is_made_again(self, make, a, upper, damage):
        pipeline = make(upper)
        job, _ = run(pipeline, a)
        final = pipeline.prepared_path(a)
        damage(job.prepared.local_path, final.with_name(final.name + ".json"))
        assert not pipeline.has_prepared(a)
        run(pipeline, a)
        assert pipeline.has_prepared(a)
        assert len(upper.calls) == 2
        assert job.prepared.local_path.read_text() == "TEXT"

    @pytest.mark.parametrize(
        "damage", [lambda folder: (folder / "b").unlink(), lambda folder: (folder / "b").write_text(""), shutil.rmtree]
    )
    def test_a_damaged_folder_is_made_again(self, make, a, damage):
        class Unpack(BasePreProcessor):
            def pre_process(self, file):
                (file.output_dir / "b").write_text("b")
                return file.model_copy(update={"local_path": file.output_dir})

        pipeline = make(Unpack)
        job, outcome = run(pipeline, a)
        assert outcome.result == {"b": "b"}
        assert pipeline.has_prepared(a)
        damage(job.prepared.local_path)
        assert not pipeline.has_prepared(a)

    def test_what_is_there_is_told(self, make, a, upper):
        pipeline = make(upper)
        assert [pipeline.has_download(a), pipeline.has_prepared(a), pipeline.has_result(a)] == [False] * 3
        run(pipeline, a)
        assert pipeline.has_download(a)
        assert pipeline.has_prepared(a)
        assert pipeline.has_result(a)
        assert make().has_prepared(a)
        assert str(make().prepared_path(a)) == pipeline.workspace.download(a).body


def overwrite(file):
    file.local_path.write_bytes(file.local_path.read_bytes()[::-1])


def append(file):
    with file.local_path.open("a") as stream:
        stream.write("more")


def replace(file):
    other = file.local_path.with_name("other")
    other.write_text("txet")
    other.replace(file.local_path)


def keep_times(file):
    before = file.local_path.stat()
    overwrite(file)
    os.utime(file.local_path, ns=(before.st_atime_ns, before.st_mtime_ns))


class TestMediaTypes:
    """A web page in place of another file is named, and fails where another type is expected."""

    @pytest.fixture
    def page(self, site):
        reply = lambda handler: handler.send(200, b"<!DOCTYPE html><title>Sign in</title>", Content_Type="text/html; charset=utf-8")  # noqa: E731
        return FileData(url=site.script("/a.pdf", *[reply] * 5))

    def test_a_file_that_contradicts_its_name_has_a_warning(self, make, page):
        outcome = run(make(), page)[1]
        assert (outcome.status, outcome.content_type, outcome.media_type) == ("ok", "text/html; charset=utf-8", "text/html")
        assert outcome.warning == ".pdf expected, got a web page (text/html), perhaps of a sign-in or an error"
        assert make().recall(Job(page)).warning == outcome.warning

    def test_an_expected_type_gives_no_warning(self, make, page):
        assert run(make(expect_type="text/html"), page)[1].warning is None

    def test_a_file_that_is_ok_is_not_recalled_where_another_type_is_expected(self, make, page):
        run(make(), page)
        assert make(expect_type="application/pdf").recall(Job(page)) is None
        outcome = run(make(expect_type="application/pdf"), page)[1]
        assert (outcome.error_class, outcome.attempts, outcome.http_status) == ("media-type", 1, None)
        assert run(make(expect_type="text/*"), page)[1].ok
        assert make(expect_type="text/*").recall(Job(page)).ok


class TestDamagedInput:
    """A step that changes the download fails the file, and the next run downloads it again."""

    @pytest.mark.parametrize("damage", [overwrite, append, replace, keep_times, lambda file: file.local_path.unlink()])
    @pytest.mark.parametrize("cleanup", [False, True])
    def test_a_processor_that_changes_the_download(self, make, a, site, damage, cleanup):
        def process(self, file):
            damage(file)
            return "wrong"

        bad = type("Bad", (BaseProcessor,), {"name": "bad", "process": process})
        pipeline = make(processor=bad, cleanup=cleanup)
        job, outcome = run(pipeline, a)
        assert (outcome.stage, outcome.error_class) == ("process", "modified")
        assert outcome.message.startswith("bad changed the download in place")
        assert not job.download.path.exists()
        assert not pipeline.has_result(a)
        assert run(make(cleanup=cleanup), a)[1].result == "text"
        assert site.counts() == {"/a.txt": 2}

    def test_a_pre_processor_that_changes_the_download(self, make, a, site):
        def pre_process(self, file):
            overwrite(file)
            return file

        bad = type("Bad", (BasePreProcessor,), {"name": "bad", "pre_process": pre_process})
        pipeline = make(bad)
        outcome = run(pipeline, a)[1]
        assert (outcome.stage, outcome.error_class) == ("pre-process", "modified")
        assert run(make(), a)[1].result == "text"
        assert not pipeline.has_prepared(a)

    def test_a_post_processor_that_changes_the_download(self, make, a):
        bad = failing(BasePostProcessor, "post_process", lambda result, file: overwrite(file))
        outcome = run(make(post=[bad]), a)[1]
        assert (outcome.stage, outcome.error_class) == ("post-process", "modified")

    def test_a_step_that_fails_after_it_changed_the_download_keeps_its_own_error(self, make, a, site):
        def process(file):
            overwrite(file)
            raise ValueError("then this")

        assert run(make(processor=failing(BaseProcessor, "process", process)), a)[1].error_class == "ValueError"
        assert run(make(), a)[1].result == "text"
        assert site.counts() == {"/a.txt": 2}

    def test_a_change_is_noticed_under_other_names_that_share_the_bytes(self, make, a, site):
        other = a.model_copy(update={"name": "other", "id": "other"})
        run(make(), a)
        job, _ = run(make(), other)
        assert os.stat(job.download.path).st_nlink == 2
        overwrite(FileData(url=a.url, local_path=job.download.path))
        assert [make().has_download(file) for file in (a, other)] == [False, False]

    def test_what_keeps_the_content_is_no_damage(self, make, a, site):
        def process(self, file):
            file.local_path.touch()
            file.local_path.chmod(0o600)
            os.link(file.local_path, file.local_path.with_name("linked"))
            return "fine"

        harmless = type("Harmless", (BaseProcessor,), {"name": "harmless", "process": process})
        assert run(make(processor=harmless), a)[1].result == "fine"
        assert run(make(), a)[1].result == "text"
        assert site.counts() == {"/a.txt": 1}


class TestRecall:
    """A report alone makes a file complete, unless something contradicts it."""

    def test_a_complete_file_is_recalled(self, make, a):
        _, outcome = run(make(), a)
        again = make(run="r/2").recall(Job(a))
        assert again == outcome.model_copy(update={"cached": True})

    def test_one_of_this_run_is_not_called_cached(self, make, a):
        pipeline = make()
        run(pipeline, a)
        assert pipeline.recall(Job(a)).cached is False

    def test_a_report_is_enough_after_a_cleanup(self, make, a):
        pipeline = make()
        run(pipeline, a)
        shutil.rmtree("ws/downloads")
        shutil.rmtree("ws/processed")
        assert pipeline.recall(Job(a)).result == "text"

    @pytest.mark.parametrize("damage", [b"", b"tex", b"text and more"])
    def test_a_download_that_was_cut_is_redone(self, make, a, damage):
        pipeline = make()
        job, _ = run(pipeline, a)
        job.download.path.write_bytes(damage)
        assert pipeline.recall(Job(a)) is None
        assert run(pipeline, a)[1].result == "text"

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"id": "a"}'])
    def test_a_report_that_was_damaged_is_none(self, make, a, text):
        pipeline = make()
        run(pipeline, a)
        pipeline.report_path(a).write_text(text)
        assert pipeline.recall(Job(a)) is None

    @pytest.mark.parametrize("cleanup", [False, True])
    def test_a_digest_that_is_new_in_the_manifest_is_verified_first(self, make, a, site, cleanup):
        run(make(cleanup=cleanup), a)
        right, wrong = (a.model_copy(update={"digests": {"md5": digits}}) for digits in ("1cb251ec0d568de6a929b520c4aed8d1", "0" * 32))
        assert make().recall(Job(right)) is None
        assert run(make(cleanup=cleanup), right)[1].digests == right.digests
        assert make().recall(Job(right)).ok
        assert site.counts() == {"/a.txt": 1 + cleanup}
        assert make().recall(Job(wrong)) is None
        assert run(make(cleanup=cleanup), wrong)[1].error_class == "checksum"

    @pytest.mark.parametrize("cleanup", [False, True])
    def test_a_rewritten_source_is_processed_again_by_all_stages(self, make, upper, tmp_path, cleanup):
        source = tmp_path / "a.txt"
        source.write_text("first")
        file = FileData(url=source.as_uri())
        run(make(upper, cleanup=cleanup), file)
        source.write_text("second")
        later = make(upper, cleanup=cleanup, run="r/2")
        assert later.recall(Job(file)) is None
        assert [later.has_download(file), later.has_prepared(file)] == [False, False]
        assert later.has_result(file) is cleanup
        assert run(later, file)[1].result == "SECOND"
        assert later.recall(Job(file)).result == "SECOND"

    def test_a_touched_source_gives_the_same_result_without_another_call(self, make, upper, tmp_path):
        source = tmp_path / "a.txt"
        source.write_text("text")
        file = FileData(url=source.as_uri())
        run(make(upper), file)
        os.utime(source, (1, 1))
        assert make(upper).recall(Job(file)) is None
        run(make(upper), file)
        assert make(upper).recall(Job(file)).result == "TEXT"
        assert upper.calls == ["a"]

    def test_a_failed_file_is_not_recalled(self, make, site):
        pipeline = make()
        file = FileData(url=site.url + "/gone")
        run(pipeline, file)
        assert pipeline.recall(Job(file)) is None

    @pytest.mark.parametrize("changed", [{"size": 5}, {"sha256": "0" * 64}])
    def test_one_that_the_manifest_expects_otherwise_is_not_recalled(self, make, a, changed):
        pipeline = make()
        run(pipeline, a)
        assert pipeline.recall(Job(a.model_copy(update=changed))) is None

    @pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "sha512"])
    def test_a_new_query_needs_no_work_if_the_digest_is_the_same(self, make, a, algorithm):
        digest, pipeline = hashlib.new(algorithm, b"text").hexdigest(), make()
        signed, again, other = (entry(f"{a.url}?{query}", **{algorithm: digest}) for query in ("s=1&e=2", "e=2&s=1", "s=3"))
        done = run(pipeline, signed)[1]
        assert [pipeline.recall(Job(file)).key for file in (signed, again, other)] == [done.key] * 3
        assert pipeline.recall(Job(entry(f"{a.url}?s=1&e=2", **{algorithm: "0" * len(digest)}))) is None

    def test_work_under_the_key_of_one_digest_is_recalled_with_another(self, make, a):
        pipeline = make()
        md5, digest = (hashlib.new(algorithm, b"text").hexdigest() for algorithm in ("md5", "sha256"))
        run(pipeline, entry(f"{a.url}?sig=1", md5=md5))
        after, other = (entry(f"{a.url}?sig=2", md5=md5, sha256=given) for given in (digest, "0" * 64))
        assert pipeline.recall(Job(other)) is None
        assert pipeline.recall(Job(after)).result == "text"

    def test_work_under_a_key_with_the_query_is_recalled_and_gets_its_new_key(self, make, a):
        pipeline = make()
        digest = hashlib.sha256(b"text").hexdigest()
        before, after, other = (entry(f"{a.url}?sig=1", sha256=given) for given in (None, digest, "0" * 64))
        old = run(pipeline, before)[1]
        assert pipeline.recall(Job(other)) is None
        assert not pipeline.report_path(after).exists()
        found = pipeline.recalled(Job(after)).outcome
        assert (found.result, found.key != old.key, pipeline.report_path(after).stem) == ("text", True, found.key)
        assert read_outcome(pipeline.report_path(after)).key == found.key

    def test_one_of_other_steps_is_not_recalled(self, make, a, upper):
        run(make(), a)
        assert make(upper).recall(Job(a)) is None
        assert make(processor=Checksum).recall(Job(a)) is None


def test_simulated_downloads_have_a_workspace_of_their_own(make, a, monkeypatch):
    monkeypatch.setenv("PIPELINE_NO_SLEEP", "1")
    assert run(make(simulate_downloads=True), a)[1].result == "simulated download of a\n"
    assert make().recall(Job(a)) is None
    assert run(make(), a)[1].result == "text"


def test_steps_come_from_the_settings_where_none_are_given(tmp_path, a):
    pipeline = Pipeline(Settings(workspace=tmp_path / "ws"), registry())
    outcome = run(pipeline, a)[1]
    pipeline.close()
    assert outcome.plugins == [{"kind": "processor", "name": "checksum", "version": "1"}]


def test_stages_pass_over_what_has_failed(make, a):
    pipeline = make()
    job = Job(a, failure=Failure(stage="download", error_class="connection", message="down"))
    for stage in (pipeline.download, pipeline.pre_process, pipeline.process):
        stage(job)
    assert (job.attempts, job.download, job.prepared, job.failure.error_class) == (0, None, None, "connection")
