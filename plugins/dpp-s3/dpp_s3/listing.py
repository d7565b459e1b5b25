"""Listing a bucket: ``--files s3://bucket/prefix/?pattern=*.csv``, and the same for scripts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from dpp import ConfigurationError, DppError, EnvironmentStop, FetchError, FileData, Settings

from dpp_s3 import location
from dpp_s3.connection import Connection

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import ListObjectsV2OutputTypeDef, ObjectTypeDef

_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_PARAMETERS = ("pattern", "offset", "limit", "recursive")
_WRONG = frozenset({"bucket", "credentials", "not-found", "permission"})


class S3Files:
    """The objects of a bucket, as files for dpp.

    Args:
        bucket: Name of the bucket.
        prefix: What their keys begin with, such as ``data/``.
        settings: Attempts, waits and time limits; dpp's defaults if None.
        connection: ``endpoint_url``, ``region``, ``profile``, ``credentials_file``, ``addressing_style``;
            see :class:`dpp_s3.connection.Connection`.

    Raises:
        ConfigurationError: The connection's options are wrong.

    Example:
        >>> for file in S3Files("bucket", "data/", profile="acme").list_files(limit=4):
        ...     print(file.id, file.size)
    """

    def __init__(self, bucket: str, prefix: str = "", *, settings: Settings | None = None, **connection: Any) -> None:
        self._settings = settings or Settings()
        options = self._settings.options.get("s3", {}) | connection
        self._connection = self._settings.model_copy(update={"options": {"s3": options}}).options_for("s3", Connection)
        self._bucket = bucket
        self._prefix = prefix
        self._where = location.object_url(bucket, prefix)

    def list_files(self, offset: int = 0, limit: int | None = None, *, pattern: str = "", recursive: bool = True) -> Iterator[FileData]:
        """Yield the files, in the order of their keys.

        Args:
            offset: How many to leave out at the beginning.
            limit: How many to yield at most.
            pattern: What names have to look like (:mod:`fnmatch`, case counts); with a ``/`` in it, what ids have to.
            recursive: Whether to go into what looks like folders below the prefix.

        Raises:
            ConfigurationError: There is no such bucket, or the credentials do not do.
            EnvironmentStop: The server does not answer.
        """
        for entry in self.entries(offset, limit, pattern=pattern, recursive=recursive):
            yield FileData.model_validate(entry)

    def entries(self, offset: int = 0, limit: int | None = None, *, pattern: str = "", recursive: bool = True) -> Iterator[dict[str, Any]]:
        """Yield what :meth:`list_files` does, as entries of a manifest.

        Each has ``url``, ``id`` (the key below the prefix), ``name``, ``size`` in bytes, ``etag``, and ``mtime`` in seconds
        since 1970-01-01 UTC. The empty objects that stand for folders, whose keys end with ``/``, are left out.
        """
        stop = None if limit is None else offset + limit
        if stop == 0:
            return
        objects = (found for page in self._pages(recursive) for found in page.get("Contents", ()))
        made = (self._entry(found) for found in objects if not found["Key"].endswith("/"))
        wanted = (entry for entry in made if not pattern or _matches(entry, pattern))
        yield from itertools.islice(wanted, offset, stop)

    def _entry(self, found: ObjectTypeDef) -> dict[str, Any]:
        key = found["Key"]
        entry: dict[str, Any] = {"url": location.object_url(self._bucket, key), "id": key[self._prefix.rfind("/") + 1 :]}
        entry |= {"name": key.rpartition("/")[2], "size": found["Size"]}
        if "ETag" in found:
            entry["etag"] = found["ETag"].strip('"')
        if "LastModified" in found:
            entry["mtime"] = found["LastModified"].timestamp()
        return entry

    def _pages(self, recursive: bool) -> Iterator[ListObjectsV2OutputTypeDef]:
        """Yield the pages of the listing (ListObjectsV2), each asked for until it comes."""
        asked: dict[str, str] = {"Bucket": self._bucket, "Prefix": self._prefix} | ({} if recursive else {"Delimiter": "/"})
        seen = ""
        while True:
            page = self._page(asked)
            if "IsTruncated" not in page:
                raise ConfigurationError(f"cannot list {self._where}: the answer is not that of an S3 server; check endpoint_url")
            yield page
            if not page.get("IsTruncated"):
                return
            token = page.get("NextContinuationToken", "")
            if token in ("", seen):
                raise EnvironmentStop(f"cannot list {self._where}: the server says that there is more, but not where; nothing was fetched")
            asked["ContinuationToken"] = seen = token

    def _page(self, asked: Mapping[str, Any]) -> ListObjectsV2OutputTypeDef:
        from dpp_s3.client import client_for  # noqa: PLC0415 - boto3 takes long to import
        from dpp_s3.failures import attempted  # noqa: PLC0415

        what = f"cannot list {self._where}"
        try:
            client = client_for(self._connection, self._settings)
            return attempted(self._settings, what, lambda: client.list_objects_v2(**asked))
        except FetchError as error:
            kind: type[DppError] = ConfigurationError if error.error_class in _WRONG else EnvironmentStop
            raise kind(str(error)) from error


def _matches(entry: Mapping[str, Any], pattern: str) -> bool:
    return fnmatchcase(entry["id" if "/" in pattern else "name"], pattern)


def listed(url: str, settings: Settings) -> Iterator[dict[str, Any]]:
    """Return the files behind a URL, as entries of a manifest.

    Args:
        url: ``s3://bucket/prefix`` with ``pattern``, ``offset``, ``limit`` and ``recursive`` as parameters, if any.
        settings: The settings; the connection's options stand under ``s3``.

    Raises:
        ConfigurationError: The URL or an option is wrong.
    """
    where = location.shown(url)
    try:
        place = location.parse(url)
        chosen = _chosen(place.query)
    except ValueError as error:
        raise ConfigurationError(f"--files {where}: {error}") from error
    return S3Files(place.bucket, place.key, settings=settings).entries(**chosen)


def _chosen(query: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of a listing that a URL's parameters spell."""
    unknown = sorted(set(query) - set(_PARAMETERS))
    if unknown:
        raise ValueError(f"unknown parameters {', '.join(unknown)}; there are {', '.join(_PARAMETERS)}")
    chosen: dict[str, Any] = {name: _count(name, query[name]) for name in ("offset", "limit") if name in query}
    if "pattern" in query:
        chosen["pattern"] = query["pattern"]
    if "recursive" in query:
        if query["recursive"].lower() not in _FLAGS:
            raise ValueError("recursive should be true or false")
        chosen["recursive"] = _FLAGS[query["recursive"].lower()]
    return chosen


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{name} should be a number of files, such as {name}=4")
    return int(text)
