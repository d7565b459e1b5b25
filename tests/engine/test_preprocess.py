"""Tests of folders whose files are processed separately, such as an archive that is unpacked with ``explode``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from dpp import BasePostProcessor, BasePreProcessor, BaseProcessor, FileData, Settings, StageError
from dpp.engine.pipeline import Job, Pipeline
from dpp.plugins.registry import registry
from dpp.plugins.steps import ConfiguredStep, Steps

TEXTS = {"b.txt": "two", "deep/er/a.txt": "one", "deep/link.txt": None}
KEPT = {"b.txt", "deep/er/a.txt"}


class Explode(BasePreProcessor):
    """Make a folder of three members, one of them a symbolic link."""

    def pre_process(self, file):
        folder = file.output_dir / "all"
        for name, text in TEXTS.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to("/etc/passwd") if text is None else path.write_text(text)
        file.local_path, file.exploded = folder, True
        return file


class Upper(BasePreProcessor):
    """Keep ``b.txt`` as it is, and write the others in capitals."""

    def pre_process(self, file):
        if file.name != "b.txt":
            made = file.output_dir / f"{file.local_path.stem}.TXT"
            made.write_text(file.local_path.read_text().upper())
            file.local_path = made
        return file


class Same(BasePreProcessor):
    """Give all files the same name."""

    def pre_process(self, file):
        file.local_path = Path(shutil.copy2(file.local_path, file.output_dir / "same"))
        return file


class Text(BaseProcessor):
    """Return a file's id, name and text."""

    def process(self, file):
        return [file.id, file.name, file.local_path.read_text(), file.size, file.sha256]


class Collect(BasePostProcessor):
    """Record its arguments in ``seen.txt``."""

    def post_process(self, result, file):
        with Path("seen.txt").open("a") as seen:
            seen.write(f"{file.id} {result[2] if result else file.error.error_class}\n")


class Picky(BasePostProcessor):
    """Refuse one of the members."""

    def post_process(self, result, file):
        if file.name == "a.txt":
            raise StageError("it is not wanted", "picky")


class Again(Text):
    """A newer version of the same step."""

    version = "2"


class Fussy(Text):
    """Fail with one of the members."""

    def process(self, file):
        return 1 / (file.name != "a.txt")


@pytest.fixture
def outcome(tmp_path, monkeypatch, site):
    """Run a pipeline of step classes for a file, and return its outcome."""
    monkeypatch.chdir(tmp_path)
    file = FileData(url=site.add("/all.pack", "packed"))

    def run(*pre, processor=Text, post=(), **settings):
        made = [ConfiguredStep("pre-processor", cls, {}) for cls in pre]
        steps = Steps(made, ConfiguredStep("processor", processor, {}), [ConfiguredStep("post-processor", cls, {}) for cls in post])
        pipeline, job = Pipeline(Settings(workspace="ws", **settings), registry(), "r/1", steps), Job(file)
        for stage in (pipeline.download, pipeline.pre_process, pipeline.process):
            stage(job)
        pipeline.close()
        return pipeline.report(job).outcome

    return run


def seen():
    return Path("seen.txt").read_text().splitlines()


def test_the_processor_is_called_for_each_member(outcome):
    assert outcome(Explode).result == {
        "b.txt": ["all/b.txt", "b.txt", "two", None, None],
        "deep/er/a.txt": ["all/deep/er/a.txt", "a.txt", "one", None, None],
    }


def test_post_processors_are_called_for_each_member_with_its_result(outcome):
    assert outcome(Explode, post=[Collect]).ok
    assert seen() == ["all/b.txt two", "all/deep/er/a.txt one"]


def test_later_pre_processors_are_called_for_each_member(outcome):
    result = outcome(Explode, Upper).result
    assert {name: text for name, (_, _, text, *_) in result.items()} == {"b.txt": "two", "deep/er/a.TXT": "ONE"}
    assert {path.name for path in Path("ws/pre_processed").rglob("*") if path.is_file()} == {"b.txt", "a.TXT", *records()}


def records():
    return {path.name for path in Path("ws/pre_processed").glob("*/*/*.json")}


def test_what_was_prepared_is_taken_up_again_as_members(outcome, monkeypatch):
    outcome(Explode)
    monkeypatch.setattr(Explode, "pre_process", None)
    assert set(outcome(Explode, processor=Again).result) == KEPT


def test_members_that_would_get_one_name_fail_the_file(outcome, monkeypatch):
    monkeypatch.setitem(TEXTS, "c.txt", "three")
    failed = outcome(Explode, Same)
    assert failed.error_class == "member-name"
    assert failed.message.endswith("in c.txt")
    assert not records()


def test_a_failure_names_the_member_and_the_post_processors_see_the_file_once(outcome):
    failed = outcome(Explode, processor=Fussy, post=[Collect])
    assert (failed.stage, failed.error_class) == ("process", "ZeroDivisionError")
    assert failed.message == "division by zero in deep/er/a.txt"
    assert seen() == ["all ZeroDivisionError"]


def test_a_post_processor_that_fails_for_one_member_fails_the_file(outcome):
    failed = outcome(Explode, post=[Picky])
    assert (failed.stage, failed.error_class, failed.message) == ("post-process", "picky", "it is not wanted in deep/er/a.txt")


def test_a_single_file_is_no_folder_whatever_a_step_says(outcome, monkeypatch):
    monkeypatch.setattr(Explode, "pre_process", lambda _self, file: file.model_copy(update={"exploded": True}))
    assert outcome(Explode).result[2] == "packed"


def test_cleanup_removes_the_members(outcome):
    assert outcome(Explode, cleanup=True).ok
    assert not list(Path("ws/pre_processed").glob("*/*/*"))
