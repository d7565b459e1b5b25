"""Tests of logging: dpp's lines once, details on request, and no tracebacks in Luigi's log for expected errors."""

from __future__ import annotations

import logging
import sys
import threading

import pytest
from dpp import EnvironmentStop, FetchError, Settings
from dpp.logs import LuigiFilter, close_run_log, filter_luigi, keep_log, set_up_logging

log = logging.getLogger("dpp.test")


def record(level: int, text: str, error: BaseException | None = None) -> logging.LogRecord:
    return logging.LogRecord("luigi-interface", level, __file__, 1, text, (), (type(error), error, None) if error else None)


def test_a_line_is_shown_once_however_often_logging_is_set_up(capsys):
    for _ in range(3):
        set_up_logging(Settings())
    log.info("hello %s", "you")
    log.debug("not this")
    assert capsys.readouterr() == ("", "INFO: hello you\n")
    assert logging.getLogger("dpp").propagate is False


def test_details_have_the_name_of_the_thread(capsys):
    set_up_logging(Settings(debug=True))
    thread = threading.Thread(target=lambda: log.debug("details"), name="download-3")
    thread.start()
    thread.join()
    assert "DEBUG [MainProcess download-3] dpp.test: details" in capsys.readouterr().err


def test_lines_of_other_loggers_are_safe_for_a_terminal(capsys):
    set_up_logging(Settings())
    other = logging.LogRecord("step", logging.WARNING, __file__, 1, "%s \x1b[31m\nERROR: forged", ("https://me:pw@h/a?sig=1",), None)
    # pytest handles all loggers, so Python would not come to this one by itself.
    logging.lastResort.handle(other)
    assert capsys.readouterr().err == "WARNING: https://***@h/a?*** \\x1b[31m\n  ERROR: forged\n"


def test_a_log_file_gets_every_line_in_detail_and_keeps_what_it_had(tmp_path):
    (tmp_path / "x.log").write_text("before\n")
    for name in ("x.log", str(tmp_path / "x.log")):
        set_up_logging(Settings(log_file=name))
    log.info("caf\udce9 ü")
    lines = (tmp_path / "x.log").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "before"
    assert len(lines) == 2
    assert lines[1].endswith("INFO [MainProcess MainThread] dpp.test: caf\\udce9 ü")


def test_two_log_files_both_get_lines(tmp_path):
    for name in ("a.log", "b.log"):
        set_up_logging(Settings(log_file=name))
    log.info("twice")
    assert [(tmp_path / name).read_text().count("twice") for name in ("a.log", "b.log")] == [1, 1]


@pytest.mark.parametrize("name", [".", "missing/x.log"])
def test_a_log_file_that_can_not_be_opened_stops_the_run(name):
    with pytest.raises(EnvironmentStop, match="cannot write"):
        set_up_logging(Settings(log_file=name))


def test_why_a_run_stops_is_said_once_on_the_console_and_each_time_in_its_log(tmp_path, capsys):
    set_up_logging(Settings())
    keep_log(tmp_path / "log.txt")
    for name in "ab":
        logging.getLogger("dpp.x").error("%s", EnvironmentStop(f"cannot write {name}"))
    close_run_log()
    assert capsys.readouterr().err == "ERROR: cannot write a\n"
    assert (tmp_path / "log.txt").read_text().count("cannot write") == 2


def test_a_log_that_can_not_be_written_to_its_end_is_let_go(tmp_path):
    (tmp_path / "log.txt").symlink_to("/dev/full")
    set_up_logging(Settings())
    keep_log(tmp_path / "log.txt")
    logging.getLogger("dpp.x").error("no room")
    close_run_log()


def test_errors_that_are_no_bugs_have_no_traceback():
    shown = record(logging.ERROR, "[pid 1] Worker failed", FetchError("the host name does not resolve", "dns"))
    assert LuigiFilter(chatter=False).filter(shown)
    assert (shown.getMessage(), shown.exc_info) == ("the host name does not resolve", None)


def test_bugs_keep_their_traceback():
    shown = record(logging.ERROR, "Worker failed", ZeroDivisionError())
    assert LuigiFilter(chatter=False).filter(shown)
    assert shown.exc_info
    assert shown.getMessage() == "Worker failed"


@pytest.mark.parametrize(
    ("chatter", "level", "text", "shown"),
    [
        (False, logging.INFO, "Scheduled 5 tasks", False),
        (True, logging.INFO, "Scheduled 5 tasks", True),
        (False, logging.WARNING, "disk slow", True),
        (False, logging.INFO, "\n===== Luigi Execution Summary =====\n", True),
    ],
)
def test_luigis_chatter_is_left_out_unless_asked_for(chatter, level, text, shown):
    assert LuigiFilter(chatter).filter(record(level, text)) is shown


def test_the_last_filter_counts():
    logger = logging.getLogger("luigi-interface")
    before = list(logger.filters)
    try:
        filter_luigi(chatter=False)
        filter_luigi(chatter=True)
        assert [one._chatter for one in logger.filters if isinstance(one, LuigiFilter)] == [True]
    finally:
        logger.filters[:] = before


def test_lines_go_to_standard_error():
    set_up_logging(Settings())
    streams = [handler.stream for handler in logging.getLogger("dpp").handlers]
    assert streams == [sys.stderr]
