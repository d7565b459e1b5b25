"""The contract of pre-processors, processors and post-processors, as tests for a plugin's own test module."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel
from pydantic_core import from_json

from dpp.errors import ConfigurationError
from dpp.models import Failure, FileData
from dpp.plugins.steps import ConfiguredStep, step_name
from dpp.testing.files import Bench, contents
from dpp.testing.suites import assert_offered

THREADS = 4
BASES = {"pre-processor": "BasePreProcessor", "processor": "BaseProcessor", "post-processor": "BasePostProcessor"}
NO_SUCH_OPTION = {"no_such_option": 1}
FAILURE = Failure(stage="download", error_class="not-found", message="there is no such file")


class StepSuite:
    """What the suites of all steps have in common. A class that derives from one can give other fixtures of its own.

    Attributes:
        plugin: The class under test.
    """

    plugin: ClassVar[type[Any]]
    kind: ClassVar[str]

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        """Options that the step is tested with; none unless overridden."""
        return {}

    @pytest.fixture
    def other_options(self) -> list[dict[str, Any]]:
        """Options that make another output each, and so have to make another cache key; none unless overridden."""
        return []

    @pytest.fixture
    def samples(self) -> dict[str, bytes]:
        """Files that the step can work on, by name: two lines of text and one unless overridden."""
        return {"two.txt": b"one\ntwo\n", "one.txt": b"only\n"}

    @pytest.fixture
    def broken(self) -> dict[str, bytes]:
        """Files that have to fail, by name; none unless overridden."""
        return {}

    @pytest.fixture
    def fields(self) -> dict[str, dict[str, Any]]:
        """What a manifest says of files, such as their signatures, by name; nothing unless overridden."""
        return {}

    @pytest.fixture
    def make(self, options: dict[str, Any]) -> Callable[[], ConfiguredStep]:
        """Return a function that makes the step as a batch does: an object for each thread that uses it."""
        return lambda: ConfiguredStep(self.kind, self.plugin, options)

    @pytest.fixture
    def bench(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
        """Return where files are made ready; the current folder is an empty one beside it."""
        bench = Bench(tmp_path / "bench")
        current = tmp_path / "bench" / "current"
        current.mkdir()
        monkeypatch.chdir(current)
        return bench

    @pytest.fixture
    def files(self, bench: Bench, samples: dict[str, bytes], fields: dict[str, dict[str, Any]]) -> list[FileData]:
        """Return the samples, ready for the step."""
        return [bench.file(name, body, **fields.get(name, {})) for name, body in samples.items()]

    @pytest.fixture
    def work(self, bench: Bench) -> Callable[[ConfiguredStep, FileData], Any]:
        """Return a function that sends a file through the step and returns what came of it, to be compared."""
        return lambda step, file: self.outcome(step, bench.again(file))

    def outcome(self, step: ConfiguredStep, file: FileData) -> Any:
        """Send a file through the step and return what came of it, to be compared with ``==``."""
        raise NotImplementedError

    def test_it_has_a_name_and_a_version(self) -> None:
        """A batch asks for it by a name in a list; the version is part of the cache key."""
        name, version = self.plugin.name, self.plugin.version
        assert isinstance(name, str)
        assert name, "give the class a name: batches ask for it by that, and options stand under it"
        assert not set(name) & set(",: \t\n"), "a name without commas, colons and blanks can stand in a list of names"
        assert isinstance(version, str)
        assert version, "give the class a version: it is part of the key under which what it makes is kept"

    def test_it_is_offered(self) -> None:
        """An installed entry point or the package's hook offers it."""
        assert_offered(self.kind, step_name(self.plugin), self.plugin)

    def test_its_options_are_the_fields_of_a_model(self, options: dict[str, Any]) -> None:
        """A misspelled option is refused before anything is fetched."""
        assert issubclass(self.plugin, BaseModel), f"derive it from dpp.{BASES[self.kind]}"
        self.plugin(**options)
        with pytest.raises(ConfigurationError, match="no_such_option"):
            ConfiguredStep(self.kind, self.plugin, {**options, **NO_SUCH_OPTION})

    def test_its_options_make_the_cache_key(
        self, make: Callable[[], ConfiguredStep], options: dict[str, Any], other_options: list[dict[str, Any]]
    ) -> None:
        """The same options make the same key in every process, other options another one."""
        key = json.dumps(make().identity(), allow_nan=False, sort_keys=True)
        assert key == json.dumps(make().identity(), allow_nan=False, sort_keys=True)
        assert " at 0x" not in key, f"an option shows as the address of an object, which differs from process to process: {key}"
        others = [ConfiguredStep(self.kind, self.plugin, {**options, **other}).identity() for other in other_options]
        assert all(identity != make().identity() for identity in others), "an option that changes the output is not part of the cache key"

    def test_it_carries_nothing_over_from_one_file_to_the_next(
        self, make: Callable[[], ConfiguredStep], work: Callable[..., Any], files: list[FileData]
    ) -> None:
        """One object does for several files what a new one does for each."""
        alone = [work(make(), file) for file in files]
        used = make()
        assert [work(used, file) for file in [*files, *files]] == alone + alone

    def test_it_works_in_several_threads_at_once(
        self, make: Callable[[], ConfiguredStep], work: Callable[..., Any], files: list[FileData]
    ) -> None:
        """Each thread has an object of its own; they share nothing that a file changes."""
        alone = [work(make(), file) for file in files]
        step, begin = make(), threading.Barrier(THREADS)

        def all_files(_: int) -> list[Any]:
            begin.wait(timeout=60)
            return [work(step, file) for file in files]

        with ThreadPoolExecutor(THREADS) as threads:
            assert list(threads.map(all_files, range(THREADS))) == [alone] * THREADS

    def test_it_leaves_its_input_and_the_current_folder_alone(
        self, make: Callable[[], ConfiguredStep], work: Callable[..., Any], files: list[FileData], bench: Bench
    ) -> None:
        """What a step is given is the download, which other batches use too."""
        before = contents(bench.inputs), contents(Path.cwd())
        for file in files:
            work(make(), file)
        assert (contents(bench.inputs), contents(Path.cwd())) == before

    def test_a_broken_file_fails_alone(
        self,
        make: Callable[[], ConfiguredStep],
        work: Callable[..., Any],
        files: list[FileData],
        broken: dict[str, bytes],
        fields: dict[str, dict[str, Any]],
        bench: Bench,
    ) -> None:
        """It raises, leaves its input alone, and the next file fares as if nothing had been."""
        step, refused = make(), [bench.file(name, body, **fields.get(name, {})) for name, body in broken.items()]
        before = contents(bench.inputs), contents(Path.cwd())
        for file in refused:
            with pytest.raises(Exception) as caught:  # noqa: PT011 - any exception fails a file
                work(step, file)
            assert str(caught.value), f"{type(caught.value).__name__} for {file.name} does not say what failed"
        assert (contents(bench.inputs), contents(Path.cwd())) == before
        assert work(step, files[0]) == work(make(), files[0])


class PreProcessorSuite(StepSuite):
    """The contract of a pre-processor; see :class:`dpp.BasePreProcessor`."""

    kind = "pre-processor"

    def outcome(self, step: ConfiguredStep, file: FileData) -> Any:
        """Return the path that the step ends with, and what it wrote."""
        assert file.output_dir is not None
        made = step(file.model_copy())
        return _place(made, file), contents(file.output_dir)

    def test_it_returns_a_file_in_output_dir_or_its_input(
        self, make: Callable[[], ConfiguredStep], files: list[FileData], bench: Bench
    ) -> None:
        """What lies elsewhere is not published, and not removed."""
        for file in map(bench.again, files):
            made = make()(file.model_copy())
            assert isinstance(made, FileData), f"expected a FileData, got {type(made).__name__}"
            assert _place(made, file), f"local_path is {made.local_path}, neither the input nor something that is in output_dir"

    def test_it_keeps_what_the_file_is_called(self, make: Callable[[], ConfiguredStep], files: list[FileData], bench: Bench) -> None:
        """Id and URL name the file's targets and its report."""
        for file in map(bench.again, files):
            made = make()(file.model_copy())
            assert (made.id, made.url) == (file.id, file.url)

    def test_what_it_sets_on_a_file_is_json(self, make: Callable[[], ConfiguredStep], files: list[FileData], bench: Bench) -> None:
        """Fields that it sets are kept beside what it makes, for the next run."""
        for file in map(bench.again, files):
            json.dumps(make()(file.model_copy()).model_dump(mode="json"), allow_nan=False)


def _place(made: FileData, given: FileData) -> str:
    """Return where a pre-processed file lies: below ``output_dir``, ``input`` for the one it was given, or ""."""
    assert given.output_dir is not None
    if made.local_path is None or not Path(made.local_path).exists():
        return ""
    path = Path(made.local_path).resolve()
    if given.local_path is not None and path == given.local_path.resolve():
        return "input"
    inside = given.output_dir.resolve()
    return str(path.relative_to(inside)) if path != inside and path.is_relative_to(inside) else ""


class ProcessorSuite(StepSuite):
    """The contract of a processor; see :class:`dpp.BaseProcessor`."""

    kind = "processor"

    def outcome(self, step: ConfiguredStep, file: FileData) -> Any:
        """Return the result after a trip through JSON."""
        return from_json(json.dumps(step(file.model_copy()), allow_nan=False))

    def test_its_result_is_json(self, make: Callable[[], ConfiguredStep], files: list[FileData]) -> None:
        """Numbers are finite, and a reader gets what was written."""
        for file in files:
            text = json.dumps(make()(file.model_copy()), allow_nan=False)
            assert from_json(text) == json.loads(text)


class PostProcessorSuite(StepSuite):
    """The contract of a post-processor; see :class:`dpp.BasePostProcessor`."""

    kind = "post-processor"

    @pytest.fixture
    def result(self) -> Any:
        """What a processor returned: ``{"lines": 2}`` unless overridden."""
        return {"lines": 2}

    @pytest.fixture
    def effect(self) -> Callable[[], Any]:
        """Return a function that tells what can be seen of the step's work, such as the objects in a bucket; nothing unless overridden."""
        return lambda: None

    @pytest.fixture
    def work(self, bench: Bench, result: Any) -> Callable[[ConfiguredStep, FileData], Any]:
        """Return a function that gives the step a file's result."""
        return lambda step, file: step(result, bench.again(file))

    def test_it_returns_nothing(self, make: Callable[[], ConfiguredStep], result: Any, files: list[FileData]) -> None:
        """What it returns would be lost."""
        assert [make()(result, file.model_copy()) for file in files] == [None] * len(files)

    def test_doing_it_twice_is_as_good_as_once(
        self, make: Callable[[], ConfiguredStep], work: Callable[..., Any], files: list[FileData], effect: Callable[[], Any]
    ) -> None:
        """A run that is killed before the file's report is written calls it again."""
        for file in files:
            work(make(), file)
        once = effect()
        for file in files:
            work(make(), file)
        assert effect() == once

    def test_it_takes_files_that_failed(self, make: Callable[[], ConfiguredStep], files: list[FileData]) -> None:
        """They reach it without a result, without a path, and with the reason in ``error``; twice where the run is killed."""
        step = make()
        for file in [*files, *files]:
            failed = file.model_copy(update={"local_path": None, "output_dir": None, "error": FAILURE})
            assert step(None, failed) is None
