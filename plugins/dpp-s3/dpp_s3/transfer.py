"""Putting one object into a bucket, so that it is there as a whole, or not at all."""

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
    """One key of a bucket, and how content gets there.

    Args:
        client: The client to ask with.
        settings: Attempts and the waits between them.
        bucket: The bucket.
        key: The key.
    """

    def __init__(self, client: S3Client, settings: Settings, bucket: str, key: str) -> None:
        self._client = client
        self._settings = settings
        self._object: Any = {"Bucket": bucket, "Key": key}
        self._where = object_url(bucket, key)
        self._what = f"cannot upload {self._where}"

    def put(self, content: Content, if_exists: str) -> None:
        """Upload the content, or leave what is there.

        An object that appears between the look and the upload fails the file unless it is the same: it is from another file
        with the same key.

        Args:
            content: What to upload.
            if_exists: ``skip``, ``overwrite`` or ``fail``.

        Raises:
            StageError: It was not uploaded; nothing of it is left in the bucket.
        """
        there = None if if_exists == "overwrite" else self._head()
        if there is not None:
            self._judge(there, content, if_exists)
        elif if_exists == "overwrite":
            self._send(content, {})
        elif (found := self._sent_unless_there(content)) is not None:
            self._judge(found, content, "fail")

    def _head(self) -> Any:
        """Return what the server says of the object, or None where there is none."""
        try:
            return attempted(self._settings, self._what, lambda: self._client.head_object(**self._object))
        except FetchError as error:
            if error.error_class == "not-found":
                return None
            raise

    def _judge(self, there: Any, content: Content, if_exists: str) -> None:
        """Accept an object that is there, or fail the file."""
        same = _is_same(there, content)
        if same or (if_exists == "skip" and same is None):
            log.debug("%s is there already", self._where)
            return
        sizes = f"{fact(there, 'ContentLength')} bytes, {content.name} has {content.size}"
        if if_exists != "skip":
            raise StageError(f"{self._where} is there already with other content ({sizes}); if_exists=overwrite replaces it", "exists")
        log.warning("%s is there already with other content (%s); left as it is (if_exists=skip)", self._where, sizes)

    def _sent_unless_there(self, content: Content) -> Any:
        """Upload the content; return what the server says of an object that was in the way, or None."""
        try:
            self._send(content, {"IfNoneMatch": "*"})
        except FetchError as error:
            if error.error_class == "not-offered":
                self._send(content, {})
            elif error.error_class != "exists" or (there := self._head()) is None:
                raise
            else:
                return there
        return None

    def _send(self, content: Content, conditions: dict[str, Any]) -> None:
        """Upload the content and make sure that it arrived."""
        answer = self._send_parts(content, conditions) if content.is_large else self._send_whole(content, conditions)
        try:
            there = attempted(self._settings, self._what, lambda: self._client.head_object(**self._object))
        except FetchError as error:
            if error.error_class != "permission":
                raise
            return  # who may write but not read has the entity tag of the answer, which was compared
        if _is_same(there, content) is False:
            if there.get("ETag") == answer["ETag"]:
                self._withdraw()
            raise self._damaged(f"{there['ContentLength']} bytes with the entity tag {there.get('ETag')} are there")

    def _send_whole(self, content: Content, conditions: dict[str, Any]) -> Any:
        def once() -> Any:
            answer: Any = self._client.put_object(**self._object, **content.part(0), **conditions)
            etag = fact(answer, "ETag")
            if _differ(digest_of(answer), content.digest):
                self._withdraw()
                raise self._damaged(f"the server got {etag}")
            return answer

        return attempted(self._settings, self._what, once)

    def _damaged(self, got: str) -> FetchError:
        return FetchError(f"{self._what}: what arrived is not what was sent: {got}", "checksum", retryable=True)

    def _withdraw(self) -> None:
        """Delete an object that arrived damaged."""
        try:
            with mapped(f"cannot delete {self._where}"):
                self._client.delete_object(**self._object)
        except FetchError as error:
            log.warning("%s; it is damaged", error)

    def _send_parts(self, content: Content, conditions: dict[str, Any]) -> Any:
        upload = self._object | {"UploadId": self._begun()}
        try:
            parts = [self._send_part(upload, number, content) for number in range(content.part_count)]
            return self._completed(upload, parts, content, conditions)
        except BaseException:
            self._abort(upload)
            raise

    def _begun(self) -> str:
        """Begin an upload in parts, and return its id.

        Each attempt first removes what earlier ones have begun: those of runs that died, and its own whose answer was lost.
        """

        def once() -> str:
            self._abort_leftovers()
            return str(fact(self._client.create_multipart_upload(**self._object), "UploadId"))

        try:
            return attempted(self._settings, self._what, once)
        except BaseException:
            with suppress(FetchError):
                self._abort_leftovers()
            raise

    def _abort_leftovers(self) -> None:
        """Abort every upload of this very key that is open, where the server lets us see them."""
        try:
            with mapped(f"cannot look for unfinished uploads of {self._where}"):
                pages = self._client.get_paginator("list_multipart_uploads").paginate(
                    Bucket=self._object["Bucket"], Prefix=self._object["Key"]
                )
                found = [upload for page in pages for upload in page.get("Uploads", ())]
        except FetchError as error:
            if error.retryable:
                raise
            log.info("%s; what a dead run may have left there stays", error)
            return
        for upload in found:
            if upload["Key"] == self._object["Key"]:
                self._abort(self._object | {"UploadId": upload["UploadId"]})

    def _send_part(self, upload: Any, number: int, content: Content) -> CompletedPartTypeDef:
        def once() -> str:
            answer: Any = self._client.upload_part(**upload, PartNumber=number + 1, **content.part(number))
            etag = str(fact(answer, "ETag"))
            if _differ(digest_of(answer), content.digests[number].hex()):
                raise self._damaged(f"the server got {etag} as part {number + 1}")
            return etag

        return {"PartNumber": number + 1, "ETag": attempted(self._settings, self._what, once)}

    def _completed(self, upload: Any, parts: list[CompletedPartTypeDef], content: Content, conditions: dict[str, Any]) -> Any:
        """Make an object of the parts; an answer that was lost is made up for by a look at what is there."""
        chosen: Any = {**upload, "MultipartUpload": {"Parts": parts}, **conditions}
        try:
            return attempted(self._settings, self._what, lambda: self._client.complete_multipart_upload(**chosen))
        except FetchError as error:
            there = self._head() if error.error_class == "upload-gone" else None
            if there is None or not _is_same(there, content):
                raise
            return there

    def _abort(self, upload: Any) -> None:
        """Have the server forget the parts of an upload."""
        try:
            attempted(self._settings, f"cannot abort the upload to {self._where}", lambda: self._client.abort_multipart_upload(**upload))
        except FetchError as error:
            if error.error_class not in ("upload-gone", "not-found"):
                log.warning("%s; the next upload to this key tries it again", error)


def _is_same(there: Any, content: Content) -> bool | None:
    """Whether an object has this content; None where its entity tag does not tell, and the size is the same."""
    if fact(there, "ContentLength") != content.size:
        return False
    digest = digest_of(there)
    if digest is None or _form(digest) != _form(content.digest):
        return None
    return digest == content.digest


def _differ(got: str | None, sent: str) -> bool:
    return got is not None and _form(got) == _form(sent) and got != sent


def _form(digest: str) -> str:
    """Return the number of parts, as only digests of equal parts can be compared; "" for a whole."""
    return digest.partition("-")[2]
