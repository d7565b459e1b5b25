"""The post-processor ``s3-upload``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal, Self

from dpp import BasePostProcessor, FileData, Settings, StageError
from pydantic import Field, field_validator, model_validator

from dpp_s3 import keys, location
from dpp_s3.connection import Connection
from dpp_s3.content import MIB, Content

IfExists = Literal["skip", "overwrite", "fail"]


class S3Upload(Connection, BasePostProcessor):
    """Upload the pre-processed file, or each regular file of the pre-processed folder; failed files are skipped.

    An object appears only when it is complete. Uploading a file again gives the same object, and removes parts that a killed
    run has left for its key.
    """

    name = "s3-upload"
    version = "1"
    shared_options: ClassVar = {"s3": Connection}

    bucket: str | None = None
    """Name of the bucket."""
    key: str = "{name}"
    """Template of the keys, with the fields ``name``, ``stem``, ``ext``, ``sha256`` and any other field of the file."""
    destination: str | None = None
    """Bucket and prefix of the keys as one URL, such as ``s3://bucket/data/``; replaces ``bucket``."""
    if_exists: IfExists = "skip"
    """What to do if the object exists: ``skip`` it (with a warning if its content differs), ``overwrite`` it, or ``fail`` the file if the
    content differs."""
    multipart_bytes: int = Field(default=64 * MIB, ge=5 * MIB, le=5 * 1024 * MIB, exclude=True)
    """Maximum size of a single upload, in bytes; larger files are uploaded in parts of this size."""
    attempts: int = Field(default=3, ge=1, exclude=True)
    """Maximum attempts per request."""
    retry_wait: float = Field(default=0.5, ge=0, allow_inf_nan=False, exclude=True)
    """Seconds to wait before the second attempt; doubles with each attempt, with random jitter."""
    connect_timeout: float = Field(default=10.0, gt=0, allow_inf_nan=False, exclude=True)
    """Maximum seconds to establish a connection."""
    read_timeout: float = Field(default=60.0, gt=0, allow_inf_nan=False, exclude=True)
    """Maximum seconds without data from the server."""

    @field_validator("key")
    @classmethod
    def _key_is_a_template(cls, key: str) -> str:
        keys.fields_of(key)
        return key

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        if (self.bucket is None) == (self.destination is None):
            raise ValueError("give either bucket or destination, such as s3://bucket/data/")
        self._place()
        return self

    def _place(self) -> tuple[str, str]:
        """Return the bucket and the prefix of the keys."""
        if self.destination is None:
            return location.bucket(self.bucket or ""), ""
        if not self.destination.lower().startswith("s3://"):
            raise ValueError("destination should be a URL such as s3://bucket/data/")
        place = location.parse(self.destination)
        if place.query:
            raise ValueError("destination must not have parameters (?...)")
        return place.bucket, place.key if place.key.endswith("/") or not place.key else f"{place.key}/"

    def post_process(self, result: Any, file: FileData) -> None:
        """Upload the file, unless it failed; see :class:`dpp.BasePostProcessor`.

        Raises:
            StageError: The key is invalid, or the upload failed.
        """
        if file.error is not None or file.local_path is None:
            return
        bucket, prefix = self._place()
        # All keys are checked before the first upload
        chosen: dict[str, keys.Upload] = {}
        for upload in keys.uploads(file.local_path):
            key = keys.key_for(self.key, prefix, upload, file, self._sha256(upload.path))
            if key in chosen:
                raise StageError(f"{chosen[key].name!r} and {upload.name!r} would both get the key {key!r}; add {{name}} to key", "s3-key")
            chosen[key] = upload
        for key, upload in chosen.items():
            self._send(upload.path, bucket, key)

    def _sha256(self, path: Path) -> str:
        if "sha256" not in keys.fields_of(self.key):
            return ""
        with _opened(path) as stream:
            return Content(stream, self.multipart_bytes).sha256()

    def _settings(self) -> Settings:
        return Settings(
            attempts=self.attempts,
            retry_wait=self.retry_wait,
            connect_timeout=self.connect_timeout,
            read_timeout=self.read_timeout,
        )

    def _send(self, path: Path, bucket: str, key: str) -> None:
        from dpp_s3.client import client_for  # noqa: PLC0415 - boto3 takes long to import
        from dpp_s3.transfer import Transfer  # noqa: PLC0415

        settings = self._settings()
        with _opened(path) as stream:
            Transfer(client_for(self, settings), settings, bucket, key).put(Content(stream, self.multipart_bytes), self.if_exists)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except (FileNotFoundError, PermissionError) as error:
        raise StageError(f"cannot read {path}: {error.strerror}", "read") from error
