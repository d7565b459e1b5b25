"""Limits that all processes of a run keep together: downloads at once from a host, and bytes a second.

What is shared lies in small files of the run's private folder. Locks on them (flock) die with their holder, so a
process that is killed takes nothing with it. Several machines that share a run keep the limits each for itself.
"""

from __future__ import annotations

import os
import random
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from urllib.parse import urlsplit

from dpp import names
from dpp.settings import Settings
from dpp.workspace.locks import open_locked, try_open_locked

POLL_SECONDS = (0.005, 0.02)
BURST_SECONDS = 0.25
_UNLIMITED = nullcontext()


class Limits:
    """The limits of a run, as the downloads of one process see them.

    Args:
        settings: ``max_per_host`` and ``rate_limit``.
        folder: What all processes of the run share; without one, the rate holds for this object alone, and hosts have
            no limit: a task that was started by itself downloads one file.
        sleep: How to wait, in seconds.
    """

    def __init__(self, settings: Settings, folder: Path | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
        self._most = settings.max_per_host
        self._rate = settings.rate_limit
        self._folder = folder
        self._sleep = sleep
        self._turn = threading.Lock()
        self._free_at = 0.0

    def host(self, url: str) -> AbstractContextManager[None]:
        """Return what holds one of a host's places while something is downloaded from it."""
        host = urlsplit(url).netloc.rpartition("@")[2].lower() if self._most and self._folder else ""
        return self._held(host) if host else _UNLIMITED

    @contextmanager
    def _held(self, host: str) -> Iterator[None]:
        """Hold a place; wait for one where all are taken."""
        while (place := self._place(names.digest(host))) is None:
            self._sleep(random.uniform(*POLL_SECONDS))  # noqa: S311 - a pause, not a secret
        try:
            yield
        finally:
            os.close(place)

    def _place(self, host: str) -> int | None:
        """Take a place of a host, if one is free: a file that is locked as long as its descriptor is open."""
        assert self._folder is not None
        found = (try_open_locked(self._folder / f"host-{host}-{number}") for number in range(self._most))
        return next((place for place in found if place is not None), None)

    def throttle(self, count: int) -> float:
        """Wait for as long as this many bytes more ask for; return the seconds that it took.

        Every download adds its bytes to one queue (the generic cell rate algorithm, ITU-T I.371), which may have
        been empty for a quarter of a second: so much may come at once.
        """
        if not self._rate:
            return 0.0
        wait = self._book(count / self._rate)
        if wait > 0:
            self._sleep(wait)
        return max(0.0, wait)

    def _book(self, seconds: float) -> float:
        """Take the next seconds of the queue; return how long it is now."""
        with self._turn:
            if self._folder is None:
                self._free_at, wait = _booked(self._free_at, seconds)
                return wait
            descriptor = open_locked(self._folder / "rate")
            try:
                free_at, wait = _booked(_unpacked(os.pread(descriptor, 8, 0)), seconds)
                os.pwrite(descriptor, struct.pack("d", free_at), 0)
            finally:
                os.close(descriptor)
            return wait


def _booked(free_at: float, seconds: float) -> tuple[float, float]:
    """Return when the queue is free again, on a clock that all processes of a machine share, and the wait until then."""
    now = time.monotonic()
    free_at = max(free_at, now - BURST_SECONDS) + seconds
    return free_at, free_at - now


def _unpacked(data: bytes) -> float:
    return float(struct.unpack("d", data)[0]) if len(data) == 8 else 0.0  # noqa: PLR2004 - the size of a C double
