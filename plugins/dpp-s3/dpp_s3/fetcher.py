"""Fetching objects: streamed, continued, and compared with what S3 says of their content."""

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

BLOCK = 64 * 1024  # boto3 hands out whole blocks only: larger ones would hide a server that has stalled, smaller ones are slow
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)", re.ASCII)
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')
_CHANGED = (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)


class S3Fetcher(BaseFetcher):
    """Fetch ``s3:`` URLs; ``?versionId=`` names a version.

    Content is verified where it is fetched from the beginning: against the checksum that S3 keeps (boto3 does that), and
    against the entity tag where that is an MD5. A part is continued only while the object's entity tag is the same.
    """

    Options = Connection
    settings: Settings

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._connection = settings.options_for("s3", Connection)
        self._was_used = False

    def fetch(self, url: str, file: FileData, part: Part) -> None:
        """Write the whole of an object into the part; see :class:`dpp.BaseFetcher`."""
        self._was_used = True
        try:
            self._fetch(url, part)
        except FetchError as error:
            if error.error_class == "checksum":
                part.begin()  # what came is wrong from some byte on: nothing of it is worth to be continued
            raise

    def _fetch(self, url: str, part: Part) -> None:
        from dpp_s3.client import client_for  # noqa: PLC0415 - boto3 takes long to import
        from dpp_s3.failures import mapped  # noqa: PLC0415

        asked = part.offset
        timer = http.TransferTimer(self.settings, part)
        with mapped(f"cannot fetch {location.shown(url)}"):
            answer = _asked(client_for(self._connection, self.settings), _request(url, part, asked), asked)
            with closing(answer["Body"]):
                _begin(answer, part, asked)
                _write(answer, part, timer)

    def close(self) -> None:
        """Close the connections, if there ever were any."""
        if self._was_used:
            from dpp_s3.client import release  # noqa: PLC0415

            release()


def _request(url: str, part: Part, asked: int) -> dict[str, str]:
    """Return the arguments of GetObject."""
    try:
        place = location.parse(url)
    except ValueError as error:
        raise FetchError(f"the URL {error}", "protocol") from error
    asked_for, _, version = place.query.partition("=")
    if not place.key or asked_for not in ("", "versionId") or "&" in version:
        raise FetchError("the URL should be s3://bucket/key, with ?versionId= at most", "protocol")
    request = {"Bucket": place.bucket, "Key": place.key}
    if asked_for:
        request["VersionId"] = unquote(version)
    if asked and part.etag:
        request |= {"Range": f"bytes={asked}-", "IfMatch": part.etag}
    return request


def _asked(client: Any, request: dict[str, str], asked: int) -> GetObjectOutputTypeDef:
    from botocore.exceptions import ClientError  # noqa: PLC0415

    try:
        answer: GetObjectOutputTypeDef = client.get_object(**request)
        return answer
    except ClientError as error:
        if asked and error.response["ResponseMetadata"]["HTTPStatusCode"] in _CHANGED:
            raise http.RangeRefused("the object has changed since its first bytes were fetched") from error
        raise


def _begin(answer: GetObjectOutputTypeDef, part: Part, asked: int) -> None:
    """Start writing where the answer begins."""
    offset, total = 0, answer.get("ContentLength")
    etag = answer.get("ETag", "")
    if answer["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.PARTIAL_CONTENT:
        offset, total = asked, _end_of_range(answer, asked)
        if etag != part.etag:
            raise http.RangeRefused("the object has changed, or the server does not say that it has not")
    part.begin(
        offset,
        total=total,
        etag=etag if _STRONG_ETAG.fullmatch(etag) else None,
        content_type=answer.get("ContentType"),
        last_modified=answer["LastModified"].isoformat() if "LastModified" in answer else None,
    )


def _end_of_range(answer: GetObjectOutputTypeDef, asked: int) -> int:
    """Return the size of the whole object, where an answer has it from the offset that was asked for to its end."""
    match = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
    total = int(match[3]) if match else 0
    if not asked or match is None or (int(match[1]), int(match[2])) != (asked, total - 1):
        raise http.RangeRefused("the server sent another range than was asked for")
    return total


def _write(answer: GetObjectOutputTypeDef, part: Part, timer: http.TransferTimer) -> None:
    expected = md5_of(answer) if answer["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.OK else None
    digest = hashlib.md5(usedforsecurity=False)
    while data := answer["Body"].read(BLOCK):
        timer.received(len(data))
        if expected:
            digest.update(data)
        part.write(data)
    if expected and digest.hexdigest() != expected:
        part.begin()  # what came is wrong from some byte on: nothing of it is worth to be continued
        raise FetchError(
            f"expected content with MD5 {expected} as its entity tag says, got {digest.hexdigest()}", "checksum", retryable=True
        )
