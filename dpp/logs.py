"""Set up logging: of dpp, with details on request, and of Luigi, without tracebacks for expected errors."""

from __future__ import annotations

import logging
import multiprocessing
import os
from contextlib import suppress
from multiprocessing.synchronize import Lock
from pathlib import Path
from typing import ClassVar

from dpp.errors import DppError, EnvironmentStop
from dpp.redact import as_entry, printable, redact_text
from dpp.settings import Settings
from dpp.signals import signals_held
from dpp.workspace.atomic import stops_run

FORMAT = "%(levelname)s: %(message)s"
ERASE = "\r\x1b[J"
END = "dpp.end"
FILES = "dpp.files"
_PLAIN = logging.Formatter()
DETAILED = "%(asctime)s %(levelname)s [%(processName)s %(threadName)s] %(name)s: %(message)s"


def set_up_logging(settings: Settings) -> None:
    """Send dpp's log to standard error, and to the log file if there is one; further calls change nothing.

    Raises:
        EnvironmentStop: The log file cannot be opened.
    """
    logger = logging.getLogger("dpp")
    if _console() is None:
        _add(logger, _Console(settings), settings.debug)
        logger.propagate = False
        # Python writes what other loggers report, such as those of steps, in this way if nobody handles it.
        if logging.lastResort is not None:
            logging.lastResort.setFormatter(_LastFormatter(FORMAT))
    logger.setLevel(logging.DEBUG if settings.debug else logging.INFO)
    if settings.log_file:
        _add_file(_LogFile, Path(os.path.abspath(settings.log_file)))


def keep_log(path: Path) -> None:
    """Write the log of a run, with Luigi's part of it, to a file.

    Raises:
        EnvironmentStop: The file cannot be opened.
    """
    _add_file(_RunLog, path)
    _RunLog.stop = multiprocessing.Lock()


def mark_reported(error: object) -> bool:
    """Mark an error that stops the run as reported; return whether a process of the run has reported it before."""
    return isinstance(error, EnvironmentStop) and _RunLog.stop is not None and not _RunLog.stop.acquire(block=False)


def close_run_log() -> None:
    """Close the log of a run."""
    logger = logging.getLogger("dpp")
    for handler in [known for known in logger.handlers if isinstance(known, _RunLog)]:
        logger.removeHandler(handler)
        handler.close()


def mark_view_below(on: bool) -> None:
    """Set whether the live view is drawn below the cursor; then each log line erases it first."""
    _Console.prefix = ERASE if on else ""


def _add_file(kind: type[_LogFile], path: Path) -> None:
    logger = logging.getLogger("dpp")
    if not any(handler.baseFilename == str(path) for handler in _log_files()):
        with stops_run(path):
            _add(logger, kind(path, encoding="utf-8", errors="backslashreplace"), detailed=True)


def _add(logger: logging.Logger, handler: logging.Handler, detailed: bool) -> None:
    handler.setFormatter(_Formatter(DETAILED if detailed else FORMAT))
    logger.addHandler(handler)


def _log_files() -> list[_LogFile]:
    return [handler for handler in logging.getLogger("dpp").handlers if isinstance(handler, _LogFile)]


def _keeps_log() -> bool:
    """Whether the run writes a log file of its own."""
    return any(isinstance(handler, _RunLog) for handler in _log_files())


def _console() -> _Console | None:
    return next((handler for handler in logging.getLogger("dpp").handlers if isinstance(handler, _Console)), None)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text that is safe for a terminal and contains no secret."""
        text = redact_text(super().format(record))
        # The lines of the summary are made one by one, so none of them can be forged.
        return printable(text) if record.name == END else as_entry(text)


class _LastFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return the record as safe text, after the code that erases the live view."""
        return _Console.prefix + super().format(record)


class _Handler(logging.Handler):
    def handle(self, record: logging.LogRecord) -> bool:
        """Handle a record while signals are held."""
        # An exception from a signal handler, right after the handler's lock was taken, would leave it locked forever.
        with signals_held():
            return super().handle(record)


class _Console(_Handler, logging.StreamHandler):  # type: ignore[type-arg]
    """Write log lines for the user to standard error; lines about single files only if the run has no log file of its own.

    Args:
        settings: The settings, with ``debug``, ``quiet`` and ``json_lines``.
    """

    prefix = ""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.debug = settings.debug
        self.least = logging.ERROR if settings.quiet else logging.WARNING if settings.json_lines else logging.NOTSET

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is shown: the end of a run always, the reason why it stops only once."""
        if record.args and mark_reported(record.args[0] if isinstance(record.args, tuple) else None):
            return False
        least = logging.WARNING if record.name == FILES and not self.debug and _keeps_log() else logging.NOTSET
        return record.name == END or record.levelno >= max(least, self.least)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text, after the code that erases the live view."""
        return self.prefix + super().format(record)


class _LogFile(_Handler, logging.FileHandler):
    """Write all records, in detail; a record that cannot be written is lost, and the run continues."""

    # Printing a traceback per line would hide the real problem: on a full disk, the first target that cannot be written stops the run.
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name of the base class's method
        """Ignore an error."""

    def close(self) -> None:
        """Close the file; buffered lines that cannot be written are lost."""
        with suppress(OSError):
            super().close()


class _RunLog(_LogFile):
    """The log file of a run.

    Attributes:
        stop: Taken by the process that first reports why the environment stops the run.
    """

    # Each process meets the problem, and the end of the run reports it again, but the user should see it once.
    stop: ClassVar[Lock | None] = None


class LuigiFilter(logging.Filter):
    """Filter Luigi's log: no secrets, no tracebacks for expected errors, and no lines for each step of its scheduler.

    Log files get every line.

    Args:
        chatter: Whether to show records below WARNING.
    """

    def __init__(self, chatter: bool) -> None:
        super().__init__()
        self._chatter = chatter

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the traceback of a DppError by its message, and mask secrets; return whether Luigi shows the record."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, DppError):
            record.msg, record.args, record.exc_info, record.exc_text = str(error), None, None, None
        elif error is None:
            # Where Luigi logs a failed attempt to reach its scheduler, it asks for a traceback, and there is none.
            record.exc_info = None
        elif record.exc_info:
            record.exc_text = as_entry(redact_text(_PLAIN.formatException(record.exc_info)))
        record.msg, record.args = as_entry(redact_text(record.getMessage())), None
        console, is_shown = _console(), not mark_reported(error)
        for file in _log_files():
            file.handle(record)
        if not (is_shown and self._is_shown(record, console)):
            return False
        if console is not None and console.prefix:
            console.handle(record)
            return False
        return True

    def _is_shown(self, record: logging.LogRecord, console: _Console | None) -> bool:
        """Whether a record is shown; Luigi's execution summary only if the run has no log file of its own."""
        summing_up = "Execution Summary" in str(record.msg) and not _keeps_log()
        wanted = self._chatter or summing_up or record.levelno >= logging.WARNING or (console is not None and console.debug)
        return wanted and (console is None or record.levelno >= console.least)


def filter_luigi(chatter: bool) -> None:
    """Filter Luigi's log from now on; a further call replaces the filter."""
    logger = logging.getLogger("luigi-interface")
    for old in [known for known in logger.filters if isinstance(known, LuigiFilter)]:
        logger.removeFilter(old)
    logger.addFilter(LuigiFilter(chatter))
