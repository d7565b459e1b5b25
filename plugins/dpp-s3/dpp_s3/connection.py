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
    """What a credentials file holds: ``{"token": ..., "secret": ..., "endpoint_url": ...}``.

    Attributes:
        token: The access key's id.
        secret: The secret key.
        session_token: The session token of temporary credentials.
        endpoint_url: Where they are good, if not at AWS.
        region: The region to sign requests for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    token: _NonEmpty
    secret: _NonEmpty
    session_token: _NonEmpty | None = None
    endpoint_url: Endpoint | None = None
    region: str | None = None


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

    Attributes:
        endpoint_url: The server; AWS or ``AWS_ENDPOINT_URL`` by default, or what the credentials file says.
        region: The region to sign requests for.
        profile: A profile of ``~/.aws/config`` or ``~/.aws/credentials``.
        credentials_file: A JSON file, see :class:`Credentials`.
        addressing_style: Whether the bucket stands in the path or the host's name.
    """

    model_config = ConfigDict(extra="forbid")

    endpoint_url: Endpoint | None = None
    region: str | None = Field(default=None, exclude=True)
    profile: str | None = None
    credentials_file: Path | None = Field(default=None, exclude=True)
    addressing_style: Literal["auto", "path", "virtual"] = Field(default="auto", exclude=True)

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
