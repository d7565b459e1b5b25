"""One authenticated connection to a server, with an SFTP session and its own event loop."""

# The loop runs only while a thread uses the connection, and in that thread: no data is passed between threads, and no other
# thread runs when the process forks.

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import asyncssh
from dpp import FetchError, http

from dpp_sftp.address import Server
from dpp_sftp.session import INVALID, LOST, NoResponse, Session, readable

T = TypeVar("T")
FAREWELL_SECONDS = 1.0
_TURNS = 3  # iterations of the loop until an aborted transport has notified its protocol and closed its socket


class Stale(Exception):
    """The connection broke since its last use; this does not mean that the server is down."""


class Connection:
    """An authenticated connection.

    Args:
        server: The server, for messages.
        pause: Seconds between two checks of the time limits.
        opened: Opens the connection and the SFTP session.

    Attributes:
        uses: Number of calls of :meth:`run`.
    """

    def __init__(
        self, server: Server, pause: float, opened: Callable[[], Coroutine[Any, Any, tuple[asyncssh.SSHClientConnection, Session]]]
    ) -> None:
        self._server = server
        self._pause = pause
        self.uses = 0
        self._is_broken = False
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_Inline())
        try:
            self._ssh, self._session = self._loop.run_until_complete(opened())
        except BaseException:
            self._end_loop()
            raise

    @property
    def is_sound(self) -> bool:
        """Whether it can be used again."""
        return not self._is_broken and not self._session.has_ended

    def run(self, work: Callable[[Session], Coroutine[Any, Any, T]], timer: http.TransferTimer) -> T:
        """Run a coroutine with the session, within the time limits of a transfer, and return its result.

        Raises:
            FetchError: A time limit was exceeded, or the connection broke.
            Stale: The connection broke before this call.
        """
        self.uses += 1
        timer.request_sent()
        task = self._loop.create_task(work(self._session))
        watchdog = _Watchdog(self._loop, self._session, task, timer, self._pause)
        try:
            return self._loop.run_until_complete(task)
        except (*LOST, *INVALID, asyncio.CancelledError) as error:
            self._is_broken = True
            raise self._broken(error, watchdog) from error
        except (KeyboardInterrupt, SystemExit):
            self._is_broken = True
            raise
        finally:
            watchdog.stop()

    def _broken(self, error: BaseException, watchdog: _Watchdog) -> Exception:
        """Return the error for a session that cannot be used any more."""
        if watchdog.passed is not None:
            return watchdog.passed
        # A server may close an idle connection; in its first use, it is an error of the server
        if isinstance(error, NoResponse) and self.uses > 1:
            return Stale()
        reason = readable(str(error))
        if isinstance(error, LOST):
            return FetchError(f"the connection to {self._server} broke: {reason}", "connection", retryable=True)
        return FetchError(f"invalid response from the SFTP server {self._server}: {reason}", "protocol")

    def close(self) -> None:
        """Close the connection, and wait at most 1 s for the server to close its side."""
        with suppress(TimeoutError, OSError, asyncssh.Error):
            self._loop.run_until_complete(self._farewell())
        self._end_loop()

    async def _farewell(self) -> None:
        if self.is_sound:
            self._ssh.close()
        else:
            self._ssh.abort()
        async with asyncio.timeout(FAREWELL_SECONDS):
            await self._ssh.wait_closed()

    def _end_loop(self) -> None:
        self._loop.run_until_complete(_settled())
        self._loop.close()


async def _settled() -> None:
    """Cancel asyncssh's remaining tasks of this loop, so that no socket is open when the loop is closed."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class _Watchdog:
    """Check the time limits of a transfer regularly, and cancel its task when a limit is exceeded.

    Args:
        loop: The loop in which the task runs.
        session: The session whose received bytes are counted.
        work: The task.
        timer: Raises FetchError when a limit is exceeded.
        pause: Seconds between two checks.

    Attributes:
        passed: The error of the first limit that was exceeded, or None.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, session: Session, work: asyncio.Task[Any], timer: http.TransferTimer, pause: float
    ) -> None:
        self._loop = loop
        self._session = session
        self._work = work
        self._limits = timer
        self._seen = session.received
        self._pause = pause
        self.passed: FetchError | None = None
        self._timer = loop.call_later(self._pause, self._beat)

    def _beat(self) -> None:
        try:
            if count := self._session.received - self._seen:
                self._seen += count
                self._limits.received(count)
            self._limits.silent()
        except FetchError as error:
            self.passed = self.passed or error
            # Again at each check: when a listing is cancelled, asyncssh waits for the server to close the folder
            self._work.cancel()
        self._timer = self._loop.call_later(self._pause, self._beat)

    def stop(self) -> None:
        """Stop the checks."""
        self._timer.cancel()


class _Inline(ThreadPoolExecutor):
    """An executor that runs functions in the calling thread."""

    # asyncssh moves slow work such as signing to threads, but no other task waits for this loop
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call a function and return its result as a future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future passes it to the caller
            future.set_exception(error)
        return future
