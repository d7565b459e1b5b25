"""The settings of Luigi that do not work with dpp, and why; docs/reference/luigi-settings.md has the others as well."""

from __future__ import annotations

import configparser
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import luigi.execution_summary
import luigi.interface
import luigi.notifications
import luigi.scheduler
import luigi.worker
from luigi.metrics import MetricsCollectors

from dpp.errors import ConfigurationError
from dpp.tasks.loading import explain_parsing

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
