"""Limits that all processes of a run share: downloads at once per host, bytes per second, bytes of a file.

The shared state is in small files in the run's private folder. Their locks (flock) end with the process that holds them, so
a process that is killed keeps no place. If several machines share a run, each machine has its own limits.
"""

from __future__ import annotations

import os
import random
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path

from dpp import names
from dpp.models import FileData
from dpp.settings import Settings
from dpp.workspace.atomic import read_json, write_json
from dpp.workspace.locks import LockedFile, open_locked, try_open_locked
from dpp.workspace.space import free_bytes

POLL_SECONDS = (0.005, 0.02)
BURST_SECONDS = 0.25
_UNLIMITED = nullcontext()


class Limits:
    """Apply the limits of a run to the downloads of one process.

    Args:
        settings: The settings, with ``max_per_host``, ``rate_limit`` and ``max_bytes``.
        folder: Folder that all processes of the run share. Without it, the rate applies to this object alone, and
            hosts have no limit.
        sleep: Called with the seconds to wait for the rate.
    """

    def __init__(self, settings: Settings, folder: Path | None = None, sleep: Callable[[float], None] = time.sleep) -> None:
        self._most = settings.max_per_host
        self._rate = settings.rate_limit
        self._max_bytes = settings.max_bytes
        self._workspace = settings.workspace
        self._folder = folder
        self._sleep = sleep
        self._turn = threading.Lock()
        self._free_at = 0.0

    def host(self, url: str, sleep: Callable[[float], None] = time.sleep) -> AbstractContextManager[None]:
        """Return a context manager that takes one of the host's places, for the duration of a download.

        Args:
            url: URL of the download.
            sleep: Called with the seconds to wait until a place is looked for again; may raise an exception to give up.
        """
        # Without a shared folder, a task was started on its own and downloads one file.
        host = names.host_of(url) if self._most and self._folder else ""
        return self._held(host, sleep) if host else _UNLIMITED

    @contextmanager
    def _held(self, host: str, sleep: Callable[[float], None]) -> Iterator[None]:
        """Hold a place of a host; wait until one is free."""
        while (place := self._place(names.digest(host))) is None:
            sleep(random.uniform(*POLL_SECONDS))  # noqa: S311 - a pause, not a secret
        try:
            yield
        finally:
            place.release()

    def _place(self, host: str) -> LockedFile | None:
        """Take a place of a host: return its locked file, or None if all are taken."""
        assert self._folder is not None
        found = (try_open_locked(self._folder / f"host-{host}-{number}") for number in range(self._most))
        return next((place for place in found if place is not None), None)

    def max_bytes(self, file: FileData) -> int | None:
        """Return the maximum size of a file in bytes; None for no limit."""
        if self._max_bytes or file.size is not None:
            return self._max_bytes or None
        return self._half_of_free

    @cached_property
    def _half_of_free(self) -> int | None:
        """Half of the free space that the first process of the run found, in bytes; None if it is unknown."""
        path = self._folder and self._folder / "free"
        if path and isinstance(free := read_json(path), int):
            return free // 2
        with suppress(OSError):
            free = free_bytes(self._workspace)
            if path:
                write_json(path, free)
            return free // 2
        return None

    def throttle(self, count: int) -> float:
        """Wait as long as the rate limit requires for this many more bytes; return the seconds waited."""
        # All downloads add their bytes to one queue (generic cell rate algorithm, ITU-T I.371). A queue that was idle
        # allows a burst of a quarter of a second.
        if not self._rate:
            return 0.0
        wait = self._book(count / self._rate)
        if wait > 0:
            self._sleep(wait)
        return max(0.0, wait)

    def _book(self, seconds: float) -> float:
        """Reserve the next seconds of the queue; return the seconds to wait."""
        with self._turn:
            if self._folder is None:
                self._free_at, wait = _booked(self._free_at, seconds)
                return wait
            file = open_locked(self._folder / "rate")
            try:
                free_at, wait = _booked(_unpacked(os.pread(file.descriptor, 8, 0)), seconds)
                os.pwrite(file.descriptor, struct.pack("d", free_at), 0)
            finally:
                file.release()
            return wait


def _booked(free_at: float, seconds: float) -> tuple[float, float]:
    """Return when the queue is free again, and the seconds until then."""
    # All processes of a machine share this clock.
    now = time.monotonic()
    free_at = max(free_at, now - BURST_SECONDS) + seconds
    return free_at, free_at - now


def _unpacked(data: bytes) -> float:
    return float(struct.unpack("d", data)[0]) if len(data) == 8 else 0.0  # noqa: PLR2004 - the size of a C double
