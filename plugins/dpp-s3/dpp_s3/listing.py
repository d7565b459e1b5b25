"""Listing a bucket: ``--files s3://bucket/prefix/?pattern=*.csv``, and the same for scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dpp import ConfigurationError, DppError, EnvironmentStop, FetchError, FileData, Settings, SourceQuery

from dpp_s3 import location
from dpp_s3.connection import Connection

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import ListObjectsV2OutputTypeDef, ObjectTypeDef

_WRONG = frozenset({"bucket", "credentials", "not-found", "permission"})


class PrefixQuery(SourceQuery):
    """Which objects are wanted; see :class:`dpp.SourceQuery`. S3 has no folders, so all below the prefix are, by default."""

    recursive: bool = True


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
        query = PrefixQuery(pattern=(pattern,) if pattern else (), recursive=recursive, offset=offset, limit=limit)
        return map(FileData.model_validate, self.entries(query))

    def entries(self, query: SourceQuery) -> Iterator[dict[str, Any]]:
        """Yield what :meth:`list_files` does, as entries of a manifest.

        Each has ``url``, ``id`` (the key below the prefix), ``name``, ``size`` in bytes, ``etag``, and ``mtime`` in seconds
        since 1970-01-01 UTC. The empty objects that stand for folders, whose keys end with ``/``, are left out.
        """
        objects = (found for page in self._pages(query.recursive) for found in page.get("Contents", ()))
        entries = (self._entry(found) for found in objects if not found["Key"].endswith("/"))
        return query.page(entry for entry in entries if query.matches(entry["id"]))

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


def listed(url: str, settings: Settings) -> Iterator[dict[str, Any]]:
    """Return the files behind a URL, as entries of a manifest.

    Args:
        url: ``s3://bucket/prefix`` with ``pattern``, ``offset``, ``limit`` and ``recursive`` as parameters, if any.
        settings: The settings; the connection's options stand under ``s3``.

    Raises:
        ConfigurationError: The URL or an option is wrong.
    """
    try:
        place = location.parse(url)
    except ValueError as error:
        raise ConfigurationError(f"--files {location.shown(url)}: {error}") from error
    return S3Files(place.bucket, place.key, settings=settings).entries(PrefixQuery.read(url))
