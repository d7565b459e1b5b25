"""One connection to a server, logged in, with an SFTP session and an event loop of its own.

The loop runs only while a thread works with the connection, in that thread: so nothing is handed from one thread to
another, and nothing runs when the process forks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import asyncssh
from dpp import FetchError, http

from dpp_sftp.address import Server
from dpp_sftp.session import INVALID, LOST, Session, Unanswered, readable

T = TypeVar("T")
FAREWELL_SECONDS = 1.0
_TURNS = 3  # of the loop, until an aborted transport has told its protocol and closed its socket


class Stale(Exception):
    """A connection had died since it was used last; nothing is known of the server."""


class Connection:
    """A connection that is logged in.

    Args:
        server: The server, for messages.
        pause: How often to look at the limits, in seconds.
        opened: Opens it.

    Attributes:
        uses: How often it was worked with.
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
        """Do something with the session, within the limits of a transfer.

        Raises:
            FetchError: A limit was passed, or the connection broke.
            Stale: It had broken before this began.
        """
        self.uses += 1
        timer.asked()
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
        """Return why the session is of no use any more."""
        if watchdog.passed is not None:
            return watchdog.passed
        if isinstance(error, Unanswered) and self.uses > 1:
            return Stale()
        said = readable(str(error))
        if isinstance(error, LOST):
            return FetchError(f"the connection to {self._server} broke: {said}", "connection", retryable=True)
        return FetchError(f"{self._server} does not speak as an SFTP server should: {said}", "protocol")

    def close(self) -> None:
        """Say goodbye, where the server still listens, and wait a second at most for it to be heard."""
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
    """Let what asyncssh left under way in this loop end, so that nothing is open once the loop is closed."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class _Watchdog:
    """Check the limits of a transfer from time to time while a loop runs; from the first that is passed on, end the work.

    Args:
        loop: The loop.
        session: What is watched.
        work: What is ended.
        timer: Raises once a limit has passed.
        pause: Seconds between looks.

    Attributes:
        passed: The limit that was passed.
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
            self._work.cancel()  # each time: where a listing is ended, asyncssh waits for the server to close the folder
        self._timer = self._loop.call_later(self._pause, self._beat)

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()


class _Inline(ThreadPoolExecutor):
    """Do what asyncssh gives to threads, such as signing, right away: nobody else waits for this loop."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call a function and return its result as a future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it is whoever asked that wants it
            future.set_exception(error)
        return future
