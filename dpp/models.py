"""The data models of a file, its failure and its outcome."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
)

from dpp import media, names
from dpp.headers import check_headers

Stage = Literal["download", "pre-process", "process", "post-process", "report"]
RUNTIME_FIELDS = frozenset({"exploded", "local_path", "output_dir", "processing_history", "error"})
DIGESTS = {"md5": 32, "sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128}
"""The digests that a manifest can give, with their number of hexadecimal digits (RFC 1321, FIPS 180-4)."""
_UNCHANGEABLE = (str, int, float, bool, type(None))
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,4})?(/[!-~]*)?")
_BAD_IN_URL = re.compile(r"[\x00-\x20\x7f]")
# Copied from a page or a chat, a URL may have them, and no server knows it.
_INVISIBLE = re.compile("[\u200b-\u200f\u2028-\u202e\u2060\ufeff]")
_QUOTES = ('"', "'", "<", "\u201c", "\u201d", "\u201e", "\u2018", "\u2019", "\u00ab")


def _text_or_int(value: Any) -> Any:
    if value == "":
        raise ValueError("is empty")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


Label = Annotated[str, BeforeValidator(_text_or_int)]


def check_url(url: str) -> str:
    """Return the URL unchanged, or raise ValueError with its problem."""
    if _PLAIN_URL.fullmatch(url):
        return url
    if _BAD_IN_URL.search(url):
        raise ValueError("contains whitespace or a control character; percent-encode it")
    if invisible := _INVISIBLE.search(url):
        raise ValueError(f"contains the invisible character U+{ord(invisible[0]):04X}; remove it")
    scheme, host = _scheme_and_host(url)
    if not scheme:
        if url.startswith(_QUOTES):
            raise ValueError("is in quotes; remove them")
        raise ValueError("has no scheme; expected something like https://host/path or file:///path")
    if scheme in ("http", "https") and not host:
        raise ValueError("has no host")
    if scheme in ("http", "https") and not names.has_one_host(url):
        raise ValueError("contains a backslash before its path; use slashes, and percent-encode it in a user name or password")
    return url


def _scheme_and_host(url: str) -> tuple[str, str | None]:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError for an invalid port
        return parts.scheme, parts.hostname
    # The text of this exception may contain a password, so it is not chained.
    except ValueError:
        raise ValueError("has an invalid host or port; percent-encode special characters in a user name or password") from None


def _shorten_middle(limit: int) -> AfterValidator:
    """Return a validator that removes the middle of a text longer than the limit, in characters."""
    # A plugin may raise an exception with the whole file in its message.
    return AfterValidator(lambda text: text if len(text) <= limit else f"{text[: limit // 2]}\n...\n{text[-limit // 2 :]}")


class Failure(BaseModel):
    """Why a file failed.

    Attributes:
        stage: The stage that failed.
        error_class: A short, stable word for grouping failures, such as ``http-404``, ``checksum``, ``ValueError``.
        message: What happened, without secrets.
        http_status: Status code of the last HTTP response, or None.
        traceback: Traceback of a plugin's exception or stacks of a crashed process, without secrets, or None.
    """

    stage: Stage
    error_class: str
    message: Annotated[str, _shorten_middle(2_000)]
    http_status: int | None = None
    traceback: Annotated[str, _shorten_middle(20_000)] | None = None


class FileData(BaseModel):
    """One file of a batch: its fields in the manifest, and its state in the pipeline.

    Fields of the manifest that dpp does not know are kept and can be read as attributes
    (``file.provider``), even if a method of this class has the same name (``file.schema``).

    Attributes:
        url: URL of the file.
        id: Name of the file in reports; by default the URL's stem.
        name: Name of the file; by default the URL's stem.
        sha256: Digest of the download, 64 hexadecimal digits: the expected one in a manifest, the verified one after the download.
        digests: Further expected digests of the download, hexadecimal digits by algorithm: md5, sha1, sha224, sha384, sha512.
        size: Size of the download in bytes: the expected one in a manifest, the verified one after the download.
        expect_version: Version of the source that is meant, as its fetcher states it (for ``file:``, size in bytes and modification time in
            nanoseconds: ``5-1764541025000000000``); another version fails as ``changed``. None for the current one.
        expect_type: Media types that the download may have, such as ``application/pdf`` or ``image/*,text/csv``; None for any.
        headers: Request headers for this file only. They are never shown.
        urls: Mirrors, tried in order after ``url``.
        local_path: The file to process: the download, or the output of the last pre-processor.
        output_dir: Folder for the output of a pre-processor; published as a whole after the last one.
        exploded: Whether later steps process each regular file of the folder ``local_path`` separately; set by a pre-processor.
        processing_history: One entry per pre-processor that has processed the file.
        error: Why the file failed earlier, for post-processors.
    """

    model_config = ConfigDict(extra="allow")

    url: str
    id: Label = ""
    name: Label = ""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    digests: dict[str, str] | None = None
    size: int | None = Field(default=None, ge=0)
    expect_version: str | None = None
    expect_type: str | None = None
    headers: dict[str, str] | None = None
    urls: list[str] | None = None
    local_path: Path | None = None
    output_dir: Path | None = Field(default=None, exclude=True)
    exploded: bool = False
    processing_history: list[dict[str, Any]] = Field(default_factory=list)
    error: Failure | None = None

    @field_validator("url")
    @classmethod
    def _url_is_one(cls, url: str) -> str:
        return check_url(url)

    @field_validator("urls")
    @classmethod
    def _mirrors_are_urls(cls, urls: list[str] | None) -> list[str] | None:
        return urls and [check_url(url) for url in urls]

    @field_validator("headers")
    @classmethod
    def _headers_can_be_sent(cls, headers: dict[str, str] | None) -> dict[str, str] | None:
        check_headers(headers or {})
        return headers

    @field_validator("sha256", mode="before")
    @classmethod
    def _digest_is_lower_case(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        digits = value.strip().lower()
        if not re.fullmatch(r"[0-9a-f]{64}", digits):
            raise ValueError("expected 64 hexadecimal digits")
        return digits

    @field_validator("expect_type")
    @classmethod
    def _types_can_be_expected(cls, types: str | None) -> str | None:
        return media.check_types(types) or None if types is not None else None

    @field_validator("digests")
    @classmethod
    def _digests_fit(cls, digests: dict[str, str] | None) -> dict[str, str] | None:
        for algorithm, digits in (digests or {}).items():
            if not re.fullmatch(rf"[0-9a-f]{{{DIGESTS.get(algorithm, 0)}}}", digits) or not digits:
                raise ValueError(f"should be hexadecimal digits by algorithm; choose from {', '.join(DIGESTS)}")
        return digests

    @field_validator("size", mode="before")
    @classmethod
    def _size_is_no_flag(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("should be a number of bytes, not true or false")
        return value

    def model_post_init(self, context: Any) -> None:
        """Derive ``id`` and ``name`` from the URL if they are not given, and make all extra fields readable."""
        self.__dict__["id"] = self.id or names.stem(self.url)
        self.__dict__["name"] = self.name or names.stem(self.url)
        self._show_extra()

    def _show_extra(self) -> None:
        if self.__pydantic_extra__:
            self.__dict__.update({field: value for field, value in self.__pydantic_extra__.items() if _hides_method(field)})

    def __setattr__(self, field: str, value: Any) -> None:
        super().__setattr__(field, value)
        if _hides_method(field) and self.__pydantic_extra__ is not None:
            self.__pydantic_extra__[field] = value

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy; see pydantic."""
        copied = super().model_copy(update=update, deep=deep)
        copied._show_extra()
        return copied


def key_of(file: FileData) -> str:
    """Return the key of a file, which its targets have in their names; see :func:`dpp.names.file_key`."""
    return names.file_key(file.id, file.url, expected_digest(file), file.expect_version)


def expected_digest(file: FileData) -> str | None:
    """Return the digest by which a file is known: the first of :func:`digests_of`; None without any."""
    if file.sha256 or not file.digests:
        return f"sha256={file.sha256}" if file.sha256 else None
    return digests_of(file)[0]


def digests_of(file: FileData) -> list[str]:
    """Return the digests that the manifest expects, as ``algorithm=digits``: SHA-256 first, then the longest."""
    others = (f"{name}={value}" for name, value in (file.digests or {}).items())
    return [*([f"sha256={file.sha256}"] if file.sha256 else []), *sorted(others, key=len, reverse=True)]


def own_copy(file: FileData, **changes: Any) -> FileData:
    """Return a copy of a file that a plugin may change."""
    # Immutable fields are shared: a deep copy takes 50 microseconds, this one 6.
    fields = {
        **(file.__pydantic_extra__ or {}),
        "headers": file.headers,
        "urls": file.urls,
        "digests": file.digests,
        "processing_history": file.processing_history,
    }
    own = {name: copy.deepcopy(value) for name, value in fields.items() if not isinstance(value, _UNCHANGEABLE)}
    return file.model_copy(update={**own, **changes})


def _hides_method(field: str) -> bool:
    """Whether an extra field has the name of a method of pydantic, which would hide it."""
    return field not in FileData.model_fields and hasattr(FileData, field) and not field.startswith(("_", "model_"))


class Outcome(BaseModel):
    """The outcome of one file in one run: a row of the ledger and of ``results.jsonl``.

    Attributes:
        id: The file's id.
        name: The file's name.
        url: Its URL without secrets.
        key: Key of the file in the paths of its targets.
        status: ``ok`` or ``failed``.
        stage: The stage that failed, or None.
        error_class: Error class of the failure, or None.
        message: Message of the failure, or None.
        http_status: Status code of the last HTTP response of a failed download, or None.
        attempts: Number of download attempts in the run that did the work.
        bytes: Size of the download in bytes.
        sha256: SHA-256 digest of the download.
        digests: Further digests of the download, by algorithm: those that the manifest gave and that were verified; or None.
        content_type: Content-Type that the source stated, or None.
        media_type: Media type, from the Content-Type and the first bytes, or None; see :func:`dpp.media.media_type`.
        warning: Why a file that is ok is probably not the expected one, such as a web page in place of a PDF, or None.
        source_version: Version of the source when it was downloaded, such as an entity tag, or None; see
            :meth:`dpp.BaseFetcher.source_version`.
        seconds: Seconds spent, by stage.
        plugins: The steps of the run, with kind, name and version.
        result: The processor's result.
        run: Label of the run that did the work.
        cached: Whether the outcome is from an earlier run.
        at: When the file ended, in seconds since 1970-01-01 UTC.
        traceback: Traceback of a plugin's exception, or None.
    """

    id: str
    name: str
    url: str
    key: str
    status: Literal["ok", "failed"]
    stage: Stage | None = None
    error_class: str | None = None
    message: str | None = None
    http_status: int | None = None
    attempts: int = 0
    bytes: int | None = None
    sha256: str | None = None
    digests: dict[str, str] | None = None
    content_type: str | None = None
    media_type: str | None = None
    warning: str | None = None
    source_version: str | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    plugins: list[dict[str, str]] = Field(default_factory=list)
    result: Any = None
    run: str | None = None
    cached: bool = False
    at: float = 0.0
    traceback: str | None = None

    @property
    def ok(self) -> bool:
        """Whether all stages of the file succeeded."""
        return self.status == "ok"
