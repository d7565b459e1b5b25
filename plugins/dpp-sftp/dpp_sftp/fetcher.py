"""The fetcher of ``sftp:`` URLs."""

from __future__ import annotations

import os

from dpp import BaseFetcher, FetchError, FileData, Part, Settings, http

from dpp_sftp.address import Address, Server, parse
from dpp_sftp.options import SftpOptions
from dpp_sftp.pool import Pool


class SftpFetcher(BaseFetcher):
    """Fetch over SFTP, from servers whose host keys are known; see :class:`dpp_sftp.SftpOptions`.

    Connections belong to the process that made them: a fetcher that was made before a fork makes new ones after it.
    """

    Options = SftpOptions
    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._options = settings.options_for("sftp", SftpOptions)
        self._pools: dict[tuple[int, Server], Pool] = {}

    def fetch(self, url: str, file: FileData, part: Part) -> None:
        """Write the file into the part; see :class:`dpp.BaseFetcher`."""
        from dpp_sftp import transfer  # noqa: PLC0415 - takes its time; see the package
        from dpp_sftp.connection import Stale  # noqa: PLC0415 - likewise

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
        from dpp_sftp.connector import Connector  # noqa: PLC0415 - likewise

        key = (os.getpid(), server)
        known = self._pools.get(key)
        return known or self._pools.setdefault(key, Pool(self._options.sessions, Connector(server, self._options, self.settings).connect))

    def close(self) -> None:
        """Close this process's connections that nobody uses."""
        for (process, _), pool in self._pools.items():
            if process == os.getpid():
                pool.close()


def _address(url: str) -> Address:
    try:
        return parse(url)
    except ValueError as error:
        raise FetchError(str(error), "protocol") from error
