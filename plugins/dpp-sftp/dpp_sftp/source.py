"""The source for ``sftp:`` URLs: the files of a folder, as entries of a manifest."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from dpp import ConfigurationError, FetchError, InputError, Settings, http

from dpp_sftp.address import Address, parse
from dpp_sftp.options import SftpOptions
from dpp_sftp.query import FolderQuery

if TYPE_CHECKING:
    from dpp_sftp.listing import Found
    from dpp_sftp.session import Session

log = logging.getLogger(__name__)

T = TypeVar("T")
SIGNATURE_SUFFIXES = (b".sig", b".asc")
LARGEST_SIGNATURE = 64 * 1024


class Chosen(NamedTuple):
    """A selected file, and its detached signature.

    Attributes:
        file: The file.
        signature: The file with its signature, or None.
    """

    file: Found
    signature: Found | None

    @property
    def changed(self) -> int:
        """Time of the last change of the file or its signature, in seconds since 1970-01-01 UTC."""
        return max(self.file.mtime, self.signature.mtime if self.signature else 0)


def entries(files: str, settings: Settings) -> Iterator[Mapping[str, Any]]:
    """Return the entries of a folder, sorted by path.

    Args:
        files: URL of the folder, with an optional query; see :class:`dpp_sftp.query.FolderQuery`.
        settings: The settings of the run.

    Raises:
        ConfigurationError: The URL or an option is invalid.
    """
    options = settings.options_for("sftp", SftpOptions)
    try:
        address = parse(files.partition("?")[0])
    except ValueError as error:
        raise ConfigurationError(f"--files sftp: {error}") from error
    return _entries(address, FolderQuery.read(files), options, settings)


def _entries(address: Address, wanted: FolderQuery, options: SftpOptions, settings: Settings) -> Iterator[Mapping[str, Any]]:
    """Yield the entries; the connection is closed before the first one."""
    from dpp_sftp import listing  # noqa: PLC0415 - imports asyncssh, which is slow

    async def listed(session: Session) -> tuple[list[Chosen], dict[bytes, bytes]]:
        found = await listing.find(session, address.path, recursive=wanted.recursive)
        chosen = choose(found, wanted, time.time())
        return chosen, await listing.contents(session, address.path, list(_signatures_to_read(chosen)))

    chosen, signatures = _persistently(lambda: _visit(address, options, settings, listed), address, settings)
    ids: set[str] = set()
    for file, signature in chosen:
        content = signatures.get(signature.path) if signature else None
        yield {**_entry(address, file, ids), **({} if content is None else {"signature": base64.b64encode(content).decode()})}


def choose(found: Sequence[Found], wanted: FolderQuery, now: float) -> list[Chosen]:
    """Return the files that match a query, sorted by path.

    Args:
        found: All files of the folder.
        wanted: The query.
        now: Current time of this machine, in seconds since 1970-01-01 UTC.
    """
    matching = [file for file in found if wanted.matches(_text(file.path))]
    pairs = _signed(found, matching) if wanted.signatures else [Chosen(file, None) for file in matching]
    old = [pair for pair in pairs if not wanted.min_age or now - pair.changed >= wanted.min_age]
    if len(old) < len(pairs):
        log.info("skipped %d files that changed within the last %g s (min_age)", len(pairs) - len(old), wanted.min_age)
    old.sort(key=lambda pair: pair.file.path)
    return list(wanted.page(old))


def _signed(found: Sequence[Found], matching: Sequence[Found]) -> list[Chosen]:
    """Return files with their signatures; signatures of matching files are not files themselves."""
    by_path = {file.path: file for file in found}
    wanted = {file.path for file in matching}
    signatures = {path: by_path[path + suffix] for suffix in SIGNATURE_SUFFIXES[::-1] for path in wanted if path + suffix in by_path}
    taken = {path + suffix for path in wanted for suffix in SIGNATURE_SUFFIXES}
    return [Chosen(file, signatures.get(file.path)) for file in matching if file.path not in taken]


def _signatures_to_read(chosen: Iterable[Chosen]) -> Iterator[Found]:
    for file, signature in chosen:
        if signature is not None and signature.size <= LARGEST_SIGNATURE:
            yield signature
        elif signature is not None:
            log.warning(
                "%s: its signature has %d bytes, more than %d; signature skipped", _text(file.path), signature.size, LARGEST_SIGNATURE
            )


def _entry(address: Address, file: Found, ids: set[str]) -> dict[str, Any]:
    path = _text(file.path or address.path)
    return {
        "url": address.url(file.path),
        "id": _unique(path, ids),
        "name": path.rstrip("/").rpartition("/")[2] or path,
        "size": file.size,
        "mtime": datetime.fromtimestamp(file.mtime, UTC).isoformat().replace("+00:00", "Z"),
    }


def _unique(path: str, ids: set[str]) -> str:
    """Return a path as an id that is not used yet."""
    # Two names that are not UTF-8 may have the same text
    while path in ids:
        path += "'"
    ids.add(path)
    return path


def _text(path: bytes) -> str:
    """Return a path as text; bytes that are not UTF-8 become ``\\x`` and two digits."""
    return path.decode("utf-8", "backslashreplace")


def _visit(address: Address, options: SftpOptions, settings: Settings, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine over a new connection, and return its result."""
    from dpp_sftp.connector import Connector  # noqa: PLC0415 - imports asyncssh

    # Not a connection of the pool: none may be open when Luigi forks
    connection = Connector(address.server, options, settings).connect()
    try:
        return connection.run(work, http.TransferTimer(settings))
    finally:
        connection.close()


def _persistently(visit: Callable[[], T], address: Address, settings: Settings) -> T:
    """Call a function until it succeeds, with the attempts and waits of the settings."""
    for attempt in count(1):
        try:
            return visit()
        except FetchError as error:
            if not error.retryable or attempt >= settings.attempts:
                raise InputError(f"cannot list files of {address.server} ({error.error_class}): {error}") from error
            log.info("cannot list files of %s, trying again: %s", address.server, error)
        time.sleep(min(settings.retry_wait * 2 ** (attempt - 1), settings.retry_wait_max))
    raise AssertionError("count() has no end")
