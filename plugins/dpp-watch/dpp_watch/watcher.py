"""The watcher: it waits for events, scans, makes collections, and runs their batches one after another."""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any

from dpp import EnvironmentStop, InputError

from dpp_watch.batches import ENDING_SIGNALS, Ended, ForkedProcess, ended, run_batch
from dpp_watch.journal import Journal
from dpp_watch.local import FoundFile
from dpp_watch.places import Place
from dpp_watch.remote import RemoteFolder
from dpp_watch.rules import Rules
from dpp_watch.tracker import WRITTEN, Tracker, Waiting

log = logging.getLogger("dpp.watch")

GATHER_SECONDS = 0.02
STOPPED_PAUSE = 10.0
# A scan of very many files must not keep a core busy: its processor time is at most one part in this many of the time between two.
SCAN_SHARE = 150


class Watcher:
    """Watch a place until a signal comes; with ``once``, take what is ready.

    Args:
        place: The place.
        rules: The rules.
        journal: The journal, locked.
        settings: Settings of the batches.
        workers: Number of processes of a batch; 0 for the number in luigi.cfg, or 1.
        once: Whether to end when no file is ready any more.
    """

    def __init__(
        self, place: Place, rules: Rules, journal: Journal, settings: Mapping[str, Any], workers: int = 0, *, once: bool = False
    ) -> None:
        self._place = place
        self._rules = rules
        self._journal = journal
        self._settings = settings
        self._workers = workers
        self._once = once
        self._tracker = Tracker(rules, journal.state)
        self._child: ForkedProcess | None = None
        self._signal = 0
        self._sent = 0
        self._code = 0
        self._end: int | None = None
        self._next_scan = 0.0
        self._next_start = 0.0
        self._next_retry = 0.0
        self._patience = 0.0
        self._problem = ""
        self._reported: set[tuple[str, str]] = set()
        if isinstance(place, RemoteFolder):
            place.is_stopping = lambda: bool(self._signal)
        self._wakeup = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def run(self) -> int:
        """Watch; return the exit code: 1 if files failed, that of a batch that cannot run, or 128 and the number of the signal."""
        self._catch_signals()
        if self._journal.state.is_open:
            log.info("continuing collection %d, which was interrupted", self._journal.state.number)
        while not self._is_over():
            self._wait()
            self._work()
        if self._once and not self._signal and self._tracker.waiting:
            log.warning("%d files are not ready; --status shows why", len(self._tracker.waiting))
        return 128 + self._signal if self._signal else self._end or self._code

    def _catch_signals(self) -> None:
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        # nohup(1) lets its program ignore the hang-up of the terminal.
        for number in ENDING_SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        # The kernel sends it if a file is opened for writing while it is looked at, and it would end the process.
        signal.signal(signal.SIGIO, signal.SIG_IGN)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._signal = self._signal or number
        self._sent += 1

    def _is_over(self) -> bool:
        if self._child is not None:
            return False
        if self._signal or self._end is not None:
            return True
        # Files that have just arrived get the time to settle.
        return self._once and self._next_scan > 0 and self._next_action() > max(time.monotonic(), self._patience)

    def _next_action(self) -> float:
        """Return when the next collection may start."""
        retry = self._next_retry if self._tracker.retries() else float("inf")
        if self._journal.state.is_open:
            return self._next_start
        return max(self._next_start, min(retry, self._tracker.due()))

    def _wait(self) -> None:
        """Wait for an event, a signal, the end of the batch, or the time of the next action."""
        poll = select.poll()
        events = None if self._signal else self._place.descriptor
        for descriptor in (self._wakeup[0], events, self._child.descriptor if self._child else None):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        ready = poll.poll(self._milliseconds())
        if any(descriptor == events for descriptor, _ in ready):
            # What arrives in a burst is looked at together.
            time.sleep(GATHER_SECONDS)
        for descriptor, _ in ready:
            if descriptor == self._wakeup[0]:
                os.read(descriptor, 4096)

    def _milliseconds(self) -> float | None:
        """Return how long to wait at most; None for no limit."""
        if self._signal:
            return 0 if self._child is None else None
        until = self._next_scan
        if self._child is None:
            until = min(until, self._next_action(), self._patience if self._once else until)
        return max(0.0, until - time.monotonic()) * 1000 + 1

    def _work(self) -> None:
        if self._child is not None:
            while self._sent:
                self._sent -= 1
                self._child.send(self._signal)
            if self._child.has_ended():
                child, self._child = self._child, None
                self._conclude(ended(child))
        if self._signal:
            return
        self._take_events()
        if time.monotonic() >= self._next_scan:
            self._scan()
        if self._child is None and self._end is None and self._next_action() <= time.monotonic():
            self._start()

    def _take_events(self) -> None:
        seen: set[str] = set()
        for event in self._place.events():
            if event.is_overflow:
                log.warning("events were lost, as there were too many; scanning the folder")
                self._next_scan = 0.0
            elif event.is_folder:
                if not event.path:
                    self._next_scan = 0.0
                elif self._rules.recursive and not self._rules.skips(event.path):
                    self._see_all(event.path)
            elif marked := self._rules.marked_by(event.path):
                self._tracker.marked(marked)
            else:
                seen.add(event.path)
        for path in seen:
            self._see(path)

    def _see(self, path: str) -> FoundFile | None:
        """Look at a file, and return it if it is there."""
        found = self._place.look(path) if self._rules.recursive or "/" not in path else None
        if found is None:
            self._tracker.forget(path)
        else:
            self._tracker.see(found, time.monotonic())
        return found

    def _see_all(self, below: str) -> None:
        for found in self._place.scan(below, self._journal.state.taken):
            self._tracker.see(found, time.monotonic())

    def _scan(self) -> None:
        began = time.thread_time()
        self._tracker.begin_scan()
        try:
            self._see_all("")
            self._problem = ""
        except (OSError, EnvironmentStop) as error:
            self._note_problem(error)
        else:
            self._tracker.end_scan()
        now = time.monotonic()
        if not self._patience:
            self._patience = now + self._rules.still_seconds + GATHER_SECONDS
            # With `once`, files that have just arrived join the others.
            self._next_start = self._patience if self._once and self._tracker.is_unsettled(now) else now
        self._next_scan = now + max(self._rules.scan, SCAN_SHARE * (time.thread_time() - began))
        self._report(now)

    def _note_problem(self, error: OSError | EnvironmentStop) -> None:
        """Report why the place cannot be read, once."""
        problem = (isinstance(error, OSError) and error.strerror) or str(error)
        if problem != self._problem and not self._signal:
            next_try = "" if self._once else f", trying again every {self._rules.scan:g} s"
            log.warning("cannot read the watched folder%s: %s", next_try, problem)
        self._problem = problem
        self._end = EnvironmentStop.exit_code if self._once else None

    def _report(self, now: float) -> None:
        for waiting, why in self._tracker.late(now):
            log.warning("%s is not ready for 10 minutes: %s", waiting.found.path, why)
        for item in self._tracker.refused.items():
            if item not in self._reported:
                self._reported.add(item)
                level = logging.WARNING if self._rules.changed == "fail" else logging.INFO
                log.log(
                    level, "%s was rewritten after it was taken; the new version is not taken (--changed %s)", item[0], self._rules.changed
                )
        if self._tracker.refused and self._rules.changed == "fail":
            self._code = max(self._code, 1)

    def _start(self) -> None:
        """Start the batch of the next collection, or continue that of the last one."""
        if not self._journal.state.is_open:
            rows = self._rows()
            if self._tracker.needs_scan(collected=bool(rows)):
                self._next_scan = 0.0
            self._tracker.find_due()
            if not rows:
                return
            number = self._journal.collect(rows)
            for row in rows:
                self._tracker.forget(row["id"])
            self._tracker.find_due()
            log.info("collection %d: %d %s", number, len(rows), "file" if len(rows) == 1 else "files")
        manifest = self._journal.manifest(self._journal.state.number)
        self._child = ForkedProcess(run_batch(manifest, self._workers, self._settings), self._close_in_child)

    def _close_in_child(self) -> None:
        self._journal.close()
        self._place.close()

    def _rows(self) -> list[dict[str, Any]]:
        """Return the files of the next collection, as entries of a manifest."""
        now, rows = time.monotonic(), list[dict[str, Any]]()
        for waiting in self._tracker.ready(now, at_once=self._has_retries(now)):
            if len(rows) >= self._rules.max_files:
                break
            if self._is_ready(waiting, now):
                rows.append(self._place.row(waiting.found))
        if rows or self._has_retries(now):
            rows += self._retries(self._rules.max_files - len(rows))
        return rows

    def _has_retries(self, now: float) -> bool:
        return now >= self._next_retry and bool(self._tracker.retries())

    def _is_ready(self, waiting: Waiting, now: float) -> bool:
        """Whether a file is there, unchanged, and complete; otherwise note why not."""
        path = waiting.found.path
        if not self._is_unchanged(waiting, now):
            return False
        if self._rules.has_markers and not self._place.has(self._rules.marker_of(path)):
            waiting.put_off(f"there is no {self._rules.marker_of(path)}", now)
        elif self._place.is_written(path):
            waiting.put_off(WRITTEN, now)
        else:
            return True
        return False

    def _is_unchanged(self, waiting: Waiting, now: float) -> bool:
        path, version = waiting.found.path, waiting.found.version
        if not self._place.is_listed:
            return self._see(path) is not None and self._tracker.waiting.get(path) is waiting and waiting.found.version == version
        if waiting.seen - waiting.since >= self._rules.still_seconds:
            return True
        # Only a further listing shows whether the file has changed.
        if self._problem:
            waiting.put_off("the source cannot be listed", now)
        else:
            self._next_scan = 0.0
        return False

    def _retries(self, room: int) -> list[dict[str, Any]]:
        rows = []
        for path, version in self._tracker.retries()[: max(0, room)]:
            found = self._place.look(path)
            if found is not None and found.version == version:
                rows.append(self._place.row(found))
            else:
                # It is gone, or there is a new version, which is taken as such.
                self._journal.state.tries[path] = self._rules.give_up
        return rows

    def _conclude(self, end: Ended) -> None:
        """Record how the batch of the last collection has ended."""
        state, now = self._journal.state, time.monotonic()
        if not end.is_complete:
            self._next_start = now + STOPPED_PAUSE
            if end.code == InputError.exit_code or self._once:
                self._end = end.code
            elif not self._signal:
                log.warning("the batch of collection %d was stopped; continuing it in %g s", state.number, STOPPED_PAUSE)
            return
        run, failed = end.run(), end.failed()
        self._journal.end(end.code, run.label, failed)
        self._next_retry = now + self._rules.scan
        if failed:
            self._code = 1
            last = sum(state.tries[path] >= self._rules.give_up for path in failed)
            log.warning(
                "collection %d: %d failed, %d of them for the last time (dpp retry %s tries them again); see: dpp report %s",
                *(state.number, len(failed), last, run.batch, run.batch),
            )
        else:
            log.info("collection %d: all ok", state.number)
