"""Media types: what a server states, what the first bytes show, and whether that is what was expected.

Sources: RFC 9110, section 8.3 (Content-Type); WHATWG MIME Sniffing, section 7.1 (how HTML begins).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

HEAD_BYTES = 512
HTML = "text/html"
_HTML_TYPES = frozenset({HTML, "application/xhtml+xml"})
# Servers send these for any file, so they say nothing.
_GENERIC = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/x-download", "application/force-download"})
_MESSAGES = re.compile(r"(application|text)/(json|xml)|application/problem\+(json|xml)")
_HTML_SUFFIXES = frozenset({".html", ".htm", ".xhtml", ".xht", ".shtml", ".mhtml", ".php", ".asp", ".aspx", ".jsp", ".cgi", ".cfm", ".do"})
_BINARY_SUFFIXES = frozenset(
    {
        *(".pdf", ".doc", ".docx", ".xls", ".xlsx", ".ppt", ".pptx", ".odt", ".ods", ".odp", ".epub", ".exe", ".dmg", ".iso"),
        *(".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".tar", ".jar", ".whl", ".deb", ".rpm", ".gpg", ".pgp"),
        *(".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".webp", ".bmp", ".ico", ".mp3", ".mp4", ".m4a", ".wav", ".ogg", ".avi"),
        *(".mov", ".mkv", ".webm", ".parquet", ".feather", ".npy", ".npz", ".nc", ".h5", ".hdf5", ".fits", ".bam", ".cram", ".grib"),
        *(".shp", ".dbf", ".sqlite"),
    }
)
_HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?[\t\n\x0c\r ]*(?:<!--.*?-->[\t\n\x0c\r ]*)*<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE | re.DOTALL
)
_STARTS = {
    b"%PDF-": "application/pdf",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"PK\x03\x04": "application/zip",
    b"\x1f\x8b": "application/gzip",
    b"<?xml": "application/xml",
}
_TYPE = re.compile(r"[a-z0-9!#$&^_.+*-]+/[a-z0-9!#$&^_.+*-]+")


def check_types(text: str) -> str:
    """Return a list of media types such as ``application/pdf`` or ``image/*,text/csv`` in lower case, or raise ValueError."""
    wanted = [one.strip().lower() for one in text.split(",")] if text.strip() else []
    if not all(map(_TYPE.fullmatch, wanted)):
        raise ValueError("should be media types separated by commas, such as application/pdf or image/*")
    return ",".join(wanted)


def fits(got: str | None, wanted: str) -> bool:
    """Whether a media type is one of those wanted; see :func:`check_types`. An unknown type is none."""
    return got is not None and any(fnmatchcase(got, one) for one in wanted.split(","))


def media_type(stated: object, head: bytes) -> str | None:
    """Return the media type of a file, in lower case and without parameters; None if it is unknown.

    Args:
        stated: The Content-Type that the source states, if any.
        head: The first bytes of the file.
    """
    given = stated.partition(";")[0].strip().lower() if isinstance(stated, str) else ""
    shown = next((name for start, name in _STARTS.items() if head.startswith(start)), None)
    # A web page is one whatever its server says.
    if is_html(head):
        return given if given in _HTML_TYPES else HTML
    return shown or given or None if given in _GENERIC else given


def is_html(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a web page."""
    return _HTML_START.match(head) is not None


def contradiction(names: Iterable[str], got: str | None) -> str | None:
    """Return why a file of this type is probably not the one that its name promises; None if it may be.

    Args:
        names: Names of the file; the first with a suffix counts.
        got: Its media type, see :func:`media_type`.
    """
    name = next((name for name in names if PurePosixPath(name).suffix), "")
    suffix = PurePosixPath(name).suffix.lower()
    if not suffix or got is None or suffix in _HTML_SUFFIXES:
        return None
    if got in _HTML_TYPES:
        return f"{suffix} expected, got a web page ({got}), perhaps of a sign-in or an error"
    if _MESSAGES.fullmatch(got) and suffix in _BINARY_SUFFIXES:
        return f"{suffix} expected, got a message ({got}), perhaps of an error"
    return None
