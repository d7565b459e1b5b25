"""Describe what a file is by its first bytes, for messages about files that are not encrypted messages or signatures."""

from __future__ import annotations

import re

from dpp_gpg.packets import first_packet

SIGNATURE = "a detached signature"
# RFC 9580, section 6.2.1
_ARMORS = {
    b"MESSAGE": "an armored OpenPGP message that is not encrypted",
    b"SIGNED MESSAGE": "a clear-signed text, which is not encrypted",
    b"SIGNATURE": SIGNATURE,
    b"PUBLIC KEY BLOCK": "a public key",
    b"PRIVATE KEY BLOCK": "a secret key",
}
# Mail programs and editors put a byte order mark, quote marks or blanks before it.
_ARMOR = re.compile(rb"^(?:\xef\xbb\xbf|[> \t|]+)?-----BEGIN PGP ([A-Z ]+?)(?:, PART [0-9/]+)?-----", re.MULTILINE)
# By tag (RFC 9580, section 5), with the octets that their content may begin with
_PACKETS = {
    2: (SIGNATURE, b"\2\3\4\5\6"),
    4: ("a signed OpenPGP message that is not encrypted", b"\3\6"),
    5: ("a secret key", b"\3\4\5\6"),
    6: ("a public key", b"\2\3\4\5\6"),
    8: ("a compressed OpenPGP message that is not encrypted", b"\0\1\2\3"),
    11: ("an OpenPGP message that is not encrypted", b"btuml"),
}
_OTHERS = {
    "an HTML page": rb"(?i)(?:\xef\xbb\xbf)?\s*(?:<!--[^>]*-->\s*)*<(?:!doctype\s+html|html|head|body|title)",
    "a PDF": rb"%PDF-",
    "a zip archive": rb"PK\x03\x04",
    "a gzip file": rb"\x1f\x8b\x08",
    "a bzip2 file": rb"BZh[1-9]1AY",
    "an xz file": rb"\xfd7zXZ\x00",
    "a 7z archive": rb"7z\xbc\xaf\x27\x1c",
}
_NOT_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")


def described(head: bytes) -> str:
    """Return a description of a file from its first bytes."""
    if not head:
        return "an empty file"
    other = next((kind for kind, magic in _OTHERS.items() if re.match(magic, head)), None)
    return other or _armored(head) or _binary(head) or ("a file of another format" if _NOT_TEXT.search(head) else "text")


def _armored(head: bytes) -> str | None:
    armor = _ARMOR.search(head)
    if armor is None or armor[1] not in _ARMORS:
        return None
    if head[: armor.start(1)].lstrip(b"\r\n") != b"-----BEGIN PGP ":
        return f"text with an OpenPGP {armor[1].decode().lower()} in it; remove all text and marks before it"
    return _ARMORS[armor[1]]


def _binary(head: bytes) -> str | None:
    packet = first_packet(head)
    kind, octets = _PACKETS.get(packet.tag, (None, b"")) if packet else (None, b"")
    return kind if packet and packet.content and packet.content in octets else None
