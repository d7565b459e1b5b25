"""What everybody speaks: a file, its failure, its outcome."""

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

from dpp import names

Stage = Literal["download", "pre-process", "process", "post-process", "report"]
RUNTIME_FIELDS = frozenset({"exploded", "local_path", "output_dir", "processing_history", "error"})
_UNCHANGEABLE = (str, int, float, bool, type(None))
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,4})?(/[!-~]*)?")
_BAD_IN_URL = re.compile(r"[\x00-\x20\x7f]")


def _text_or_int(value: Any) -> Any:
    if value == "":
        raise ValueError("is empty")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


Label = Annotated[str, BeforeValidator(_text_or_int)]


def check_url(url: str) -> str:
    """Return the URL as it is, or raise ValueError saying what is wrong with it."""
    if _PLAIN_URL.fullmatch(url):
        return url
    if _BAD_IN_URL.search(url):
        raise ValueError("has a blank or a control character; percent-encode it")
    scheme, host = _scheme_and_host(url)
    if not scheme:
        raise ValueError("has no scheme; expected something like https://host/path or file:///path")
    if scheme in ("http", "https") and not host:
        raise ValueError("has no host")
    return url


def _scheme_and_host(url: str) -> tuple[str, str | None]:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError where the port is no number
        return parts.scheme, parts.hostname
    except ValueError:  # its text may hold a password
        raise ValueError("has a host or port that is none; percent-encode what is special in a user name or password") from None


def _shorten_middle(limit: int) -> AfterValidator:
    """Return a rule that leaves the middle of a longer text out: a plugin may raise what it has read."""
    return AfterValidator(lambda text: text if len(text) <= limit else f"{text[: limit // 2]}\n...\n{text[-limit // 2 :]}")


class Failure(BaseModel):
    """Why a file failed.

    Attributes:
        stage: The stage that failed.
        error_class: A short, stable word to group by, such as ``http-404``, ``checksum``, ``ValueError``.
        message: What happened, without secrets.
        http_status: Status code of the last answer, where there was one.
        traceback: Where a plugin raised, without secrets.
    """

    stage: Stage
    error_class: str
    message: Annotated[str, _shorten_middle(2_000)]
    http_status: int | None = None
    traceback: Annotated[str, _shorten_middle(20_000)] | None = None


class FileData(BaseModel):
    """One file of a batch: what the manifest says of it, and what became of it so far.

    Fields of the manifest that dpp does not know are kept and can be read as attributes
    (``file.provider``), also where a method of this class has their name (``file.schema``).

    Attributes:
        url: Where the file comes from.
        id: What a report calls it; the URL's stem where the manifest gives none.
        name: Its name; the URL's stem where the manifest gives none.
        sha256: Digest of the download, 64 hexadecimal digits: expected in a manifest, verified from the download on.
        size: Size of the download in bytes, likewise.
        headers: Request headers for this file only. Never shown.
        urls: Mirrors, tried in order after ``url``.
        local_path: The file to work on: the download, or what the pre-processor before made of it.
        output_dir: Where a pre-processor writes what it makes; published as a whole when the chain is through.
        exploded: Whether later steps take each regular file of the folder at ``local_path`` for a file of its own; a pre-processor says so.
        processing_history: One entry a pre-processor that the file went through.
        error: Why the file failed earlier, for post-processors.
    """

    model_config = ConfigDict(extra="allow")

    url: str
    id: Label = ""
    name: Label = ""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    size: int | None = Field(default=None, ge=0)
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
        for name, value in (headers or {}).items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ValueError("a name or a value has a character that no header can have (RFC 9110, section 5)")
        return headers

    @field_validator("sha256", mode="before")
    @classmethod
    def _digest_is_lower_case(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("size", mode="before")
    @classmethod
    def _size_is_no_flag(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("should be a number of bytes, not true or false")
        return value

    def model_post_init(self, context: Any) -> None:
        """Fill in what follows from the URL, and let extra fields be read whatever their name."""
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


def own_copy(file: FileData, **changes: Any) -> FileData:
    """Return a copy of a file for a plugin, which may change it as it likes.

    Fields that can't be changed in place are shared: a deep copy takes fifty microseconds, this one six.
    """
    fields = {**(file.__pydantic_extra__ or {}), "headers": file.headers, "urls": file.urls, "processing_history": file.processing_history}
    own = {name: copy.deepcopy(value) for name, value in fields.items() if not isinstance(value, _UNCHANGEABLE)}
    return file.model_copy(update={**own, **changes})


def _hides_method(field: str) -> bool:
    """Whether an extra field has the name of one of pydantic's methods, which would be found instead of it."""
    return field not in FileData.model_fields and hasattr(FileData, field) and not field.startswith(("_", "model_"))


class Outcome(BaseModel):
    """What became of one file in one run: a row of the ledger and of ``results.jsonl``.

    Attributes:
        id: The file's id.
        name: The file's name.
        url: Its URL without secrets.
        key: Names its targets in the workspace.
        status: ``ok`` or ``failed``.
        stage: Where it failed.
        error_class: Groups failures.
        message: Says what failed.
        http_status: Of the last answer.
        attempts: How often a download was tried in the run that did it.
        bytes: Size of the download.
        sha256: Digest of the download.
        seconds: Seconds spent, by stage.
        plugins: The steps it went through, with kind, name and version.
        result: What the processor returned.
        run: The run that did the work.
        cached: Whether it is from an earlier run.
        at: When it ended, in seconds since 1970-01-01 UTC.
        traceback: Where a plugin raised.
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
    seconds: dict[str, float] = Field(default_factory=dict)
    plugins: list[dict[str, str]] = Field(default_factory=list)
    result: Any = None
    run: str | None = None
    cached: bool = False
    at: float = 0.0
    traceback: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the file went through every stage."""
        return self.status == "ok"
