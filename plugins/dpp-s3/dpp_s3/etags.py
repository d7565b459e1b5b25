"""Entity tags of S3: an MD5, or the MD5 of the parts' MD5s and their number, or neither."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

_SINGLE = re.compile(r'"?([0-9a-f]{32})"?')
_OF_PARTS = re.compile(r'"?([0-9a-f]{32}-[0-9]+)"?')


def md5_of(answer: Mapping[str, Any]) -> str | None:
    """Return the MD5 of an object that was uploaded in one piece, where its entity tag is that.

    Args:
        answer: What GetObject, HeadObject or PutObject answered. Where the server encrypts with keys from KMS or from the
            client, the entity tag is something else ("Common response headers" in Amazon's API reference).
    """
    match = _SINGLE.fullmatch(answer.get("ETag", ""))
    return match[1] if match and not _is_opaque(answer) else None


def digest_of(answer: Mapping[str, Any]) -> str | None:
    """Return what tells an object's content: the MD5, or that of its parts' MD5s with their number after a dash."""
    match = _OF_PARTS.fullmatch(answer.get("ETag", ""))
    return match[1] if match and not _is_opaque(answer) else md5_of(answer)


def _is_opaque(answer: Mapping[str, Any]) -> bool:
    return str(answer.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in answer


def digest_of_parts(digests: Sequence[bytes]) -> str:
    """Return the digest that an object has which was uploaded in these parts.

    Args:
        digests: The MD5 of each part, 16 bytes.
    """
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"
