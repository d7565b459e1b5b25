"""Graceful shutdown of a run."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from functools import partial

import luigi.worker
import pytest
from dpp.batch.batch import open_run
from dpp.engine.child import run_in_child
from dpp.logs import close_run_log, keep_log
from dpp.plugins.registry import registry
from dpp.settings import Settings
from dpp.signals import postpone, signals_held
from dpp.tasks import shutdown
from dpp.tasks.shutdown import Ending


@pytest.fixture
def ending(tmp_path):
    """Handle the signals of a run."""
    run = open_run([{"url": "file:///etc/hostname"}], Settings(workspace=tmp_path / "w"), registry())
    made = Ending(run)
    yield made
    made.restore()
    run.release()


class Lock:
    """A lock for a log handler that sends a signal when it is taken."""

    acquire = __enter__ = staticmethod(partial(signal.raise_signal, signal.SIGTERM))
    release = __exit__ = staticmethod(lambda *_: None)


@pytest.mark.usefixtures("ending")
def test_a_signal_waits_while_logging_takes_a_lock(tmp_path):
    keep_log(tmp_path / "log.txt")
    (handler,) = (one for one in logging.getLogger("dpp").handlers if getattr(one, "baseFilename", "") == str(tmp_path / "log.txt"))
    lock, handler.lock = handler.lock, Lock()
    with pytest.raises(KeyboardInterrupt):
        handler.handle(logging.makeLogRecord({"msg": "said"}))
    handler.lock = lock
    close_run_log()
    assert "said" in (tmp_path / "log.txt").read_text()


@pytest.fixture
def signal_at_fork():
    """Send a signal at the next fork, in one of its hooks."""
    calls = [partial(signal.raise_signal, signal.SIGTERM)]
    call = lambda: [calls.pop()() for _ in calls[:]]  # noqa: E731 - a hook that calls, as most do
    os.register_at_fork(before=lambda: call())  # noqa: PLW0108
    yield
    calls.clear()


@pytest.mark.usefixtures("ending", "signal_at_fork")
def test_a_signal_waits_while_luigi_forks():
    child = multiprocessing.get_context("fork").Process(target=int)
    with pytest.raises(KeyboardInterrupt), luigi.worker.fork_lock:
        child.start()
    child.join()
    assert child.exitcode == 128 + signal.SIGTERM


@pytest.mark.usefixtures("ending", "signal_at_fork")
def test_a_signal_waits_while_a_child_is_forked(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_in_child((tmp_path / "began").touch)
    assert not multiprocessing.active_children()


def test_the_child_of_a_fork_heeds_signals_again(ending):
    child = multiprocessing.get_context("fork").Process(target=partial(signal.raise_signal, signal.SIGTERM))
    with luigi.worker.fork_lock:
        child.start()
    child.join()
    assert child.exitcode == 128 + signal.SIGTERM
    assert run_in_child(partial(signal.raise_signal, signal.SIGTERM)).reason == "exited with code 143"
    with ending.chunk():
        assert run_in_child(partial(signal.raise_signal, signal.SIGTERM)).reason == "was interrupted"


def test_a_signal_at_the_first_moment_of_a_chunk_ends_its_process_without_a_traceback(ending, monkeypatch, capfd):
    def work():
        monkeypatch.setattr(shutdown, "end_with_parent", lambda *_: signal.raise_signal(signal.SIGINT))
        with ending.chunk():
            pytest.fail("the chunk began")

    assert run_in_child(work).reason == "exited with code 130"
    assert "Traceback" not in capfd.readouterr().err


def test_a_child_that_got_a_signal_before_it_began_is_interrupted(ending, tmp_path):
    began = tmp_path / "began"
    with ending.chunk(), signals_held():
        os.register_at_fork(after_in_child=lambda: tmp_path.exists() and not began.exists() and postpone(signal.SIGTERM))
        assert run_in_child(began.touch).reason == "was interrupted"
    assert not began.exists()
    began.touch()
