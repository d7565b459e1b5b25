"""A lock on a batch that dies with whoever holds it (flock), alone or together with others."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

from dpp.errors import LockedError
from dpp.workspace.atomic import is_alive, stops_run

_HOLDER = "pid {pid} on {host} since {since}"
TRIES = 3
PAUSE = 0.01
NAMED_SECONDS = 1.0


class Lock:
    """A lock file; children of the process that holds it hold it too.

    Args:
        path: The lock file; it says who held it last.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        with stops_run(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def exclusive(self) -> None:
        """Hold the lock alone, or raise LockedError naming its holder.

        Tried a few times, as somebody may only be asking whether it is free.
        """
        for _ in range(TRIES):
            if self.try_exclusive():
                return
            time.sleep(PAUSE)
        raise self.held()

    def held(self) -> LockedError:
        """Return the error that names the holder.

        Who has just got the lock may not have written down yet that it has; until then the one before it stands there.
        """
        deadline = time.monotonic() + NAMED_SECONDS
        while _is_over(holder := self._holder()) and time.monotonic() < deadline:
            time.sleep(PAUSE)
        by = f"what {holder} left running" if holder and _is_over(holder) else holder or "somebody"
        return LockedError(f"this batch is being run by {by}; wait for it to end or stop it, then run the same command again")

    def _holder(self) -> str:
        return os.pread(self._descriptor, 1000, 0).decode(errors="replace").strip()

    def try_exclusive(self) -> bool:
        """Hold the lock alone, if nobody else holds it; a shared lock held before is lost if not."""
        if not self._try(fcntl.LOCK_EX):
            return False
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = _HOLDER.format(pid=os.getpid(), host=socket.gethostname(), since=since)
        with stops_run(self._path):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, holder.encode(), 0)
        return True

    def try_shared(self) -> bool:
        """Hold the lock with others, unless somebody holds it alone."""
        return self._try(fcntl.LOCK_SH)

    def is_free(self) -> bool:
        """Whether nobody else holds the lock; asking takes it for a moment."""
        return self._try(fcntl.LOCK_EX)

    def _try(self, mode: int) -> bool:
        try:
            fcntl.flock(self._descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Let the lock go for all processes that hold it with this one."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def release(self) -> None:
        """Let the lock go; a second time does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.release()


def _is_over(holder: str) -> bool:
    """Whether a text names no holder, or one of this machine that is no more."""
    words = holder.split()
    return len(words) < len(_HOLDER.split()) or (words[3] == socket.gethostname() and not is_alive(words[1]))
