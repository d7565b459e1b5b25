"""Where S3 answers, and who asks: the options that source, fetcher and upload share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError, model_validator


def _check_endpoint(url: str) -> str:
    """Return the URL as it is, or raise ValueError; the text never shows it, as a secret may be in it."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError where the port is no number
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise ValueError("expected a URL such as https://s3.example.org")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("should be a URL without user, query and fragment; credentials go into credentials_file or the environment")
    return url


Endpoint = Annotated[str, AfterValidator(_check_endpoint)]
_NonEmpty = Annotated[SecretStr, Field(min_length=1)]


class Credentials(BaseModel):
    """What a credentials file holds: ``{"token": ..., "secret": ..., "endpoint_url": ...}``."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    token: _NonEmpty
    """The access key's id."""
    secret: _NonEmpty
    """The secret key."""
    session_token: _NonEmpty | None = None
    """The session token of temporary credentials."""
    endpoint_url: Endpoint | None = None
    """URL of the server that they are for, if not AWS."""
    region: str | None = None
    """Region that requests are signed for."""


class Key(NamedTuple):
    """What tells one connection from another."""

    endpoint_url: str | None
    region: str | None
    profile: str | None
    addressing_style: Literal["auto", "path", "virtual"]
    credentials: Credentials | None


class Connection(BaseModel):
    """Where S3 answers, and who asks. What is left out comes from the AWS chain: environment, ``~/.aws``, instance roles.

    A credentials file is read when the options are, so that a wrong one is found before anything is fetched, and a new
    one is used by the next run.
    """

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    endpoint_url: Endpoint | None = None
    """URL of the server; default: ``AWS_ENDPOINT_URL``, the one in the credentials file, or AWS."""
    region: str | None = Field(default=None, exclude=True)
    """Region that requests are signed for."""
    profile: str | None = None
    """Profile in ``~/.aws/config`` or ``~/.aws/credentials``."""
    credentials_file: Path | None = Field(default=None, exclude=True)
    """JSON file with ``token``, ``secret`` and, if needed, ``session_token``, ``endpoint_url`` and ``region``."""
    addressing_style: Literal["auto", "path", "virtual"] = Field(default="auto", exclude=True)
    """Whether the bucket is in the URL's path or in its host name."""

    _credentials: Credentials | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _with_credentials(self) -> Self:
        """Read the credentials file; its endpoint becomes the option's value, and so a part of the cache key."""
        if self.credentials_file is None:
            return self
        if self.profile is not None:
            raise ValueError("profile and credentials_file were given; leave one of them out")
        self._credentials = _read(self.credentials_file.expanduser())
        if self.endpoint_url is None:
            self.endpoint_url = self._credentials.endpoint_url
        return self

    def connection_key(self) -> Key:
        """Return what tells this connection from another."""
        region = self.region or (self._credentials.region if self._credentials else None)
        return Key(self.endpoint_url, region, self.profile, self.addressing_style, self._credentials)


def _read(path: Path) -> Credentials:
    try:
        return Credentials.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ValueError(f"credentials_file {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, detail['loc']))} {detail['msg']}".strip() for detail in error.errors(include_input=False)]
        raise ValueError(f'credentials_file {path}: expected {{"token": ..., "secret": ...}}: {"; ".join(problems)}') from None
