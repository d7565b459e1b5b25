"""The contract tests of pre-processors, processors and post-processors."""

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
from dpp.plugins.results import to_json
from dpp.plugins.steps import ConfiguredStep, step_name
from dpp.testing.files import Bench, contents
from dpp.testing.suites import assert_offered
from dpp.workspace.atomic import json_line

THREADS = 4
BASES = {"pre-processor": "BasePreProcessor", "processor": "BaseProcessor", "post-processor": "BasePostProcessor"}
NO_SUCH_OPTION = {"no_such_option": 1}
FAILURE = Failure(stage="download", error_class="not-found", message="there is no such file")


class StepSuite:
    """Tests of the contract of all steps; derived classes may override the fixtures.

    Attributes:
        plugin: The class under test.
    """

    plugin: ClassVar[type[Any]]
    kind: ClassVar[str]

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        """Options for the tests; none unless overridden."""
        return {}

    @pytest.fixture
    def other_options(self) -> list[dict[str, Any]]:
        """Options that change the output, so that each must change the cache key; none unless overridden."""
        return []

    @pytest.fixture
    def samples(self) -> dict[str, bytes]:
        """Valid input files by name; two text files unless overridden."""
        return {"two.txt": b"one\ntwo\n", "one.txt": b"only\n"}

    @pytest.fixture
    def broken(self) -> dict[str, bytes]:
        """Files by name for which the step must fail; none unless overridden."""
        return {}

    @pytest.fixture
    def fields(self) -> dict[str, dict[str, Any]]:
        """Fields of the manifest, such as signatures, by name of the file; none unless overridden."""
        return {}

    @pytest.fixture
    def make(self, options: dict[str, Any]) -> Callable[[], ConfiguredStep]:
        """Return a function that creates the step as a batch does, with one object per thread."""
        return lambda: ConfiguredStep(self.kind, self.plugin, options)

    @pytest.fixture
    def bench(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
        """Return a bench for files, and change to an empty folder next to them."""
        bench = Bench(tmp_path / "bench")
        current = tmp_path / "bench" / "current"
        current.mkdir()
        monkeypatch.chdir(current)
        return bench

    @pytest.fixture
    def files(self, bench: Bench, samples: dict[str, bytes], fields: dict[str, dict[str, Any]]) -> list[FileData]:
        """Return the samples, prepared for the step."""
        return [bench.file(name, body, **fields.get(name, {})) for name, body in samples.items()]

    @pytest.fixture
    def work(self, bench: Bench) -> Callable[[ConfiguredStep, FileData], Any]:
        """Return a function that runs the step on a file and returns its outcome."""
        return lambda step, file: self.outcome(step, bench.again(file))

    def outcome(self, step: ConfiguredStep, file: FileData) -> Any:
        """Run the step on a file and return its outcome, which can be compared with ``==``."""
        raise NotImplementedError

    def test_it_has_a_name_and_a_version(self) -> None:
        """Batches select it by its name in a list, and its version is part of the cache key."""
        name, version = self.plugin.name, self.plugin.version
        assert isinstance(name, str)
        assert name, "set the class attribute name, by which batches select it and set its options"
        assert not set(name) & set(",: \t\n"), "name must not contain commas, colons or white space, because it is used in lists"
        assert isinstance(version, str)
        assert version, "set the class attribute version, which is part of the cache key"

    def test_it_is_offered(self) -> None:
        """An installed entry point or the package's hook registers it."""
        assert_offered(self.kind, step_name(self.plugin), self.plugin)

    def test_its_options_are_the_fields_of_a_model(self, options: dict[str, Any]) -> None:
        """It must reject unknown options, so that a misspelled option is found before anything is downloaded."""
        assert issubclass(self.plugin, BaseModel), f"derive the class from dpp.{BASES[self.kind]}"
        self.plugin(**options)
        with pytest.raises(ConfigurationError, match="no_such_option"):
            ConfiguredStep(self.kind, self.plugin, {**options, **NO_SUCH_OPTION})

    def test_its_options_make_the_cache_key(
        self, make: Callable[[], ConfiguredStep], options: dict[str, Any], other_options: list[dict[str, Any]]
    ) -> None:
        """The same options must give the same cache key in every process, and ``other_options`` another one."""
        key = json.dumps(make().identity(), allow_nan=False, sort_keys=True)
        assert key == json.dumps(make().identity(), allow_nan=False, sort_keys=True)
        assert " at 0x" not in key, f"an option contains the address of an object, which differs in each process: {key}"
        others = [ConfiguredStep(self.kind, self.plugin, {**options, **other}).identity() for other in other_options]
        assert all(identity != make().identity() for identity in others), "an option that changes the output is not part of the cache key"

    def test_it_carries_nothing_over_from_one_file_to_the_next(
        self, make: Callable[[], ConfiguredStep], work: Callable[..., Any], files: list[FileData]
    ) -> None:
        """One object must return the same outcomes for several files as a new object for each."""
        alone = [work(make(), file) for file in files]
        used = make()
        assert [work(used, file) for file in [*files, *files]] == alone + alone

    def test_it_works_in_several_threads_at_once(
        self, make: Callable[[], ConfiguredStep], work: Callable[..., Any], files: list[FileData]
    ) -> None:
        """Objects in several threads must not share state that a file changes."""
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
        """It must not change its input, because other batches use the same download."""
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
        """It must raise for each file of ``broken``, not change it, and process the next file as usual."""
        step, refused = make(), [bench.file(name, body, **fields.get(name, {})) for name, body in broken.items()]
        before = contents(bench.inputs), contents(Path.cwd())
        for file in refused:
            with pytest.raises(Exception) as caught:  # noqa: PT011 - any exception fails a file
                work(step, file)
            assert str(caught.value), f"{type(caught.value).__name__} for {file.name} has no message; describe what failed"
        assert (contents(bench.inputs), contents(Path.cwd())) == before
        assert work(step, files[0]) == work(make(), files[0])


class PreProcessorSuite(StepSuite):
    """Tests of a pre-processor's contract; see :class:`dpp.BasePreProcessor`."""

    kind = "pre-processor"

    def outcome(self, step: ConfiguredStep, file: FileData) -> Any:
        """Return the path that the step returns, and the content of its output folder."""
        assert file.output_dir is not None
        made = step(file.model_copy())
        return _place(made, file), contents(file.output_dir)

    def test_it_returns_a_file_in_output_dir_or_its_input(
        self, make: Callable[[], ConfiguredStep], files: list[FileData], bench: Bench
    ) -> None:
        """Files in other places would be neither published nor removed."""
        for file in map(bench.again, files):
            made = make()(file.model_copy())
            assert isinstance(made, FileData), f"expected a FileData, got {type(made).__name__}"
            assert _place(made, file), f"expected local_path to be the input or inside output_dir, got {made.local_path}"

    def test_it_keeps_what_the_file_is_called(self, make: Callable[[], ConfiguredStep], files: list[FileData], bench: Bench) -> None:
        """It must not change id and URL, which identify the file in targets and reports."""
        for file in map(bench.again, files):
            made = make()(file.model_copy())
            assert (made.id, made.url) == (file.id, file.url)

    def test_what_it_sets_on_a_file_is_json(self, make: Callable[[], ConfiguredStep], files: list[FileData], bench: Bench) -> None:
        """Fields that it sets must be valid JSON, because they are stored for the next run."""
        for file in map(bench.again, files):
            for name, value in make()(file.model_copy()):
                json_line(to_json(value, name))


def _place(made: FileData, given: FileData) -> str:
    """Return the path of a pre-processed file below ``output_dir``, or ``input`` for an unchanged file, or ""."""
    assert given.output_dir is not None
    if made.local_path is None or not Path(made.local_path).exists():
        return ""
    path = Path(made.local_path).resolve()
    if given.local_path is not None and path == given.local_path.resolve():
        return "input"
    inside = given.output_dir.resolve()
    return str(path.relative_to(inside)) if path != inside and path.is_relative_to(inside) else ""


class ProcessorSuite(StepSuite):
    """Tests of a processor's contract; see :class:`dpp.BaseProcessor`."""

    kind = "processor"

    def outcome(self, step: ConfiguredStep, file: FileData) -> Any:
        """Return the result after conversion to JSON and back."""
        return from_json(json_line(to_json(step(file.model_copy()))))

    def test_its_result_is_json(self, make: Callable[[], ConfiguredStep], files: list[FileData]) -> None:
        """Its result must be a value that JSON can represent, with finite numbers only."""
        for file in files:
            text = json_line(to_json(make()(file.model_copy())))
            assert from_json(text) == json.loads(text)


class PostProcessorSuite(StepSuite):
    """Tests of a post-processor's contract; see :class:`dpp.BasePostProcessor`."""

    kind = "post-processor"

    @pytest.fixture
    def result(self) -> Any:
        """The result of a processor; ``{"lines": 2}`` unless overridden."""
        return {"lines": 2}

    @pytest.fixture
    def effect(self) -> Callable[[], Any]:
        """Return a function that returns the visible effect of the step, such as the objects in a bucket; None unless overridden."""
        return lambda: None

    @pytest.fixture
    def work(self, bench: Bench, result: Any) -> Callable[[ConfiguredStep, FileData], Any]:
        """Return a function that runs the step with the result of a file."""
        return lambda step, file: step(result, bench.again(file))

    def test_it_returns_nothing(self, make: Callable[[], ConfiguredStep], result: Any, files: list[FileData]) -> None:
        """It must return None, because dpp discards its return value."""
        assert [make()(result, file.model_copy()) for file in files] == [None] * len(files)

    def test_doing_it_twice_is_as_good_as_once(
        self, make: Callable[[], ConfiguredStep], work: Callable[..., Any], files: list[FileData], effect: Callable[[], Any]
    ) -> None:
        """Calling it twice must have the same effect: after a run that was killed, it may be called again."""
        for file in files:
            work(make(), file)
        once = effect()
        for file in files:
            work(make(), file)
        assert effect() == once

    def test_it_takes_files_that_failed(self, make: Callable[[], ConfiguredStep], files: list[FileData]) -> None:
        """It must accept failed files, which have no result and no path but an ``error``; twice, if a run was killed."""
        step = make()
        for file in [*files, *files]:
            failed = file.model_copy(update={"local_path": None, "output_dir": None, "error": FAILURE})
            assert step(None, failed) is None
