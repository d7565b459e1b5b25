"""Logging: dpp's own lines, in detail when asked, and Luigi's without tracebacks of what is no bug."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from dpp.errors import DppError
from dpp.redact import printable
from dpp.settings import Settings
from dpp.workspace import stops_run

FORMAT = "%(levelname)s: %(message)s"
DETAILED = "%(asctime)s %(levelname)s [%(processName)s %(threadName)s] %(name)s: %(message)s"


def set_up_logging(settings: Settings) -> None:
    """Send dpp's log to standard error, and to a file if one is named; calling it again changes nothing.

    Raises:
        EnvironmentStop: The log file can't be opened.
    """
    logger = logging.getLogger("dpp")
    if not any(isinstance(handler, _Console) for handler in logger.handlers):
        _add(logger, _Console(), settings.debug)
        logger.propagate = False
    logger.setLevel(logging.DEBUG if settings.debug else logging.INFO)
    path = Path(os.path.abspath(settings.log_file))
    if settings.log_file and not any(getattr(handler, "baseFilename", "") == str(path) for handler in logger.handlers):
        with stops_run(path):
            _add(logger, _LogFile(path, encoding="utf-8", errors="backslashreplace"), detailed=True)


def _add(logger: logging.Logger, handler: logging.Handler, detailed: bool) -> None:
    handler.setFormatter(_Formatter(DETAILED if detailed else FORMAT))
    logger.addHandler(handler)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text that is safe on a terminal."""
        return printable(super().format(record))


class _Console(logging.StreamHandler):  # type: ignore[type-arg]
    """Marks the handler that this module made."""


class _LogFile(logging.FileHandler):
    """Marks the handler that this module made."""


class LuigiFilter(logging.Filter):
    """Keep Luigi's log readable: no traceback of what is no bug, and no line for every step of its scheduler.

    Args:
        chatter: Whether to let through what is below WARNING and not the execution summary.
    """

    def __init__(self, chatter: bool) -> None:
        super().__init__()
        self._chatter = chatter

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record where its exception is a DppError; say whether it is shown."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, DppError):
            record.msg, record.args, record.exc_info, record.exc_text = str(error), None, None, None
        return self._chatter or record.levelno >= logging.WARNING or "Execution Summary" in str(record.msg)


def filter_luigi(chatter: bool) -> None:
    """Filter Luigi's log from now on; the last call counts."""
    logger = logging.getLogger("luigi-interface")
    for old in [known for known in logger.filters if isinstance(known, LuigiFilter)]:
        logger.removeFilter(old)
    logger.addFilter(LuigiFilter(chatter))
