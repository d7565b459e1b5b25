"""List a bucket, for ``--files s3://bucket/prefix/?pattern=*.csv`` and for scripts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dpp import ConfigurationError, DppError, EnvironmentStop, FetchError, FileData, Settings, SourceQuery

from dpp_s3 import location
from dpp_s3.connection import Connection

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import ListObjectsV2OutputTypeDef, ObjectTypeDef

MOST_EMPTY_PAGES = 1000  # one after another; S3 sends some where many objects were deleted
_WRONG = frozenset({"bucket", "credentials", "not-found", "permission"})


class PrefixQuery(SourceQuery):
    """The query of an ``s3:`` URL; see :class:`dpp.SourceQuery`."""

    # S3 has no folders, so the default is all objects below the prefix
    recursive: bool = True


class S3Files:
    """The objects of a bucket, as files for dpp.

    Args:
        bucket: Name of the bucket.
        prefix: Start of their keys, such as ``data/``.
        settings: Attempts, waits and time limits; None for dpp's defaults.
        connection: ``endpoint_url``, ``region``, ``profile``, ``credentials_file``, ``addressing_style``;
            see :class:`dpp_s3.connection.Connection`.

    Raises:
        ConfigurationError: The options of the connection are invalid.

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
        """Yield the files, sorted by key.

        Args:
            offset: Number of files to skip at the start.
            limit: Maximum number of files, or None for all.
            pattern: Pattern of the names (:mod:`fnmatch`, case-sensitive); with a ``/``, pattern of the ids.
            recursive: Whether to include objects with a ``/`` in their key after the prefix.

        Raises:
            ConfigurationError: The bucket does not exist, or the credentials are not accepted.
            EnvironmentStop: The server does not respond.
        """
        query = PrefixQuery(pattern=(pattern,) if pattern else (), recursive=recursive, offset=offset, limit=limit)
        return map(FileData.model_validate, self.entries(query))

    def entries(self, query: SourceQuery) -> Iterator[dict[str, Any]]:
        """Yield the files as entries of a manifest; see :meth:`list_files`.

        Each has ``url``, ``id`` (the key below the prefix), ``name``, ``size`` in bytes, ``etag``, and ``mtime`` in seconds
        since 1970-01-01 UTC.
        """
        # Keys that end with a slash are empty objects that some tools create as folders
        objects = (self._checked(found) for page in self._pages(query.recursive) for found in page.get("Contents", ()))
        entries = (self._entry(found) for found in objects if not found["Key"].endswith("/"))
        return query.page(entry for entry in entries if query.matches(entry["id"]))

    def _checked(self, found: ObjectTypeDef) -> ObjectTypeDef:
        """Return an object of the listing, if a listing of this prefix can have it."""
        key: Any = found.get("Key")
        # botocore returns what the XML has: other types for repeated or missing elements
        if not (isinstance(key, str) and key and key.startswith(self._prefix) and found.get("Size", -1) >= 0):
            raise EnvironmentStop(
                f"cannot list {self._where}: the server listed an object without size, or with a key outside the prefix; check endpoint_url"
            )
        return found

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
        """Yield the pages of the listing (ListObjectsV2)."""
        request: dict[str, str] = {"Bucket": self._bucket, "Prefix": self._prefix} | ({} if recursive else {"Delimiter": "/"})
        # A faulty server could send the same pages forever, or empty ones
        seen, empty = {""}, 0
        while True:
            page = self._page(request)
            if "IsTruncated" not in page:
                raise ConfigurationError(f"cannot list {self._where}: the response is not that of an S3 server; check endpoint_url")
            yield page
            if not page.get("IsTruncated"):
                return
            token = page.get("NextContinuationToken", "")
            empty = 0 if page.get("Contents") or page.get("CommonPrefixes") else empty + 1
            if token in seen or empty > MOST_EMPTY_PAGES:
                problem = (
                    f"sent {empty} empty pages" if empty > MOST_EMPTY_PAGES else "announced another page without a new continuation token"
                )
                raise EnvironmentStop(f"cannot list {self._where}: the server {problem}; no file was downloaded")
            seen.add(token)
            request["ContinuationToken"] = token

    def _page(self, request: Mapping[str, Any]) -> ListObjectsV2OutputTypeDef:
        from dpp_s3.client import client_for  # noqa: PLC0415 - boto3 takes long to import
        from dpp_s3.failures import attempted  # noqa: PLC0415

        what = f"cannot list {self._where}"
        try:
            client = client_for(self._connection, self._settings)
            return attempted(self._settings, what, lambda: client.list_objects_v2(**request))
        except FetchError as error:
            kind: type[DppError] = ConfigurationError if error.error_class in _WRONG else EnvironmentStop
            raise kind(str(error)) from error


def listed(url: str, settings: Settings) -> Iterator[dict[str, Any]]:
    """Return the files of a URL, as entries of a manifest.

    Args:
        url: ``s3://bucket/prefix``, optionally with the parameters ``pattern``, ``offset``, ``limit`` and ``recursive``.
        settings: The settings; ``options["s3"]`` has the options of the connection.

    Raises:
        ConfigurationError: The URL or an option is invalid.
    """
    try:
        place = location.parse(url)
    except ValueError as error:
        raise ConfigurationError(f"--files {location.shown(url)}: {error}") from error
    return S3Files(place.bucket, place.key, settings=settings).entries(PrefixQuery.read(url))
