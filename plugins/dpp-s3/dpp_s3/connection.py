"""The server and the credentials: options that source, fetcher and upload share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError, model_validator


def _check_endpoint(url: str) -> str:
    """Return the URL unchanged, or raise ValueError if it is not a valid endpoint."""
    # The messages do not show the URL, because it may contain a secret
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError if the port is not a number
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise ValueError("expected a URL such as https://s3.example.org")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("expected a URL without user, query and fragment; put credentials into credentials_file or the environment")
    return url


Endpoint = Annotated[str, AfterValidator(_check_endpoint)]
_NonEmpty = Annotated[SecretStr, Field(min_length=1)]


class Credentials(BaseModel):
    """The content of a credentials file: ``{"token": ..., "secret": ..., "endpoint_url": ...}``."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    token: _NonEmpty
    """The access key id."""
    secret: _NonEmpty
    """The secret access key."""
    session_token: _NonEmpty | None = None
    """The session token of temporary credentials."""
    endpoint_url: Endpoint | None = None
    """URL of the server, if it is not AWS."""
    region: str | None = None
    """Region for which requests are signed."""


class Key(NamedTuple):
    """The options that identify a connection."""

    endpoint_url: str | None
    region: str | None
    profile: str | None
    addressing_style: Literal["auto", "path", "virtual"]
    credentials: Credentials | None


class Connection(BaseModel):
    """The server and the credentials; defaults come from the AWS chain: environment, ``~/.aws``, instance roles."""

    model_config = ConfigDict(extra="forbid")

    endpoint_url: Endpoint | None = None
    """URL of the server; default: that of the credentials file, ``AWS_ENDPOINT_URL``, or AWS."""
    region: str | None = Field(default=None, exclude=True)
    """Region for which requests are signed."""
    profile: str | None = None
    """Name of a profile in ``~/.aws/config`` or ``~/.aws/credentials``."""
    credentials_file: Path | None = Field(default=None, exclude=True)
    """Path of a JSON file with ``token``, ``secret`` and, if needed, ``session_token``, ``endpoint_url`` and ``region``."""
    addressing_style: Literal["auto", "path", "virtual"] = Field(default="auto", exclude=True)
    """Place of the bucket in URLs: in the path, or in the host name (``virtual``)."""

    _credentials: Credentials | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _with_credentials(self) -> Self:
        """Read the credentials file."""
        # With the options and not with the first request, so that a wrong file is found before anything is downloaded
        if self.credentials_file is None:
            return self
        if self.profile is not None:
            raise ValueError("profile and credentials_file cannot be used together; remove one of them")
        self._credentials = _read(self.credentials_file.expanduser())
        # The endpoint is part of the cache key
        if self.endpoint_url is None:
            self.endpoint_url = self._credentials.endpoint_url
        return self

    def connection_key(self) -> Key:
        """Return the options that identify this connection."""
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
