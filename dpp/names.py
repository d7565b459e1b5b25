"""Make readable and safe names: slugs, keys and file names.

For any text in a manifest, the result is a single path component that cannot lead out of its folder.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit, urlunsplit

SLUG_LENGTH = 40
NAME_BYTES = 180
KEY_DIGITS = 16
# Enough for all files in flight, each of which needs its names about ten times.
CACHED = 256
RESERVED_SUFFIXES = (".part", ".dpp.json")
_SIXTY_BITS = (1 << 60) - 1
_UNREADABLE = re.compile(r"[^a-z0-9._-]+")
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|\ud800-\udfff]')


def digest(*parts: str, digits: int = KEY_DIGITS) -> str:
    """Return the first hexadecimal digits of the SHA-256 of the parts."""
    # The length before each part keeps ("ab", "c") and ("a", "bc") apart.
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        sha.update(b"%d:" % len(data))
        sha.update(data)
    return sha.hexdigest()[:digits]


def mark(text: str) -> int:
    """Return a hash of 60 bits that is valid in this process only."""
    # The allocator takes 32 bytes for an integer of up to 60 bits, and 48 for a larger one.
    return hash(text) & _SIXTY_BITS


def slug(text: str) -> str:
    """Return at most 40 lower-case ASCII letters, digits, dots, dashes and underscores."""
    plain = text if text.isascii() else unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return _UNREADABLE.sub("-", plain.lower()).strip("-._")[:SLUG_LENGTH] or "file"


@functools.lru_cache(CACHED)
def identity(url: str, expected: str | None = None) -> str:
    """Return the part of a URL that identifies a file; URLs with the same identity are one file.

    It has no password and no fragment, and for http and https no user. With the file's digest, it has no query either.

    Args:
        url: The URL.
        expected: The digest that the manifest expects, such as ``sha256=9f86...``, or None.
    """
    # A changed password is no reason to download a file again. With other schemes, such as sftp, users may see different files.
    parts = urlsplit(url)
    scheme, (user, _, host) = parts.scheme.lower(), parts.netloc.rpartition("@")
    name = "" if scheme in ("http", "https") else user.partition(":")[0]
    place = f"{name}@{host}" if name else host
    # A list that is made again has URLs with new signatures. The digest tells the files of one path apart.
    if is_versioned(url, expected):
        return urlunsplit((scheme, place, parts.path, "", expected or ""))
    return urlunsplit((scheme, place, parts.path, parts.query, ""))


def has_one_host(url: str) -> bool:
    """Whether all programs find the same host in a URL: it has no backslash before its path.

    For the URL standard of browsers, and for urllib3, a backslash ends the host, and for RFC 3986 it does not.
    """
    return "\\" not in urlsplit(url).netloc


def host_of(url: str) -> str:
    """Return the host of a URL, with its port if it has one, in lower case."""
    return urlsplit(url).netloc.rpartition("@")[2].lower()


def is_versioned(url: str, expected: str | None) -> bool:
    """Whether a digest takes the place of the URL's query in the identity of a file."""
    return expected is not None and "?" in url


@functools.lru_cache(CACHED)
def download_key(url: str, expected: str | None = None, version: str | None = None) -> str:
    """Return the key of a download; files of the same identity and version share it."""
    return f"{slug(stem(url))}-{digest(*_identities(url, expected, version))}"


@functools.lru_cache(CACHED)
def file_key(file_id: str, url: str, expected: str | None = None, version: str | None = None) -> str:
    """Return the key of a file: a slug of its id and a digest of id, identity, and version of the source if the manifest gives it."""
    return f"{slug(file_id)}-{digest(file_id, *_identities(url, expected, version))}"


def _identities(url: str, expected: str | None, version: str | None) -> tuple[str, ...]:
    return (identity(url, expected),) if version is None else (identity(url, expected), version)


def subfolder(key: str) -> str:
    """Return the first two digits of a key's digest, the name of the folder for the key's targets."""
    return key[-KEY_DIGITS:][:2]


@functools.lru_cache(CACHED)
def basename(url: str) -> str:
    """Return the last part of the URL's path, decoded, or the host if the path is empty."""
    parts = urlsplit(url)
    named = [part for part in unquote(parts.path, errors="replace").split("/") if part not in ("", ".")]
    return named[-1] if named else parts.hostname or "file"


def stem(url: str) -> str:
    """Return the last part of the URL's path without its suffix."""
    name = basename(url)
    dot = name.rfind(".")
    return name[:dot] if 0 < dot < len(name) - 1 else name


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 file`` or ``2 files``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def safe_name(name: str) -> str:
    """Return a safe file name that is as similar to the given one as possible, at most 180 bytes long.

    Separators, control characters and invalid Unicode become ``_``, and leading dots are removed. A longer name is shortened; it
    keeps its suffix, and a digest replaces the removed part.
    """
    clean = _UNSAFE.sub("_", unicodedata.normalize("NFC", name)).strip(" .") or "file"
    if clean.endswith(RESERVED_SUFFIXES):
        clean += "_"
    if len(clean.encode()) > NAME_BYTES:
        clean = _shorten_name(clean)
    return clean


def _shorten_name(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    suffix = suffix if len(suffix.encode()) <= SLUG_LENGTH else ""
    mark = f"-{digest(name, digits=8)}{suffix}"
    room = NAME_BYTES - len(mark.encode())
    return name.encode()[:room].decode("utf-8", "ignore") + mark


def close_match(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most similar, or "" if none is; case and underscores or dashes do not matter."""
    folded = {_folded(other): other for other in known}
    return next((folded[near] for near in difflib.get_close_matches(_folded(name), folded, n=1)), "")


def suggestion(name: str, known: Iterable[str], also: str = "") -> str:
    """Return the end of a message about an unknown name: the most similar known name, or all known names.

    Args:
        name: The unknown name.
        known: The known names.
        also: Another form that is accepted, such as ``MODULE:CLASS``.
    """
    names = sorted(set(known))
    near = close_match(name, names)
    if near:
        return f"did you mean {near!r}?"
    if not names:
        return f"none is available{also and f'; use {also}'}"
    return f"choose from {', '.join(names)}{also and f', or use {also}'}"


def _folded(name: str) -> str:
    return name.lower().replace("_", "-")
