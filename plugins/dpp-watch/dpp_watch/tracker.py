"""Which files of a folder wait, and for what; no I/O: the clock is an argument."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from dpp_watch.journal import JournalState
from dpp_watch.local import FoundFile
from dpp_watch.rules import Rules

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
LATE_SECONDS = 600.0
REMEMBERED = 20_000
WRITTEN = "a process is writing to it"


class Waiting:
    """A file that was not taken yet.

    Attributes:
        found: The file as it was last seen.
        since: When its version was last changed, as far as known, in seconds of the monotonic clock.
        first: When it was first seen.
        not_before: When to look at it again, if it was not ready.
        pause: Seconds until then.
        why: Why it was not ready; "" if it may be.
        seen: When this version was last seen.
        scan: Number of the scan that has seen it.
        is_reported: Whether it was reported that it waits for long.
    """

    __slots__ = ("first", "found", "is_reported", "not_before", "pause", "scan", "seen", "since", "why")

    def __init__(self, found: FoundFile, now: float, scan: int) -> None:
        self.first = now
        self.scan = scan
        self.is_reported = False
        self.change(found, now)

    def change(self, found: FoundFile, now: float) -> None:
        """Set the version of the file."""
        self.found = found
        self.since = now - (found.age or 0.0)
        self.seen = now
        self.not_before = 0.0
        self.pause = FIRST_PAUSE
        self.why = ""

    def put_off(self, why: str, now: float) -> None:
        """Look at the file again later, as it is not ready."""
        self.why = why
        self.not_before = now + self.pause
        self.pause = min(2 * self.pause, LONGEST_PAUSE)


class Retry(NamedTuple):
    """A file that failed and is tried again.

    Attributes:
        path: Its path.
        version: The version that failed.
    """

    path: str
    version: str


class Tracker:
    """The files that wait.

    Args:
        rules: The rules.
        state: What the journal says, kept up to date by the journal.
    """

    def __init__(self, rules: Rules, state: JournalState) -> None:
        self.waiting: dict[str, Waiting] = {}
        self.refused: dict[str, str] = {}
        self._rules = rules
        self._state = state
        self._scan = 0
        self._due = float("inf")
        self._limit = max(REMEMBERED, 2 * rules.max_files)
        self._is_full = False

    def is_taken(self, path: str, version: str) -> bool:
        """Whether this version of a file was taken."""
        return self._state.taken.get(path) == version

    def see(self, found: FoundFile, now: float) -> None:
        """Note a file as it is now."""
        waiting = self.waiting.get(found.path)
        if self.is_taken(found.path, found.version):
            self.waiting.pop(found.path, None)
        elif self._rules.changed != "again" and found.path in self._state.taken:
            self.refused[found.path] = found.version
        elif waiting is None and len(self.waiting) >= self._limit:
            self._is_full = True
        elif waiting is None:
            self.waiting[found.path] = waiting = Waiting(found, now, self._scan)
            self._due = min(self._due, self._due_of(waiting))
        else:
            waiting.scan, waiting.seen = self._scan, now
            if waiting.found.version != found.version:
                waiting.change(found, now)
                self._due = min(self._due, self._due_of(waiting))

    def marked(self, path: str) -> None:
        """Note that a file has its marker now."""
        if waiting := self.waiting.get(path):
            waiting.not_before = 0.0
            self._due = min(self._due, self._due_of(waiting))

    def begin_scan(self) -> None:
        """Note that a scan of the whole folder starts."""
        self._scan += 1

    def needs_scan(self, *, collected: bool) -> bool:
        """Whether a scan will find files that were not remembered, as too many waited.

        Args:
            collected: Whether the last attempt to make a collection has found a file that is ready.
        """
        if not self._is_full or (collected and len(self.waiting) > self._limit // 2):
            return False
        # Files that do not become ready must not keep others from being seen.
        self._limit *= 1 if collected else 2
        self._is_full = False
        return True

    def end_scan(self) -> None:
        """Forget the files that the scan has not seen."""
        self.waiting = {path: waiting for path, waiting in self.waiting.items() if waiting.scan == self._scan}

    def forget(self, path: str) -> None:
        """Forget a file that is not there any more."""
        self.waiting.pop(path, None)

    def _due_of(self, waiting: Waiting) -> float:
        # Others may join a file until it has waited for `collect`, unless there are enough of them.
        still = self._rules.still_seconds
        delay = still if len(self.waiting) >= self._rules.max_files else max(still, self._rules.collect)
        return max(waiting.since + delay, waiting.not_before)

    def is_unsettled(self, now: float) -> bool:
        """Whether a file has changed within the last ``settle`` seconds."""
        return any(now - waiting.since < self._rules.still_seconds for waiting in self.waiting.values())

    def due(self) -> float:
        """Return when a collection may be made; infinity if no file waits."""
        return self._due

    def ready(self, now: float, *, at_once: bool = False) -> Iterator[Waiting]:
        """Yield the files that may be taken, if one of them has waited for long enough; the caller checks and takes or puts off each.

        Args:
            now: The time.
            at_once: Whether no further files are waited for.
        """
        files = [*self.waiting.values()]
        if not at_once and not any(self._due_of(waiting) <= now for waiting in files):
            return
        for waiting in files:
            if max(waiting.since + self._rules.still_seconds, waiting.not_before) <= now:
                yield waiting

    def find_due(self) -> None:
        """Find out when the next file is due; after :meth:`ready`."""
        self._due = min(map(self._due_of, self.waiting.values()), default=float("inf"))

    def retries(self) -> list[Retry]:
        """Return the files that failed and are tried again."""
        tries = self._state.tries
        return [
            Retry(path, self._state.taken[path])
            for path, count in tries.items()
            if count < self._rules.give_up and path not in self.waiting
        ]

    def late(self, now: float) -> Iterator[tuple[Waiting, str]]:
        """Yield the files that have not been ready for ten minutes, each once, with the reason."""
        for waiting in self.waiting.values():
            why = self.why(waiting, now)
            if why and now - waiting.first >= LATE_SECONDS and not waiting.is_reported:
                waiting.is_reported = True
                yield waiting, why

    def why(self, waiting: Waiting, now: float) -> str:
        """Return why a file is not ready; "" if it is."""
        if now - waiting.since < self._rules.still_seconds:
            return f"it was changed {max(0.0, now - waiting.since):.1f} s ago (settle: {self._rules.settle:g} s)"
        return waiting.why
