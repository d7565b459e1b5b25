"""URLs of buckets and objects: ``s3://bucket/key``, the key percent-encoded (RFC 3986, section 2.1)."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")


class Location(NamedTuple):
    """A bucket and a key or prefix in it.

    Attributes:
        bucket: Name of the bucket.
        key: Key of an object or prefix of keys, decoded.
        query: Query of the URL, not decoded.
    """

    bucket: str
    key: str
    query: str

    def __str__(self) -> str:
        return object_url(self.bucket, self.key)


def parse(url: str) -> Location:
    """Return the bucket and key of an ``s3:`` URL.

    Raises:
        ValueError: The bucket is missing or invalid, or the URL has credentials or is not percent-encoded.
    """
    # No message shows the URL, because it may contain credentials
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("credentials are not allowed in a URL; use credentials_file, a profile or the environment")
    if not _BUCKET.fullmatch(parts.netloc):
        raise ValueError("expected s3://bucket/key with a valid bucket name")
    if parts.fragment or url.endswith("#"):
        raise ValueError("# must be percent-encoded as %23")
    try:
        key = unquote(parts.path[1:], errors="strict")
    except UnicodeDecodeError as error:
        raise ValueError("the key is not percent-encoded UTF-8") from error
    return Location(parts.netloc, key, parts.query)


def bucket(name: str) -> str:
    """Return the name of a bucket unchanged, or raise ValueError if it is invalid."""
    if not _BUCKET.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid bucket name; for a folder in it use destination, such as s3://bucket/folder/")
    return name


def object_url(bucket: str, key: str) -> str:
    """Return the URL of an object.

    Example:
        >>> object_url("bucket", "a b/c.csv")
        's3://bucket/a%20b/c.csv'
    """
    return f"s3://{bucket}/{quote(key, errors='surrogatepass')}"


def shown(url: str) -> str:
    """Return a URL for messages, without user, query and fragment, which may contain secrets.

    Example:
        >>> shown("s3://key:secret@bucket/a.csv?x=y")
        's3://bucket/a.csv'
    """
    scheme, _, rest = url.partition("://")
    bucket, slash, key = rest.partition("?")[0].partition("#")[0].partition("/")
    bucket = bucket.rpartition("@")[2]
    return f"{scheme}://{bucket}{slash}{key}" if _BUCKET.fullmatch(bucket) else f"{scheme}://***"
