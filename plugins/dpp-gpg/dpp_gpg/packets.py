"""Detect encrypted OpenPGP messages (RFC 9580, RFC 4880) and whether their end is missing."""

# Measured with GnuPG 2.2.40, which reports neither: it writes the same status lines for a large message that is truncated as
# for one that was modified (BADMDC), the same for the first bytes of a message as for a JPEG (NODATA 3), and none for fewer
# bytes or an xz archive. Its exit code is 0 in all cases but the first.

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

ARMOR = re.compile(rb"\s*-----BEGIN PGP MESSAGE(?:, PART [0-9/]+)?-----[ \t]*\r?\n(?:[^\r\n]+\r?\n)*[ \t]*\r?\n([A-Za-z0-9+/]{8})")
ARMOR_END = b"-----END PGP MESSAGE"
SIGNATURE_ARMOR = b"-----BEGIN PGP SIGNATURE-----"
HEAD_BYTES = 16 * 1024
_TAIL_BYTES = 1024
# Limits the time for a message with very many small packets, which then counts as complete
_MOST_LENGTHS = 4_000_000

# Packets that an encrypted message can start with, by tag (RFC 9580, section 5), and their versions
_PUBLIC_KEY_SESSION, _SYMMETRIC_SESSION, _UNPROTECTED, _MARKER, _PROTECTED, _AEAD = 1, 3, 9, 10, 18, 20
_VERSIONS = {_PUBLIC_KEY_SESSION: b"\2\3\6", _SYMMETRIC_SESSION: b"\4\5\6", _MARKER: b"P", _PROTECTED: b"\1\2", _AEAD: b"\1"}

_DATA = {_UNPROTECTED, _PROTECTED, _AEAD}

_IS_PACKET, _IS_NEW = 0x80, 0x40
_INDETERMINATE = 3
_TWO_OCTETS, _PARTIAL, _FOUR_OCTETS = 192, 224, 255


class _EndOfFileError(Exception):
    """The file ends within a packet."""


def is_message(path: Path) -> bool:
    """Return whether a file starts like an encrypted OpenPGP message, binary or with ASCII armor in its first line."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    armored = ARMOR.match(head)
    try:
        return _is_encrypted(base64.b64decode(armored[1]) if armored else head)
    except binascii.Error:
        return False


class Packet(NamedTuple):
    """The start of a packet.

    Attributes:
        tag: Its type (RFC 9580, section 5).
        content: The first octet of its content, often a version; empty if it is missing.
    """

    tag: int
    content: bytes


def first_packet(head: bytes) -> Packet | None:
    """Return the packet that bytes start with, or None if they do not look like one."""
    if not head or not head[0] & _IS_PACKET:
        return None
    content = 1 + (_new_length_octets(head[1:2]) if head[0] & _IS_NEW else (1, 2, 4, 0)[head[0] & 3])
    return Packet(_tag(head[0]), head[content : content + 1])


def _is_encrypted(head: bytes) -> bool:
    """Return whether bytes start with a packet of an encrypted message in a known version."""
    packet = first_packet(head)
    # The version, too: the first byte alone also fits images, archives and text in UTF-8
    return packet is not None and packet.content in {bytes([octet]) for octet in _VERSIONS.get(packet.tag, b"")}


def _new_length_octets(first: bytes) -> int:
    if not first:
        return 1
    return 5 if first[0] == _FOUR_OCTETS else 2 if _TWO_OCTETS <= first[0] < _PARTIAL else 1


def is_cut(path: Path) -> bool:
    """Return whether the end of a message is missing: its packets are longer than the file, or its armor has no last line."""
    with path.open("rb") as stream:
        if ARMOR.match(stream.read(HEAD_BYTES)):
            stream.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return ARMOR_END not in stream.read()
        stream.seek(0)
        try:
            _walk(stream, path.stat().st_size)
        except _EndOfFileError:
            return True
    return False


def _walk(stream: BinaryIO, size: int) -> None:
    """Go from packet to packet, to the end of the message or to bytes that are not a packet.

    Raises:
        _EndOfFileError: The file ends before the message.
    """
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
    """Go to the end of a packet, which may consist of parts with a length each."""
    length, is_last = _new_length(stream) if first & _IS_NEW else (_octets(stream, 1 << (first & 3)), True)
    for _ in budget:
        if stream.seek(length, os.SEEK_CUR) > size:
            raise _EndOfFileError
        if is_last:
            return
        length, is_last = _new_length(stream)


def _new_length(stream: BinaryIO) -> tuple[int, bool]:
    """Return the length of a packet or of a part of it, in bytes, and whether it is the last part (RFC 9580, section 4.2.1)."""
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
