"""The connections of a process to one server, each used by one thread at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dpp import FetchError

if TYPE_CHECKING:
    from dpp_sftp.connection import Connection

# Opening a connection costs the server more processor time than some dozen small files, so a thread waits this long for one
# that is in use before it opens another
PATIENCE_SECONDS = 0.25


class Pool:
    """A pool of connections.

    Args:
        limit: Maximum number of open connections.
        connect: Opens a connection.
    """

    def __init__(self, limit: int, connect: Callable[[], Connection]) -> None:
        self._limit = limit
        self._connect = connect
        self._changed = threading.Condition()
        self._idle: list[Connection] = []
        self._made = 0
        # A rejected login or host key is stored: another attempt per file would make the server lock the account
        self._refused: FetchError | None = None
        self._closed = False

    @contextmanager
    def lent(self) -> Iterator[Connection]:
        """Provide a connection for the block; a broken one is closed afterwards.

        Raises:
            FetchError: No connection can be opened.
        """
        connection = self._taken() or self._new()
        try:
            yield connection
        finally:
            self._give_back(connection)

    def _taken(self) -> Connection | None:
        """Wait for an idle connection, or return None if the caller has to open a new one."""
        patient_until = time.monotonic() + PATIENCE_SECONDS
        with self._changed:
            while not self._idle:
                if self._refused is not None:
                    raise FetchError(str(self._refused), self._refused.error_class) from self._refused
                left = patient_until - time.monotonic()
                if not self._made or (self._made < self._limit and left <= 0):
                    self._made += 1
                    return None
                self._changed.wait(left if left > 0 else None)
            return self._idle.pop()

    def _new(self) -> Connection:
        try:
            return self._connect()
        except BaseException as error:
            self._forget(error if isinstance(error, FetchError) and not error.retryable else None)
            raise

    def _give_back(self, connection: Connection) -> None:
        with self._changed:
            if connection.is_sound and not self._closed:
                self._idle.append(connection)
                self._changed.notify()
                return
        try:
            connection.close()
        finally:
            self._forget()

    def _forget(self, refused: FetchError | None = None) -> None:
        with self._changed:
            self._made -= 1
            self._refused = self._refused or refused
            self._changed.notify_all()

    def close(self) -> None:
        """Close the idle connections; those in use are closed at the end of their block."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._made -= len(idle)
        for connection in idle:
            connection.close()
