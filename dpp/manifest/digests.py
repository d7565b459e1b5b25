"""Read the digests in a manifest: in the columns that repositories and people use, and in several notations.

Sources of the notations: ``md5:0cc1...`` (Zenodo), ``supplied_md5`` (Figshare), ``{"type": "MD5", "value": "0cc1..."}`` (Dataverse),
``sha256-4f8B...`` (W3C Subresource Integrity, section 3.1), ``sha-256=:4f8B...:`` (RFC 9530, section 2), Base64
(Content-MD5, RFC 1864), plain hexadecimal digits (md5sum).
"""

from __future__ import annotations

import binascii
import functools
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Any

from dpp.models import DIGESTS, FileData

MOST_COLUMNS = 1000
_BY_DIGITS = {digits: algorithm for algorithm, digits in DIGESTS.items()}
_ALGORITHM = "|".join(DIGESTS)
_OF_ALGORITHM = re.compile(
    rf"(?:file|content|data|supplied|computed|expected|checksum|hash|digest)?({_ALGORITHM})(?:sum|checksum|hash|digest|hex|hexdigest)?"
)
_OF_ANY = re.compile(r"(?:file|content|data|supplied|computed|expected)?(?:checksums?|hash|hashes|digests?|integrity)")
# A column beside one of the latter; "type" alone may be that of the file.
_BESIDE = re.compile(r"((?:file|content|data|supplied|computed|expected)?(?:checksum|hash|digest))(?:type|algorithm|algo)|algorithm")
# A column "algorithm" may also have how the file was made or packed.
_NAMES_ALGORITHM = re.compile(r"md\d|sha[-_ ]?\d|shake|blake|crc|xxh|sm3|adler|ripemd|whirlpool|tiger", re.IGNORECASE)
# DCAT names algorithms by the URIs of SPDX: http://spdx.org/rdf/terms#checksumAlgorithm_sha256
_SPDX = "checksumAlgorithm_"
_LABELLED = re.compile(r"(md5|sha-?(?:1|224|256|384|512))[:=-]:?(.+?):?", re.IGNORECASE)
_LOOKS_LIKE_ONE = re.compile(
    r"md5|sha(?:sum|[-_ ]?(?:1|2|3|224|256|384|512))|checksum|digest|crc[-_ ]?32|blake|xxh|(?:^|[^a-z])hash(?:$|[^a-z])"
)
_UNKNOWN = "other"  # an algorithm that is not in DIGESTS
_HEX = re.compile(r"[0-9A-Fa-f]+")
# Entity tags have a meaning of their own, and those of S3 have 32 digits.
_OTHERS = frozenset(FileData.model_fields) - {"sha256", "digests"} | {"etag"}


class _UnreadableError(Exception):
    """Report a value that is in no known notation."""


def with_digests(fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of an entry with its digests as ``sha256`` and ``digests``, and the problems; see :func:`read_digests`."""
    found, problems = read_digests(fields)
    sha256 = {"sha256": found.pop("sha256")} if "sha256" in found else {}
    return {**fields, **sha256, **({"digests": found} if found else {})}, problems


def read_digests(fields: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Return the digests in an entry of a manifest, and the problems of those that are wrong.

    Args:
        fields: The fields as read.

    Returns:
        Lower-case hexadecimal digits by algorithm (see :data:`dpp.models.DIGESTS`), and one sentence per problem: a digest that does
        not fit the algorithm that the column names, or two digests of one algorithm that differ.
    """
    found: dict[str, str] = {}
    named: dict[str, str] = {}
    problems: list[str] = []
    for name, value in _possible_digests(fields):
        try:
            for algorithm, digits in _digests(value, _algorithm(name, fields)):
                if found.setdefault(algorithm, digits) != digits:
                    problems.append(f"{name}: its {algorithm} differs from that in {named[algorithm]}; remove the wrong one")
                named.setdefault(algorithm, name)
        except _UnreadableError:
            pass
        except ValueError as error:
            # The model of a file checks sha256 itself.
            problems += [] if name == "sha256" else [f"{name}: {error}"]
    return found, problems


def _possible_digests(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields that are not empty and that may be digests."""
    for name, value in fields.items():
        if isinstance(name, str) and name not in _OTHERS and value is not None and value != "" and _described(name) is None:
            yield name, value


def _algorithm(name: str, fields: Mapping[str, Any]) -> str | None:
    """Return what :func:`_kind` does; for a column of any digests, the algorithm that the column beside it gives."""
    kind = _kind(name)
    if kind != "":
        return kind
    described = ((stem, str(value)) for beside, value in fields.items() if (stem := _described(beside)) is not None and value)
    labels = (label for stem, label in described if stem in _plain(name) and (stem or _NAMES_ALGORITHM.search(label)))
    label = next(labels, "").rpartition(_SPDX)[2]
    # The number of digits tells which of a family it is.
    return "" if _plain(label) in ("", "sha", "sha2") else _kind(label) or _UNKNOWN


@functools.lru_cache(MOST_COLUMNS)
def _described(name: Any) -> str | None:
    """Return the column whose algorithm the column ``name`` gives, as in ``checksum_type``; "" for any column, None if it gives none."""
    match = _BESIDE.fullmatch(_plain(name)) if isinstance(name, str) else None
    return (match[1] or "") if match else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@functools.lru_cache(MOST_COLUMNS)
def _kind(name: str) -> str | None:
    """Return the algorithm that a column's name gives, "" if it may have digests of any, None if it is no known column of digests."""
    plain = _plain(name)
    if match := _OF_ALGORITHM.fullmatch(plain):
        return match[1]
    return "" if _OF_ANY.fullmatch(plain) else None


def is_digest_column(name: str) -> bool:
    """Whether a column of this name may have digests, which are compared."""
    return name not in _OTHERS and _kind(name) is not None


def _digests(value: Any, algorithm: str | None) -> Iterator[tuple[str, str]]:
    """Yield the digests of a value with their algorithms; none if the column has none.

    Raises:
        ValueError: A digest does not fit its algorithm.
        _UnreadableError: The value is in no known notation.
    """
    if algorithm is None:
        return
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, Mapping):
            yield from _of_object({str(key).lower(): part for key, part in item.items()})
        elif isinstance(item, str):
            # Several in one text are separated by whitespace (Subresource Integrity).
            yield from (_of_text(text, algorithm) for text in item.split())
        elif algorithm and algorithm != _UNKNOWN:
            raise ValueError(_expected(algorithm))
        else:
            raise _UnreadableError


def _of_object(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the digests of an object: ``{"type": "MD5", "value": "..."}``, or one member per algorithm."""
    label = value.get("type", value.get("algorithm"))
    pairs = value.items() if label is None else [(label, value.get("value", value.get("digest")))]
    for name, digest in pairs:
        yield _of_text(str(digest).strip(), _named(str(name)))


def _named(label: str) -> str:
    """Return the algorithm that a label such as ``SHA-256`` stands for."""
    algorithm = re.sub(r"[-_ ]", "", label.lower())
    if algorithm not in DIGESTS:
        raise _UnreadableError
    return algorithm


def _of_text(text: str, algorithm: str) -> tuple[str, str]:
    labelled = _LABELLED.fullmatch(text)
    if labelled is not None:
        given = _named(labelled[1])
        if algorithm not in ("", _UNKNOWN, given):
            raise ValueError(f"{_expected(algorithm)}, got one of {given}")
        return given, _digits(labelled[2], given)
    if algorithm in DIGESTS:
        return algorithm, _digits(text, algorithm)
    if algorithm != _UNKNOWN and _HEX.fullmatch(text) and len(text) in _BY_DIGITS:
        return _BY_DIGITS[len(text)], text.lower()
    raise _UnreadableError


def _digits(text: str, algorithm: str) -> str:
    """Return a digest in hexadecimal digits or Base64 as lower-case hexadecimal digits."""
    if _HEX.fullmatch(text) and len(text) == DIGESTS[algorithm]:
        return text.lower()
    try:
        digest = b64decode(text, validate=True).hex()
    except (binascii.Error, ValueError):
        digest = ""
    if len(digest) != DIGESTS[algorithm]:
        raise ValueError(_expected(algorithm))
    return digest


def _expected(algorithm: str) -> str:
    return f"expected a digest of {algorithm}: {DIGESTS[algorithm]} hexadecimal digits, or Base64"


class UnreadDigests:
    """Find the columns that look like digests, by their name or by all their values, but are not compared."""

    def __init__(self) -> None:
        self._by_name: set[str] = set()
        self._by_value: dict[str, bool] = {}

    def see(self, fields: Mapping[str, Any]) -> None:
        """Look at an entry of a manifest."""
        for name, value in _possible_digests(fields):
            self._see(name, value, fields)
            if isinstance(value, Mapping) and _kind(name) is None and name not in self._by_name:
                # They are not compared, as they may be those of another file, such as a preview.
                for member, part in _possible_digests(value):
                    self._see(f"{name}.{member}", part, {})

    def _see(self, name: str, value: Any, fields: Mapping[str, Any]) -> None:
        """Look at a value of an entry with these fields; without fields it is none of its columns."""
        # A column that was once found not to look like one is done with, and so is one that was found to be one.
        if not self._by_value.get(name, True) or name in self._by_name or len(self._by_value) >= MOST_COLUMNS:
            return
        if _kind(name) is None and not _LOOKS_LIKE_ONE.search(name.lower()):
            self._by_value[name] = _is_hex(value)
        elif not fields or read_digests(
            {name: value, **{beside: fields[beside] for beside in fields if _described(beside) is not None}}
        ) == ({}, []):
            self._by_name.add(name)

    def names(self) -> list[str]:
        """Return the names of the columns."""
        return [*sorted(self._by_name), *(name for name, is_hex in self._by_value.items() if is_hex)]


def _is_hex(value: Any) -> bool:
    return isinstance(value, str) and len(value) in _BY_DIGITS and _HEX.fullmatch(value) is not None
