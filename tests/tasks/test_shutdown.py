"""How a run ends early."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from functools import partial

import pytest
from dpp.batch.batch import open_run
from dpp.plugins.registry import registry
from dpp.settings import Settings
from dpp.tasks.shutdown import Ending


@pytest.fixture
def ending(tmp_path):
    """Watch over the end of a run."""
    run = open_run([{"url": "file:///etc/hostname"}], Settings(workspace=tmp_path / "w"), registry())
    made = Ending(run)
    yield made
    made.restore()
    run.release()


class Lock:
    """A lock of logging's, with a signal at the moment when it is taken."""

    acquire = __enter__ = staticmethod(partial(signal.raise_signal, signal.SIGTERM))
    release = __exit__ = staticmethod(lambda *_: None)


def wait_after(done):
    """Do something, and wait for the interrupt: it may come at any instant from its end on."""
    done()
    time.sleep(60)


def test_a_signal_waits_while_logging_takes_a_lock(ending):
    handled = []
    handler = logging.Handler()
    handler.emit, handler.lock = handled.append, Lock()
    with pytest.raises(KeyboardInterrupt):
        wait_after(lambda: handler.handle(logging.makeLogRecord({"msg": "said"})))
    assert len(handled) == 1
    handler.lock = None


def test_a_signal_waits_while_a_process_is_forked(ending):
    calls = [partial(signal.raise_signal, signal.SIGTERM)]
    call = lambda: [calls.pop()() for _ in calls[:]]  # noqa: E731 - a hook that calls, as most do
    os.register_at_fork(before=lambda: call())  # noqa: PLW0108
    child = multiprocessing.get_context("fork").Process(target=int)
    with pytest.raises(KeyboardInterrupt):
        wait_after(child.start)
    child.join()
    assert child.exitcode == 0
