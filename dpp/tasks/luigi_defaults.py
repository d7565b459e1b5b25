"""dpp's defaults for Luigi's own settings."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from luigi.configuration import get_config

from dpp.logs import filter_luigi
from dpp.tasks.loading import configuration_read
from dpp.workspace.machine import process_name

SOFT_DEFAULTS = {
    ("core", "no_lock"): "true",
    ("core", "log_level"): "INFO",
    ("retcode", "task_failed"): "1",
    ("retcode", "missing_data"): "1",
    ("retcode", "scheduling_error"): "2",
    ("retcode", "unhandled_exception"): "4",
    ("worker", "wait_jitter"): "0.0",
}

LOCAL_DEFAULTS = {
    ("core", "local_scheduler"): "true",
    ("scheduler", "prune_on_get_work"): "true",
    ("scheduler", "retry_delay"): "0",
    ("retcode", "already_running"): "3",
    ("retcode", "not_run"): "3",
}


def set_soft_defaults(arguments: Sequence[str]) -> None:
    """Set the defaults that dpp needs in Luigi's configuration; values that the user configured stay.

    Args:
        arguments: The command line, which may name a scheduler.
    """
    with configuration_read():
        _set_soft_defaults(arguments)


def _set_soft_defaults(arguments: Sequence[str]) -> None:
    # Without a scheduler, the local one is used. With one, workers stay until the shared batch is complete.
    config = get_config()
    filter_luigi(chatter=config.has_option("core", "log_level") or _given(arguments, "--log-level", "--core-log-level"))
    scheduler = _names_scheduler(config, arguments)
    for (section, option), value in {**SOFT_DEFAULTS, **(_shared_defaults() if scheduler else LOCAL_DEFAULTS)}.items():
        if not config.has_option(section, option):
            config.set(section, option, value)


def _shared_defaults() -> dict[tuple[str, str], str]:
    """Return the defaults for several processes that share a batch."""
    return {
        ("worker", "keep_alive"): "true",
        ("retcode", "already_running"): "0",
        ("retcode", "not_run"): "0",
        # Every process writes the summary, so each needs a RunBatch task of its own.
        ("RunBatch", "process"): f"{socket.gethostname()}-{process_name()}",
    }


def _names_scheduler(config: Any, arguments: Sequence[str]) -> bool:
    options = ("scheduler_url", "scheduler_host", "default_scheduler_url", "default_scheduler_host")
    if _given(arguments, "--local-scheduler", "--core-local-scheduler") or config.getboolean("core", "local_scheduler", False):
        return False
    named = any(config.has_option("core", option) for option in options)
    return named or _given(arguments, "--scheduler-", "--core-scheduler-")


def _given(arguments: Sequence[str], *options: str) -> bool:
    return any(argument.startswith(options) for argument in arguments)
