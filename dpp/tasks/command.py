"""What dpp checks and changes in Luigi before the first task of a process."""

from __future__ import annotations

import configparser
import importlib
import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import luigi.execution_summary
import luigi.interface
import luigi.notifications
import luigi.scheduler
import luigi.worker
from luigi.configuration import get_config
from luigi.metrics import MetricsCollectors

from dpp.engine.child import check_semaphores, stop_for_refusal
from dpp.engine.confine import no_core_dumps
from dpp.errors import ConfigurationError
from dpp.logs import set_up_logging
from dpp.settings import default_settings
from dpp.streams import tolerate_write_errors
from dpp.tasks.file import RUNS
from dpp.tasks.loading import explain_parsing
from dpp.tasks.parameters import running_from_command_line
from dpp.tasks.scheduler import stop_without_scheduler

log = logging.getLogger(__name__)

_UNCAUGHT = "Uncaught exception in luigi"
Values = dict[str, Any]


class _Rule(NamedTuple):
    """A setting of Luigi that does not work with dpp, or works with some values only.

    Attributes:
        section: Its section of luigi.cfg.
        name: Its name.
        is_wrong: Given the sections of Luigi, whether the value does not work.
        reason: Why not, and what to use instead.
    """

    section: str
    name: str
    is_wrong: Callable[[Values], object]
    reason: str


SECTIONS: dict[str, type[luigi.Config]] = {
    "core": luigi.interface.core,
    "worker": luigi.worker.worker,
    "scheduler": luigi.scheduler.scheduler,
    "email": luigi.notifications.email,
    "execution_summary": luigi.execution_summary.execution_summary,
}
RULES = [
    _Rule(
        "core",
        "assistant",
        lambda of: of["core"].assistant and of["worker"].keep_alive,
        "with [worker] keep_alive it would never end; to work on a batch together, run the same command without it",
    ),
    _Rule(
        "core",
        "parallel_scheduling",
        lambda of: of["core"].parallel_scheduling,
        "Luigi would wait forever; dpp needs no processes to schedule",
    ),
    _Rule("core", "logging_conf_file", lambda of: _is_missing(of["core"].logging_conf_file), "the file does not exist"),
    _Rule("worker", "timeout", lambda of: of["worker"].timeout, "it would end whole chunks of files; use stage_timeout, which is per file"),
    _Rule("worker", "task_limit", lambda of: of["worker"].task_limit is not None, "files beyond it would not be run; use a shorter list"),
    _Rule("worker", "wait_interval", lambda of: of["worker"].wait_interval <= 0, "it must be positive"),
    _Rule("worker", "wait_jitter", lambda of: of["worker"].wait_jitter < 0, "it must not be negative"),
    _Rule(
        "worker",
        "task_process_context",
        lambda of: _is_no_class(of["worker"].task_process_context),
        "it is not a class that can be imported",
    ),
    _Rule(
        "scheduler",
        "worker_disconnect_delay",
        lambda of: of["scheduler"].worker_disconnect_delay <= of["worker"].ping_interval,
        "it must be longer than [worker] ping_interval, or workers lose their tasks",
    ),
    _Rule("scheduler", "metrics_collector", lambda of: _is_unusable(of["scheduler"]), "its package is not installed"),
]


def _is_missing(path: str) -> bool:
    return bool(path) and not Path(path).is_file()


def _is_no_class(name: str | None) -> bool:
    if not name:
        return False
    module, _, attribute = name.rpartition(".")
    try:
        return not hasattr(importlib.import_module(module), attribute)
    except (ImportError, ValueError):
        return True


def _is_unusable(scheduler: Any) -> bool:
    try:
        MetricsCollectors.get(scheduler.metrics_collector, scheduler.metrics_custom_import)
    except (ImportError, NameError, AttributeError, ValueError):
        return True
    return False


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
    if threading.current_thread() is not threading.main_thread() and not config.has_option("worker", "no_install_shutdown_handler"):
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


def check_luigi_settings() -> None:
    """Check the settings of Luigi, from its command line and luigi.cfg.

    Raises:
        ConfigurationError: A setting is invalid or does not work with dpp.
    """
    if wrong := wrong_luigi_settings():
        raise ConfigurationError("\n".join(wrong))


def wrong_luigi_settings() -> list[str]:
    """Return a message for each setting of Luigi that does not work with dpp.

    Raises:
        ConfigurationError: A setting is invalid.
    """
    values = {section: _values(section, kind) for section, kind in SECTIONS.items()}
    return [
        f"Luigi's setting [{rule.section}] {rule.name}={getattr(values[rule.section], rule.name)} does not work with dpp: {rule.reason}"
        for rule in RULES
        if rule.is_wrong(values)
    ]


def _values(section: str, kind: type[luigi.Config]) -> Any:
    try:
        return kind()
    except configparser.Error as error:
        raise explain_parsing(error) from error
    except ValueError as error:
        if isinstance(error.__cause__, configparser.Error):
            raise explain_parsing(error.__cause__) from error
        name, reason = re.search(r"'(\w+)'", str(error)), str(error.__cause__ or error)
        expected = "expected a whole number" if "int()" in reason else reason
        raise ConfigurationError(f"Luigi's setting [{section}] {name[1] if name else ''}: {expected}") from error
