"""Prepare Luigi and its command line before the first task of a process."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading

from luigi.configuration import get_config

from dpp.engine.confine import no_core_dumps
from dpp.logs import set_up_logging
from dpp.settings import default_settings
from dpp.streams import tolerate_write_errors
from dpp.tasks.file import RUNS
from dpp.tasks.luigi_settings import check_luigi_settings
from dpp.tasks.parameters import running_from_command_line
from dpp.tasks.scheduler import stop_without_scheduler
from dpp.workspace.machine import starting, stop_for_refusal

log = logging.getLogger(__name__)

_UNCAUGHT = "Uncaught exception in luigi"


class _Prepared:
    """Whether Luigi's command line is prepared in this process."""

    is_done = False


def prepare_luigi() -> None:
    """Prepare Luigi for the task that is created, and check Luigi's settings on its command line.

    Raises:
        ConfigurationError: A setting of Luigi is invalid or does not work with dpp.
        EnvironmentStop: The machine lacks what Luigi needs.
    """
    config = get_config()
    if threading.current_thread() is threading.main_thread():
        _learn_of_children()
    elif not config.has_option("worker", "no_install_shutdown_handler"):
        # Python accepts signal handlers only in the main thread, and without this option Luigi's worker installs one.
        config.set("worker", "no_install_shutdown_handler", "true")
    if running_from_command_line() and not _Prepared.is_done:
        _Prepared.is_done = True
        tolerate_write_errors()
        no_core_dumps()
        check_semaphores()
        check_luigi_settings()
        stop_without_scheduler()
        # Before the other filter, which takes the error from the record.
        logging.getLogger("luigi-interface").filters.insert(0, _UncaughtError())


def _learn_of_children() -> None:
    """Let the system report the ends of children to this process, although the program that started it ignores SIGCHLD."""
    # An ignored signal stays ignored in a program that is started; the system then forgets children that end (wait(2), NOTES).
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


class _UncaughtError(logging.Filter):
    """End Luigi's command line with dpp's message and exit code where Luigi logs an error of the environment that it did not expect."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return true for all other records.

        Raises:
            SystemExit: The environment stops the run.
        """
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and record.msg == _UNCAUGHT and (stop := stop_for_refusal(error)):
            for run in RUNS.values():
                run.stop(stop)
            set_up_logging(default_settings())
            log.error("%s", stop)
            raise SystemExit(stop.exit_code)
        return True


def check_semaphores() -> None:
    """Check that this machine has semaphores, which Luigi needs for its queues (sem_overview(7)).

    Raises:
        EnvironmentStop: It has none.
    """
    with starting("create a semaphore", "Luigi needs POSIX semaphores, and these a writable /dev/shm"):
        multiprocessing.Lock()
