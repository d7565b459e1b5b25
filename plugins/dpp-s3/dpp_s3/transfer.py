"""Upload one object, completely or not at all."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dpp import FetchError, Settings, StageError

from dpp_s3.content import Content
from dpp_s3.etags import digest_of
from dpp_s3.failures import attempted, fact, mapped
from dpp_s3.location import object_url

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client
    from types_boto3_s3.type_defs import CompletedPartTypeDef

log = logging.getLogger("dpp.s3")


class Transfer:
    """Upload content to one key of a bucket.

    Args:
        client: The client that sends the requests.
        settings: Settings with ``attempts`` and the waits between them.
        bucket: Name of the bucket.
        key: Key of the object.
    """

    def __init__(self, client: S3Client, settings: Settings, bucket: str, key: str) -> None:
        self._client = client
        self._settings = settings
        self._object: Any = {"Bucket": bucket, "Key": key}
        self._where = object_url(bucket, key)
        self._what = f"cannot upload {self._where}"

    def put(self, content: Content, if_exists: str) -> None:
        """Upload the content, unless an object exists that is to be kept.

        Args:
            content: The content to upload.
            if_exists: ``skip``, ``overwrite`` or ``fail``.

        Raises:
            StageError: The upload failed; nothing of it is left in the bucket.
        """
        there = None if if_exists == "overwrite" else self._head()
        if there is not None:
            self._judge(there, content, if_exists)
        elif if_exists == "overwrite":
            self._send(content, {})
        elif (found := self._sent_unless_there(content)) is not None:
            # "fail" even with if_exists=skip: an object that appears during the upload is from another file with the same key
            self._judge(found, content, "fail")

    def _head(self) -> Any:
        """Return the response of HeadObject, or None if the object does not exist."""
        try:
            return attempted(self._settings, self._what, lambda: self._client.head_object(**self._object))
        except FetchError as error:
            if error.error_class == "not-found":
                return None
            raise

    def _judge(self, there: Any, content: Content, if_exists: str) -> None:
        """Accept an existing object, or raise StageError."""
        same = _is_same(there, content)
        if same or (if_exists == "skip" and same is None):
            log.debug("%s exists already", self._where)
            return
        sizes = f"{fact(there, 'ContentLength')} bytes, {content.name} has {content.size}"
        if if_exists != "skip":
            raise StageError(f"{self._where} exists already with other content ({sizes}); to replace it, set if_exists=overwrite", "exists")
        log.warning("%s exists already with other content (%s); skipped (if_exists=skip)", self._where, sizes)

    def _sent_unless_there(self, content: Content) -> Any:
        """Upload the content and return None, or return the response of HeadObject for an object that exists."""
        try:
            self._send(content, {"IfNoneMatch": "*"})
        except FetchError as error:
            # The server does not support conditional requests
            if error.error_class == "not-offered":
                self._send(content, {})
            elif error.error_class != "exists" or (there := self._head()) is None:
                raise
            else:
                return there
        return None

    def _send(self, content: Content, conditions: dict[str, Any]) -> None:
        """Upload the content and verify the object."""
        response = self._send_parts(content, conditions) if content.is_large else self._send_whole(content, conditions)
        try:
            there = attempted(self._settings, self._what, lambda: self._client.head_object(**self._object))
        except FetchError as error:
            # Credentials that allow only writing: the entity tag of the upload's response was verified already
            if error.error_class != "permission":
                raise
            return
        if _is_same(there, content) is False:
            # With another entity tag, another client has replaced the object
            if there.get("ETag") == response["ETag"]:
                self._withdraw()
            raise self._damaged(f"the object has {there['ContentLength']} bytes and the entity tag {there.get('ETag')}")

    def _send_whole(self, content: Content, conditions: dict[str, Any]) -> Any:
        def once() -> Any:
            response: Any = self._client.put_object(**self._object, **content.part(0), **conditions)
            etag = fact(response, "ETag")
            if _differ(digest_of(response), content.digest):
                self._withdraw()
                raise self._damaged(f"the server returned the entity tag {etag}")
            return response

        return attempted(self._settings, self._what, once)

    def _damaged(self, got: str) -> FetchError:
        return FetchError(f"{self._what}: the data was damaged during the upload: {got}", "checksum", retryable=True)

    def _withdraw(self) -> None:
        """Delete an object that arrived damaged."""
        try:
            with mapped(f"cannot delete {self._where}"):
                self._client.delete_object(**self._object)
        except FetchError as error:
            log.warning("%s; the object is damaged, so delete it", error)

    def _send_parts(self, content: Content, conditions: dict[str, Any]) -> Any:
        upload = self._object | {"UploadId": self._begun()}
        try:
            parts = [self._send_part(upload, number, content) for number in range(content.part_count)]
            return self._completed(upload, parts, content, conditions)
        except BaseException:
            self._abort(upload)
            raise

    def _begun(self) -> str:
        """Start a multipart upload, and return its id."""

        def once() -> str:
            # Left by a run that was killed, or by an attempt whose response was lost; the server bills for their parts
            self._abort_leftovers()
            return str(fact(self._client.create_multipart_upload(**self._object), "UploadId"))

        try:
            return attempted(self._settings, self._what, once)
        except BaseException:
            with suppress(FetchError):
                self._abort_leftovers()
            raise

    def _abort_leftovers(self) -> None:
        """Abort every unfinished upload to this key."""
        try:
            with mapped(f"cannot list unfinished uploads to {self._where}"):
                pages = self._client.get_paginator("list_multipart_uploads").paginate(
                    Bucket=self._object["Bucket"], Prefix=self._object["Key"]
                )
                found = [upload for page in pages for upload in page.get("Uploads", ())]
        except FetchError as error:
            if error.retryable:
                raise
            log.info("%s; parts that a killed run has left there are not removed", error)
            return
        for upload in found:
            # The listing has all keys with this prefix
            if upload["Key"] == self._object["Key"]:
                self._abort(self._object | {"UploadId": upload["UploadId"]})

    def _send_part(self, upload: Any, number: int, content: Content) -> CompletedPartTypeDef:
        def once() -> str:
            response: Any = self._client.upload_part(**upload, PartNumber=number + 1, **content.part(number))
            etag = str(fact(response, "ETag"))
            if _differ(digest_of(response), content.digests[number].hex()):
                raise self._damaged(f"the server returned the entity tag {etag} for part {number + 1}")
            return etag

        return {"PartNumber": number + 1, "ETag": attempted(self._settings, self._what, once)}

    def _completed(self, upload: Any, parts: list[CompletedPartTypeDef], content: Content, conditions: dict[str, Any]) -> Any:
        """Complete a multipart upload, and return the response or that of HeadObject."""
        chosen: Any = {**upload, "MultipartUpload": {"Parts": parts}, **conditions}
        try:
            return attempted(self._settings, self._what, lambda: self._client.complete_multipart_upload(**chosen))
        except FetchError as error:
            # The upload does not exist any more if an earlier attempt completed it and its response was lost
            there = self._head() if error.error_class == "upload-gone" else None
            if there is None or not _is_same(there, content):
                raise
            return there

    def _abort(self, upload: Any) -> None:
        """Abort a multipart upload, which deletes its parts."""
        try:
            attempted(self._settings, f"cannot abort the upload to {self._where}", lambda: self._client.abort_multipart_upload(**upload))
        except FetchError as error:
            if error.error_class not in ("upload-gone", "not-found"):
                log.warning("%s; the next upload to this key will try again", error)


def _is_same(there: Any, content: Content) -> bool | None:
    """Return whether an object has this content, or None if the size is equal and the entity tag cannot be compared."""
    if fact(there, "ContentLength") != content.size:
        return False
    digest = digest_of(there)
    if digest is None or _form(digest) != _form(content.digest):
        return None
    return digest == content.digest


def _differ(got: str | None, sent: str) -> bool:
    return got is not None and _form(got) == _form(sent) and got != sent


def _form(digest: str) -> str:
    """Return the number of parts in a digest, or "" for a digest of the whole object."""
    # Only digests with the same number of parts can be compared
    return digest.partition("-")[2]
