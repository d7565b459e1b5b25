"""The fetcher for ``sftp:`` URLs."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from dpp import BaseFetcher, FetchError, FileData, Part, Settings, http

from dpp_sftp.address import Address, Server, parse
from dpp_sftp.options import SftpOptions
from dpp_sftp.pool import Pool

if TYPE_CHECKING:
    from dpp_sftp.session import Session

T = TypeVar("T")


class SftpFetcher(BaseFetcher):
    """Download files over SFTP from servers with known host keys; see :class:`dpp_sftp.SftpOptions`."""

    Options = SftpOptions
    checks_peers = True
    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._options = settings.options_for("sftp", SftpOptions)
        self._pools: dict[tuple[int, Server], Pool] = {}

    def fetch(self, url: str, file: FileData, part: Part) -> None:
        """Download the file into the part; see :class:`dpp.BaseFetcher`."""
        from dpp_sftp import transfer  # noqa: PLC0415 - imports asyncssh, which is slow

        address = _address(url)
        self._run(address, lambda session: transfer.fetch(session, address.path, part, file.size, _listed_version(file)))

    def source_version(self, url: str, file: FileData) -> str | None:
        """Return the time of the last change and the size, from the manifest or else from the server; see :class:`dpp.BaseFetcher`."""
        from dpp_sftp import transfer  # noqa: PLC0415 - imports asyncssh, which is slow

        # A folder's listing has both, so only a file that was named on its own costs a round trip
        if listed := _listed_version(file):
            return listed
        address = _address(url)
        return self._run(address, lambda session: transfer.current_version(session, address.path))

    def _run(self, address: Address, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine over a connection of the pool, and return its result."""
        from dpp_sftp.connection import Stale  # noqa: PLC0415 - imports asyncssh

        pool = self._pool(address.server)
        while True:
            with pool.lent() as connection:
                try:
                    return connection.run(work, http.TransferTimer(self.settings))
                except Stale:
                    continue

    def _pool(self, server: Server) -> Pool:
        """Return this process's connections to a server."""
        from dpp_sftp.connector import Connector  # noqa: PLC0415 - imports asyncssh

        # By process: after a fork, the child must not use its parent's connections
        key = (os.getpid(), server)
        known = self._pools.get(key)
        return known or self._pools.setdefault(key, Pool(self._options.sessions, Connector(server, self._options, self.settings).connect))

    def close(self) -> None:
        """Close the idle connections of this process."""
        for (process, _), pool in self._pools.items():
            if process == os.getpid():
                pool.close()


def _listed_version(file: FileData) -> str | None:
    """Return a file's version from ``mtime`` (ISO 8601) and ``size``, as a listing gives them; None if one is missing or invalid."""
    from dpp_sftp import transfer  # noqa: PLC0415 - imports asyncssh, which is slow

    with suppress(ValueError, OverflowError):
        return transfer.version(int(datetime.fromisoformat(str(getattr(file, "mtime", ""))).timestamp()), file.size)
    return None


def _address(url: str) -> Address:
    try:
        return parse(url)
    except ValueError as error:
        raise FetchError(str(error), "protocol") from error
