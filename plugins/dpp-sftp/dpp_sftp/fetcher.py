"""The fetcher for ``sftp:`` URLs."""

from __future__ import annotations

import os

from dpp import BaseFetcher, FetchError, FileData, Part, Settings, http

from dpp_sftp.address import Address, Server, parse
from dpp_sftp.options import SftpOptions
from dpp_sftp.pool import Pool


class SftpFetcher(BaseFetcher):
    """Download files over SFTP from servers with known host keys; see :class:`dpp_sftp.SftpOptions`."""

    Options = SftpOptions
    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._options = settings.options_for("sftp", SftpOptions)
        self._pools: dict[tuple[int, Server], Pool] = {}

    def fetch(self, url: str, file: FileData, part: Part) -> None:
        """Download the file into the part; see :class:`dpp.BaseFetcher`."""
        from dpp_sftp import transfer  # noqa: PLC0415 - imports asyncssh, which is slow
        from dpp_sftp.connection import Stale  # noqa: PLC0415 - imports asyncssh

        address = _address(url)
        pool = self._pool(address.server)
        while True:
            with pool.lent() as connection:
                try:
                    connection.run(
                        lambda session: transfer.fetch(session, address.path, part, file.size), http.TransferTimer(self.settings)
                    )
                except Stale:
                    continue
                return

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


def _address(url: str) -> Address:
    try:
        return parse(url)
    except ValueError as error:
        raise FetchError(str(error), "protocol") from error
