"""Logging: dpp's own lines, in detail when asked, and Luigi's without tracebacks of what is no bug."""

from __future__ import annotations

import logging
import multiprocessing
import os
from contextlib import suppress
from multiprocessing.synchronize import Lock
from pathlib import Path
from typing import ClassVar

from dpp.errors import DppError, EnvironmentStop
from dpp.redact import printable, redact_text
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
    """Send dpp's log to standard error, and to a file if one is named; calling it again changes nothing.

    Raises:
        EnvironmentStop: The log file can't be opened.
    """
    logger = logging.getLogger("dpp")
    if _console() is None:
        _add(logger, _Console(settings), settings.debug)
        logger.propagate = False
    logger.setLevel(logging.DEBUG if settings.debug else logging.INFO)
    if settings.log_file:
        _add_file(_LogFile, Path(os.path.abspath(settings.log_file)))


def keep_log(path: Path) -> None:
    """Keep the log of a run, Luigi's part of it as well, in a file.

    Raises:
        EnvironmentStop: It can't be opened.
    """
    _add_file(_RunLog, path)
    _RunLog.stop = multiprocessing.Lock()


def mark_reported(error: object) -> bool:
    """Mark an error that stops the run as reported; return whether a process of the run had reported it before."""
    return isinstance(error, EnvironmentStop) and _RunLog.stop is not None and not _RunLog.stop.acquire(block=False)


def close_run_log() -> None:
    """End the log of a run."""
    logger = logging.getLogger("dpp")
    for handler in [known for known in logger.handlers if isinstance(known, _RunLog)]:
        logger.removeHandler(handler)
        handler.close()


def mark_view_below(on: bool) -> None:
    """Set whether a view is drawn below the cursor; a log line erases it first, and it is drawn anew below the line."""
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
    """Whether a run keeps its log."""
    return any(isinstance(handler, _RunLog) for handler in _log_files())


def _console() -> _Console | None:
    return next((handler for handler in logging.getLogger("dpp").handlers if isinstance(handler, _Console)), None)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text that is safe on a terminal and holds no secret."""
        return printable(redact_text(super().format(record)))


class _Handler(logging.Handler):
    def handle(self, record: logging.LogRecord) -> bool:
        """Handle a record while signals are held: an exception after the lock was taken would leave it held for ever."""
        with signals_held():
            return super().handle(record)


class _Console(_Handler, logging.StreamHandler):  # type: ignore[type-arg]
    """Show what a person wants to read while a run lasts; where a run keeps its log, lines on single files are for that only.

    Args:
        settings: Say how much that is.
    """

    prefix = ""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.debug = settings.debug
        self.least = logging.ERROR if settings.quiet else logging.WARNING if settings.json_lines else logging.NOTSET

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is shown: the end always is, why a run stops is once."""
        if record.args and mark_reported(record.args[0] if isinstance(record.args, tuple) else None):
            return False
        least = logging.WARNING if record.name == FILES and not self.debug and _keeps_log() else logging.NOTSET
        return record.name == END or record.levelno >= max(least, self.least)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text, which erases the view below it."""
        return self.prefix + super().format(record)


class _LogFile(_Handler, logging.FileHandler):
    """Take every record, in detail; a record that can't be written is lost, and the run goes on until a target can't be."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class calls it so
        """Pass over an error: a traceback a line would hide what is wrong."""

    def close(self) -> None:
        """Close the file; what of it is still to be written is lost where it can't be."""
        with suppress(OSError):
            super().close()


class _RunLog(_LogFile):
    """Marks the log of a run.

    Attributes:
        stop: Taken by whoever first says why the surroundings stop the run: each of its processes meets that, and the end does once more.
    """

    stop: ClassVar[Lock | None] = None


class LuigiFilter(logging.Filter):
    """Keep Luigi's log readable and free of secrets: no traceback of what is no bug, and no line for every step of its scheduler.

    Log files get every line.

    Args:
        chatter: Whether to show what is below WARNING.
    """

    def __init__(self, chatter: bool) -> None:
        super().__init__()
        self._chatter = chatter

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record where its exception is a DppError; say whether Luigi is to show it."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, DppError):
            record.msg, record.args, record.exc_info, record.exc_text = str(error), None, None, None
        elif record.exc_info:
            record.exc_text = printable(redact_text(_PLAIN.formatException(record.exc_info)))
        record.msg, record.args = printable(redact_text(record.getMessage())), None
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
        """Whether a record is shown; the execution summary is, where no run keeps its log."""
        summing_up = "Execution Summary" in str(record.msg) and not _keeps_log()
        wanted = self._chatter or summing_up or record.levelno >= logging.WARNING or (console is not None and console.debug)
        return wanted and (console is None or record.levelno >= console.least)


def filter_luigi(chatter: bool) -> None:
    """Filter Luigi's log from now on; the last call counts."""
    logger = logging.getLogger("luigi-interface")
    for old in [known for known in logger.filters if isinstance(known, LuigiFilter)]:
        logger.removeFilter(old)
    logger.addFilter(LuigiFilter(chatter))
