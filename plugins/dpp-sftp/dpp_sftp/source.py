"""The source: the files of a folder on a server, as entries of a manifest."""

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
    """A file that is wanted, and its detached signature.

    Attributes:
        file: The file.
        signature: The file of its signature, if there is one.
    """

    file: Found
    signature: Found | None

    @property
    def changed(self) -> int:
        """When the file or its signature was changed, whichever is later."""
        return max(self.file.mtime, self.signature.mtime if self.signature else 0)


def entries(files: str, settings: Settings) -> Iterator[Mapping[str, Any]]:
    """Return the entries of the folder that a URL names, sorted by path.

    Args:
        files: The URL, with a query that says which files are wanted; see :class:`dpp_sftp.query.FolderQuery`.
        settings: The settings of the run.

    Raises:
        ConfigurationError: The URL or an option makes no sense.
    """
    options = settings.options_for("sftp", SftpOptions)
    try:
        address = parse(files.partition("?")[0])
    except ValueError as error:
        raise ConfigurationError(f"--files sftp: {error}") from error
    return _entries(address, FolderQuery.read(files), options, settings)


def _entries(address: Address, wanted: FolderQuery, options: SftpOptions, settings: Settings) -> Iterator[Mapping[str, Any]]:
    """Yield the entries; the connection is closed before the first one."""
    from dpp_sftp import listing  # noqa: PLC0415 - takes its time; see the package

    async def listed(session: Session) -> tuple[list[Chosen], dict[bytes, bytes]]:
        found = await listing.find(session, address.path, recursive=wanted.recursive)
        chosen = choose(found, wanted, time.time())
        return chosen, await listing.contents(session, address.path, list(_small(chosen)))

    chosen, signatures = _persistently(lambda: _visit(address, options, settings, listed), address, settings)
    ids: set[str] = set()
    for file, signature in chosen:
        content = signatures.get(signature.path) if signature else None
        yield {**_entry(address, file, ids), **({} if content is None else {"signature": base64.b64encode(content).decode()})}


def choose(found: Sequence[Found], wanted: FolderQuery, now: float) -> list[Chosen]:
    """Return the files that are wanted, sorted by path.

    Args:
        found: All files.
        wanted: What was asked for.
        now: Seconds since 1970-01-01 UTC by this machine's clock.
    """
    matching = [file for file in found if wanted.matches(_text(file.path))]
    pairs = _signed(found, matching) if wanted.signatures else [Chosen(file, None) for file in matching]
    old = [pair for pair in pairs if not wanted.min_age or now - pair.changed >= wanted.min_age]
    if len(old) < len(pairs):
        log.info("left %d files alone that were changed within %g s (min_age)", len(pairs) - len(old), wanted.min_age)
    old.sort(key=lambda pair: pair.file.path)
    return list(wanted.page(old))


def _signed(found: Sequence[Found], matching: Sequence[Found]) -> list[Chosen]:
    """Return files with their signatures, and without those that are signatures of a file that matches."""
    by_path = {file.path: file for file in found}
    wanted = {file.path for file in matching}
    signatures = {path: by_path[path + suffix] for suffix in SIGNATURE_SUFFIXES[::-1] for path in wanted if path + suffix in by_path}
    taken = {path + suffix for path in wanted for suffix in SIGNATURE_SUFFIXES}
    return [Chosen(file, signatures.get(file.path)) for file in matching if file.path not in taken]


def _small(chosen: Iterable[Chosen]) -> Iterator[Found]:
    for file, signature in chosen:
        if signature is not None and signature.size <= LARGEST_SIGNATURE:
            yield signature
        elif signature is not None:
            log.warning("%s: its signature has %d bytes, more than %d; left out", _text(file.path), signature.size, LARGEST_SIGNATURE)


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
    """Return an id; names that are no UTF-8 may look like others once they are text."""
    while path in ids:
        path += "'"
    ids.add(path)
    return path


def _text(path: bytes) -> str:
    """Return a path as text; bytes that are no UTF-8 as a backslash, x and two digits."""
    return path.decode("utf-8", "backslashreplace")


def _visit(address: Address, options: SftpOptions, settings: Settings, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
    """Do something on the server, over a connection for this alone: nothing of it may be left when Luigi forks."""
    from dpp_sftp.connector import Connector  # noqa: PLC0415 - likewise

    connection = Connector(address.server, options, settings).connect()
    try:
        return connection.run(work, http.TransferTimer(settings))
    finally:
        connection.close()


def _persistently(visit: Callable[[], T], address: Address, settings: Settings) -> T:
    """Try as often as files are tried."""
    for attempt in count(1):
        try:
            return visit()
        except FetchError as error:
            if not error.retryable or attempt >= settings.attempts:
                raise InputError(f"cannot list files of {address.server} ({error.error_class}): {error}") from error
            log.info("cannot list files of %s yet: %s", address.server, error)
        time.sleep(min(settings.retry_wait * 2 ** (attempt - 1), settings.retry_wait_max))
    raise AssertionError("count() has no end")
