"""Download objects as streams, resume them, and verify their checksums."""

from __future__ import annotations

import hashlib
import re
from contextlib import closing
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from dpp import BaseFetcher, FetchError, FileData, Part, Settings, http

from dpp_s3 import location
from dpp_s3.connection import Connection
from dpp_s3.etags import md5_of

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef

BLOCK = 64 * 1024  # bytes; boto3 returns full blocks only, so larger ones hide a server that stalls, and smaller ones are slow
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)", re.ASCII)
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')
_CHANGED = (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)


class S3Fetcher(BaseFetcher):
    """Download ``s3:`` URLs; ``?versionId=`` selects a version.

    A complete download is verified with the checksum that S3 stores, and with the entity tag if it is an MD5. A partial
    download is resumed only if the object's entity tag is still the same.
    """

    Options = Connection
    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._connection = settings.options_for("s3", Connection)
        # A variable that names no certificates is found before anything is fetched
        http.authorities("AWS_CA_BUNDLE")
        self._was_used = False

    def fetch(self, url: str, file: FileData, part: Part) -> None:
        """Download an object into the part; see :class:`dpp.BaseFetcher`."""
        self._was_used = True
        try:
            self._fetch(url, file, part)
        except FetchError as error:
            # Discard the part: an unknown byte of it is wrong, so that it must not be resumed
            if error.error_class == "checksum":
                part.begin()
            raise

    def source_version(self, url: str, file: FileData) -> str | None:
        """Return the entity tag, from the manifest or else from the server; see :class:`dpp.BaseFetcher`."""
        from dpp_s3.client import client_for  # noqa: PLC0415 - boto3 takes long to import
        from dpp_s3.failures import attempted  # noqa: PLC0415

        request: Any = _object(url)
        # The content of a version never changes, and a bucket's listing has the tags: neither costs a request
        if "VersionId" in request or (listed := _listed_version(file)):
            return None if "VersionId" in request else listed
        self._was_used = True
        try:
            what = f"cannot look at {location.shown(url)}"
            head = attempted(self.settings, what, lambda: client_for(self._connection, self.settings).head_object(**request))
        except FetchError as error:
            if error.error_class == "not-found":
                return None
            raise
        return _bare(head.get("ETag"))

    def _fetch(self, url: str, file: FileData, part: Part) -> None:
        from dpp_s3.client import client_for  # noqa: PLC0415 - boto3 takes long to import
        from dpp_s3.failures import mapped  # noqa: PLC0415

        requested_offset = part.offset
        timer = http.TransferTimer(self.settings, part)
        with mapped(f"cannot fetch {location.shown(url)}"):
            response = _get_object(client_for(self._connection, self.settings), _request(url, part, requested_offset), requested_offset)
            with closing(response["Body"]):
                _begin(response, part, requested_offset, _listed_version(file))
                _write(response, part, timer)

    def close(self) -> None:
        """Close the connections."""
        # Do not import boto3 only to close connections that were never opened
        if self._was_used:
            from dpp_s3.client import release  # noqa: PLC0415

            release()


def _listed_version(file: FileData) -> str | None:
    """Return the entity tag that a listing has put into the manifest, or None."""
    return _bare(getattr(file, "etag", None))


def _bare(etag: object) -> str | None:
    """Return an entity tag without quotes, or None if there is none."""
    return etag.strip('"') or None if isinstance(etag, str) else None


def _request(url: str, part: Part, requested_offset: int) -> dict[str, str]:
    """Return the arguments of GetObject."""
    request = _object(url)
    if requested_offset and part.etag:
        request |= {"Range": f"bytes={requested_offset}-", "IfMatch": part.etag}
    return request


def _object(url: str) -> dict[str, str]:
    """Return the bucket, the key and, if the URL has one, the version of an object, as arguments of boto3."""
    try:
        place = location.parse(url)
    except ValueError as error:
        raise FetchError(f"invalid URL: {error}", "protocol") from error
    asked_for, _, version = place.query.partition("=")
    if not place.key or asked_for not in ("", "versionId") or "&" in version:
        raise FetchError("invalid URL: expected s3://bucket/key, optionally with ?versionId=", "protocol")
    request = {"Bucket": place.bucket, "Key": place.key}
    if asked_for:
        request["VersionId"] = unquote(version)
    return request


def _get_object(client: Any, request: dict[str, str], requested_offset: int) -> GetObjectOutputTypeDef:
    from botocore.exceptions import ClientError  # noqa: PLC0415

    try:
        response: GetObjectOutputTypeDef = client.get_object(**request)
        return response
    except ClientError as error:
        if requested_offset and error.response["ResponseMetadata"]["HTTPStatusCode"] in _CHANGED:
            raise http.RangeRefused("the object has changed since the download started") from error
        raise


def _begin(response: GetObjectOutputTypeDef, part: Part, requested_offset: int, listed: str | None) -> None:
    """Start the part at the offset of the response."""
    offset, total = 0, response.get("ContentLength")
    etag = response.get("ETag", "")
    if response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.PARTIAL_CONTENT:
        offset, total = requested_offset, _end_of_range(response, requested_offset)
        if etag != part.etag:
            raise http.RangeRefused("the object has changed, or the response has no entity tag to compare")
    part.begin(
        offset,
        total=total,
        etag=etag if _STRONG_ETAG.fullmatch(etag) else None,
        # The tag of the listing, with which the next listing is compared: an object replaced since is then downloaded again
        source_version=listed or _bare(etag),
        content_type=response.get("ContentType"),
        last_modified=response["LastModified"].isoformat() if "LastModified" in response else None,
    )


def _end_of_range(response: GetObjectOutputTypeDef, requested_offset: int) -> int:
    """Return the size of the object, in bytes, from a response that has its bytes from the requested offset to the end."""
    match = _CONTENT_RANGE.fullmatch(response.get("ContentRange", ""))
    total = int(match[3]) if match else 0
    if not requested_offset or match is None or (int(match[1]), int(match[2])) != (requested_offset, total - 1):
        raise http.RangeRefused("the server sent another range than requested")
    return total


def _write(response: GetObjectOutputTypeDef, part: Part, timer: http.TransferTimer) -> None:
    expected = md5_of(response) if response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.OK else None
    digest = hashlib.md5(usedforsecurity=False)
    while data := response["Body"].read(BLOCK):
        timer.received(len(data))
        if expected:
            digest.update(data)
        part.write(data)
    if expected and digest.hexdigest() != expected:
        part.begin()
        raise FetchError(f"expected MD5 {expected} (the entity tag), got {digest.hexdigest()}", "checksum", retryable=True)
