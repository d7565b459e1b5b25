"""The contract tests of executors: nothing is lost, nothing is run twice, whatever ends."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dpp.base import BaseExecutor
from dpp.batch.batch import open_run
from dpp.batch.folder import latest_runs
from dpp.batch.run import Run
from dpp.errors import ConfigurationError
from dpp.executors.coordinator import Coordinator
from dpp.executors.work import close_runners, work
from dpp.plugins.registry import load_plugins, registry
from dpp.settings import make_settings
from dpp.testing.suites import assert_offered
from dpp.workspace.atomic import is_alive

SECONDS = 60.0
LOST_AFTER = 3.0
VISIBLE_SECONDS = 5.0
FILES = 24
CHUNK = 6
SECRET = "canary-secret"  # noqa: S105 - what the tests look for
STEPS = '''
import os, pathlib, signal, sys, time
from dpp import BaseProcessor

class Noted(BaseProcessor):
    """Note each file; wait for a file named "go" if told to."""

    folder: str
    waits: bool = False

    def process(self, file):
        with open(f"{self.folder}/seen", "a") as stream:
            stream.write(f"{file.id}\\n")
        while self.waits and not pathlib.Path(self.folder, "go").exists():
            time.sleep(0.01)
        return file.id

class Crash(Noted):
    """Kill the process of one file."""

    def process(self, file):
        if file.id == "f003":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().process(file)

class Daemon(Noted):
    """Leave a process running that has all descriptors of this one."""

    def process(self, file):
        if not (daemon := os.fork()):
            os.setsid()
            signal.pause()
        with open(f"{self.folder}/daemons", "a") as stream:
            stream.write(f"{daemon}\\n")
        return super().process(file)
'''


class ExecutorContract:
    """Tests of the contract of executors; derived classes set the plugin, and may override the fixtures.

    The tests start real batches. They need a minute or two, most of it for starting processes.

    Attributes:
        plugin: The class under test.
    """

    plugin: ClassVar[type[BaseExecutor]]

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        """Options of the executor; two workers unless overridden."""
        return {"workers": 2}

    @pytest.fixture
    def bench(self, tmp_path: Path, options: dict[str, Any]) -> Iterator[ExecutorBench]:
        """Files, steps and runs of the tests, in ``tmp_path``."""
        with ExitStack() as stack:
            made = ExecutorBench(tmp_path, self.plugin.name, options)
            stack.callback(made.close)
            yield made

    def test_it_is_registered(self) -> None:
        """The plugin offers the class."""
        assert_offered("executor", self.plugin.name, self.plugin)

    def test_each_file_is_run_once_and_a_rerun_runs_none(self, bench: ExecutorBench) -> None:
        """A batch and its rerun end with exit code 0; the rerun processes nothing."""
        assert bench.run("Noted") == 0
        assert bench.counts() == {1: FILES}
        assert bench.run("Noted") == 0
        assert (bench.counts(), bench.summary()["cached"]) == ({1: FILES}, FILES)

    def test_a_file_that_kills_its_process_fails_alone(self, bench: ExecutorBench) -> None:
        """The file that crashes its process fails as ``crashed``; all others are ok."""
        assert bench.run("Crash") == 1
        summary = bench.summary()
        assert (summary["ok"], summary["failed"]) == (FILES - 1, 1)

    def test_a_chunk_whose_process_was_killed_is_run_again(self, bench: ExecutorBench) -> None:
        """Killing the process of a chunk with SIGKILL loses nothing, although a step has left a process running."""
        with bench.running("Daemon", waits=True) as command:
            bench.wait(lambda: len(bench.seen()) > 1)
            os.kill(bench.process_of_a_chunk(), signal.SIGKILL)
            bench.go()
            assert command.wait(SECONDS) == 0
        assert bench.summary()["ok"] == FILES
        # What was in flight is processed again, and nothing more.
        assert set(bench.counts()) <= {1, 2}

    def test_a_chunk_that_is_delivered_five_times_at_once_runs_once(self, bench: ExecutorBench) -> None:
        """One delivery runs the chunk; the others find it busy or done."""
        run = bench.begin("Noted")
        with bench.opened() as pool:
            futures = [pool.submit(work, str(run.folder), 0, run.info.mark) for _ in range(5)]
            ends = Counter(future.result(SECONDS) for future in futures)
            assert ends["done"] == 1
            assert set(ends) <= {"done", "already", "busy"}
            assert pool.submit(work, str(run.folder), 0, run.info.mark).result(SECONDS) == "already"
        assert bench.counts() == {1: CHUNK}

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
    def test_what_is_interrupted_continues_with_luigis_workers(self, bench: ExecutorBench, number: signal.Signals) -> None:
        """A signal ends the chunks within seconds, and Luigi's own workers do the rest, and nothing twice."""
        with bench.running("Noted", waits=True) as command:
            bench.wait(lambda: len(bench.seen()) > 1)
            command.send_signal(number)
            bench.wait(lambda: bench.is_interrupted() or command.poll() is not None)
            bench.go()
            assert command.wait(SECONDS) == 128 + number
        assert bench.processes_of_chunks() == []
        assert bench.run("Noted", executor="", waits=True) == 0
        assert bench.counts() == {1: FILES}

    def test_the_chunks_of_a_coordinator_that_was_killed_end(self, bench: ExecutorBench) -> None:
        """After SIGKILL of the submitting process its chunks end, and another run finishes the batch."""
        with bench.running("Noted", waits=True) as command:
            bench.wait(lambda: len(bench.seen()) > 1)
            command.kill()
            command.wait()
            bench.go()
        bench.wait(lambda: bench.processes_of_chunks() == [])
        assert bench.run("Noted", waits=True) == 0
        assert bench.counts() == {1: FILES}

    def test_a_worker_that_does_not_see_the_workspace_is_an_error(self, bench: ExecutorBench) -> None:
        """Within five seconds, the error names the worker's host and the workspace; its exit code is 2."""
        run = bench.begin("Noted")
        with bench.opened() as pool:
            pool.submit(work, str(run.folder), 0, run.info.mark).result(SECONDS)
            began = time.monotonic()
            for folder, mark in ((run.folder, "of another workspace"), (bench.folder / "elsewhere/batches/b/runs/1", run.info.mark)):
                with pytest.raises(ConfigurationError, match=re.escape(f"worker on {socket.gethostname()} does not see workspace")):
                    pool.submit(work, str(folder), 1, mark).result(SECONDS)
            assert time.monotonic() - began < VISIBLE_SECONDS * 2
        assert bench.counts() == {1: CHUNK}

    @pytest.mark.parametrize("package", ["dpp", "dpp-of-the-test"])
    def test_another_version_is_an_error(self, bench: ExecutorBench, package: str) -> None:
        """The error names the package and both versions."""
        run = bench.begin("Noted")
        info = json.loads((run.folder / "run.json").read_text())
        change = {"dpp": "0.0.1"} if package == "dpp" else {"packages": info["packages"] | {package: "0.0.1"}}
        (run.folder / "run.json").write_text(json.dumps(info | change))
        with bench.opened() as pool, pytest.raises(ConfigurationError, match=rf"{package} is 0\.0\.1 on .* for the worker on"):
            pool.submit(work, str(run.folder), 0, run.info.mark).result(SECONDS)
        assert bench.counts() == {}

    def test_a_message_holds_a_folder_a_number_and_a_token(self, bench: ExecutorBench) -> None:
        """No secret of a file or a setting is in what is submitted."""
        run = bench.begin("Noted", headers={"X-Key": SECRET})
        with bench.opened() as pool:
            recording = _RecordingPool(pool)
            Coordinator(run, _Opened(pool=recording, workers=2), lambda *_: None).run()
        messages = recording.messages
        assert bench.counts() == {1: FILES}
        assert [tuple(map(type, message)) for message in messages] == [(str, int, str)] * len(messages)
        assert SECRET.encode() not in pickle.dumps((work, messages))

    def test_a_chunk_of_a_run_that_has_ended_does_nothing(self, bench: ExecutorBench) -> None:
        """A late delivery finds the run ended."""
        assert bench.run("Noted") == 0
        (run,) = latest_runs(bench.folder / "w")
        with bench.opened() as pool:
            assert pool.submit(work, str(run.folder), 0, run.info.mark).result(SECONDS) == "already"


class _RecordingPool:
    """Pass calls on to an executor, and record their arguments."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self.messages: list[tuple[Any, ...]] = []

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Record the arguments, and submit the call."""
        self.messages.append(arguments)
        return self._pool.submit(function, *arguments)


class _Opened(BaseExecutor):
    """An executor that is open already."""

    name = "opened"
    pool: Any

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Return the executor, which stays open."""
        yield self.pool


class ExecutorBench:
    """Files, steps and runs of a test.

    Args:
        folder: Where they are.
        name: Name of the executor.
        options: Its options.
    """

    def __init__(self, folder: Path, name: str, options: dict[str, Any]) -> None:
        self.folder = folder
        self._name = name
        self._options = options
        self._opened: list[Run] = []
        (folder / "contract_steps.py").write_text(STEPS)
        (folder / "files").mkdir()
        for number in range(FILES):
            (folder / f"files/f{number:03d}").write_text(str(number))
        # With the current folder on its path, a process finds the steps of this test, and those of no other one.
        sys.path.insert(0, str(folder))

    def close(self) -> None:
        """Release what the test has opened."""
        self.go()
        for run in self._opened:
            run.release()
        close_runners()
        sys.path.remove(str(self.folder))
        sys.modules.pop("contract_steps", None)
        for pid in self._read("daemons"):
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def settings(self, step: str, *, executor: str | None = None, waits: bool = False, **more: Any) -> dict[str, Any]:
        """Return the settings of a batch."""
        name = self._name if executor is None else executor
        processor = f"contract_steps:{step}"
        options = {processor: {"folder": str(self.folder), "waits": waits}} | ({name: self._options} if name else {})
        common = {"workspace": str(self.folder / "w"), "processor": processor, "executor": name, "lost_after": LOST_AFTER}
        return {**common, "chunk_size": CHUNK, "processing_limit": 2, "options": options, **more}

    def executor(self) -> BaseExecutor:
        """Return the executor."""
        made = registry().executor(make_settings(self.settings("Noted")), 2)
        assert made is not None
        made.slots()
        return made

    @contextmanager
    def opened(self) -> Iterator[Executor]:
        """Open the executor in this process."""
        with self.executor().open() as pool:
            yield pool
        close_runners()

    def begin(self, step: str, **more: Any) -> Run:
        """Begin a run in this process, and run no chunk."""
        run = open_run(str(self.folder / "files"), make_settings(self.settings(step, **more)), load_plugins())
        self._opened.append(run)
        return run

    @contextmanager
    def running(self, step: str, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Run a batch with ``dpp run`` in another process."""
        settings = self.settings(step, **more)
        arguments = [
            f"--{name.replace('_', '-')}={json.dumps(value) if name == 'options' else value}" for name, value in settings.items() if value
        ]
        command = [sys.executable, "-P", "-c", "from dpp.cli import main; main()", "run", "files", *arguments]
        with subprocess.Popen(command, cwd=self.folder, start_new_session=True) as process:  # noqa: S603 - our own program
            try:
                yield process
            finally:
                process.kill()

    def run(self, step: str, **more: Any) -> int:
        """Run a batch with ``dpp run``; return its exit code."""
        with self.running(step, **more) as command:
            return command.wait(SECONDS)

    def go(self) -> None:
        """Let steps that wait continue."""
        (self.folder / "go").touch()

    def seen(self) -> list[str]:
        """Return the ids of the files that were processed."""
        return self._read("seen")

    def counts(self) -> dict[int, int]:
        """Return how many files were processed how many times."""
        return dict(Counter(Counter(self.seen()).values()))

    def _read(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().split() if path.exists() else []

    def summary(self) -> dict[str, Any]:
        """Return the summary of the last run."""
        (run,) = latest_runs(self.folder / "w")
        found: dict[str, Any] = json.loads((run.folder / "summary.json").read_text())
        return found

    def is_interrupted(self) -> bool:
        """Whether the chunks of the run were told to end."""
        return any((self.folder / "w").glob("batches/*/manifest/interrupted"))

    def processes_of_chunks(self) -> list[int]:
        """Return the ids of the processes that have run chunks of the last run and have not ended."""
        locks = (self.folder / "w").glob("batches/*/manifest/chunks/*.lock")
        holders = [text.split()[1] for path in locks if (text := path.read_text())]
        return [int(pid) for pid in holders if is_alive(pid)]

    def process_of_a_chunk(self) -> int:
        """Return the id of a process that runs a chunk."""
        self.wait(lambda: bool(self.processes_of_chunks()))
        return self.processes_of_chunks()[0]

    @staticmethod
    def wait(until: Callable[[], bool]) -> None:
        """Wait until a condition holds, for a minute at most."""
        deadline = time.monotonic() + SECONDS
        while not until():
            assert time.monotonic() < deadline, "the condition did not become true"
            time.sleep(0.05)
