"""As much of the OpenPGP format (RFC 9580, RFC 4880) as it takes to tell whether a file is an encrypted message, and a whole one.

gpg tells neither. GnuPG 2.2.40 has the same status lines for a large message that is cut as for one that was changed (BADMDC), says of the
first bytes of a message what it says of a JPEG (NODATA 3), of fewer bytes and of an xz archive nothing, and ends with exit code 0 each time
but the first.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

ARMOR = re.compile(rb"\s*-----BEGIN PGP MESSAGE(?:, PART [0-9/]+)?-----[ \t]*\r?\n(?:[^\r\n]+\r?\n)*[ \t]*\r?\n([A-Za-z0-9+/]{8})")
ARMOR_END = b"-----END PGP MESSAGE"
SIGNATURE_ARMOR = b"-----BEGIN PGP SIGNATURE-----"
_HEAD_BYTES = 16 * 1024
_TAIL_BYTES = 1024
_MOST_LENGTHS = 4_000_000

# What an encrypted message can begin with, by packet tag (RFC 9580, section 5), and the versions of such packets
_PUBLIC_KEY_SESSION, _SYMMETRIC_SESSION, _UNPROTECTED, _MARKER, _PROTECTED, _AEAD = 1, 3, 9, 10, 18, 20
_VERSIONS = {_PUBLIC_KEY_SESSION: b"\2\3\6", _SYMMETRIC_SESSION: b"\4\5\6", _MARKER: b"P", _PROTECTED: b"\1\2", _AEAD: b"\1"}

_DATA = {_UNPROTECTED, _PROTECTED, _AEAD}

_IS_PACKET, _IS_NEW = 0x80, 0x40
_INDETERMINATE = 3
_TWO_OCTETS, _PARTIAL, _FOUR_OCTETS = 192, 224, 255


class _EndOfFileError(Exception):
    """The file ends within a packet."""


def is_message(path: Path) -> bool:
    """Whether a file begins like an encrypted OpenPGP message, binary or with ASCII armor from its first line on."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    armored = ARMOR.match(head)
    try:
        return _is_encrypted(base64.b64decode(armored[1]) if armored else head)
    except binascii.Error:
        return False


def _is_encrypted(head: bytes) -> bool:
    """Whether bytes begin with a packet of an encrypted message, in a version that there is."""
    if not head or not head[0] & _IS_PACKET:
        return False
    version = 1 + (_new_length_octets(head[1:2]) if head[0] & _IS_NEW else (1, 2, 4, 0)[head[0] & 3])
    return head[version : version + 1] in {bytes([octet]) for octet in _VERSIONS.get(_tag(head[0]), b"")}


def _new_length_octets(first: bytes) -> int:
    if not first:
        return 1
    return 5 if first[0] == _FOUR_OCTETS else 2 if _TWO_OCTETS <= first[0] < _PARTIAL else 1


def is_cut(path: Path) -> bool:
    """Whether the end of a message is missing: its packets claim more bytes than there are, or its armor is not closed."""
    with path.open("rb") as stream:
        if ARMOR.match(stream.read(_HEAD_BYTES)):
            stream.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return ARMOR_END not in stream.read()
        stream.seek(0)
        try:
            _walk(stream, path.stat().st_size)
        except _EndOfFileError:
            return True
    return False


def _walk(stream: BinaryIO, size: int) -> None:
    """Go from packet to packet, to the end or to what is none; a message with very many of them is left, and taken for whole."""
    tag = 0
    budget = iter(range(_MOST_LENGTHS))
    for _ in budget:
        if stream.tell() == size and tag in _DATA:
            return
        first = _octets(stream, 1)
        if not first & _IS_PACKET or (not first & _IS_NEW and first & 3 == _INDETERMINATE):
            return
        tag = _tag(first)
        _skip(stream, size, first, budget)


def _tag(first: int) -> int:
    """Return the tag of a packet (RFC 9580, section 4.2)."""
    return first & 0x3F if first & _IS_NEW else (first & 0x3F) >> 2


def _skip(stream: BinaryIO, size: int, first: int, budget: Iterator[int]) -> None:
    """Go to the end of a packet, which may come in parts, each with its length."""
    length, is_last = _new_length(stream) if first & _IS_NEW else (_octets(stream, 1 << (first & 3)), True)
    for _ in budget:
        if stream.seek(length, os.SEEK_CUR) > size:
            raise _EndOfFileError
        if is_last:
            return
        length, is_last = _new_length(stream)


def _new_length(stream: BinaryIO) -> tuple[int, bool]:
    """Return the length of a packet or of a part of it, and whether it is the last (RFC 9580, section 4.2.1)."""
    first = _octets(stream, 1)
    if first < _TWO_OCTETS:
        return first, True
    if first < _PARTIAL:
        return ((first - _TWO_OCTETS) << 8) + _octets(stream, 1) + _TWO_OCTETS, True
    if first < _FOUR_OCTETS:
        return 1 << (first & 0x1F), False
    return _octets(stream, 4), True


def _octets(stream: BinaryIO, count: int) -> int:
    data = stream.read(count)
    if len(data) < count:
        raise _EndOfFileError
    return int.from_bytes(data, "big")
