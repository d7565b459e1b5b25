"""Entity tags of S3: an MD5, the MD5 of the parts' MD5s with their number, or an opaque text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

_SINGLE = re.compile(r'"?([0-9a-f]{32})"?')
_OF_PARTS = re.compile(r'"?([0-9a-f]{32}-[0-9]+)"?')


def md5_of(response: Mapping[str, Any]) -> str | None:
    """Return the MD5 of an object from its entity tag, or None if the tag is not an MD5.

    Args:
        response: The response of GetObject, HeadObject or PutObject.
    """
    match = _SINGLE.fullmatch(response.get("ETag", ""))
    return match[1] if match and not _is_opaque(response) else None


def digest_of(response: Mapping[str, Any]) -> str | None:
    """Return the MD5 of an object, or the MD5 of its parts' MD5s with their number after a dash, or None."""
    match = _OF_PARTS.fullmatch(response.get("ETag", ""))
    return match[1] if match and not _is_opaque(response) else md5_of(response)


def _is_opaque(response: Mapping[str, Any]) -> bool:
    # With keys from KMS or from the client, the tag is not an MD5 ("Common response headers" in Amazon's API reference)
    return str(response.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in response


def digest_of_parts(digests: Sequence[bytes]) -> str:
    """Return the digest of an object that was uploaded in parts.

    Args:
        digests: The MD5 of each part, 16 bytes each.
    """
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"
