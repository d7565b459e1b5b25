"""Remove secrets from all texts that people can see.

Secrets are the user part of a URL, its whole query, the values of headers in a manifest, and the values of options that a plugin
declares secret. Every text in logs, reports, ledgers, task ids and messages passes through this module.
"""

from __future__ import annotations

import functools
import json
import re
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import SplitResult, quote, quote_plus, unquote, unquote_plus, unquote_to_bytes, urlsplit, urlunsplit

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

MASK = "***"
# Without the limit of 40, a long word would take time quadratic in its length.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{0,40}://[^\s'\"<>]+")
_AFTER_A_URL = ":;,.!)"
_MAY_HIDE = re.compile(r"[@?#\[]")
_SHORTEST_SECRET = 4
_SECRET_NAME = re.compile(
    r"passw|passphrase|pwd|secret|token(?!iz)|credential|(access|private|signing)_key|api_?key|authorization|bearer|cookie|headers|signature|dsn",
    re.IGNORECASE,
)
# A proxy without a scheme: user:password@proxy:3128.
_USER = re.compile(r"^[^/\s@]+:[^/\s@]*@")
_ESCAPES: tuple[Callable[[str], str], ...] = (
    lambda text: repr(text)[1:-1],
    lambda text: ascii(text)[1:-1],
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: quote(text, errors="replace"),
    lambda text: quote(text, safe="", errors="replace"),
    lambda text: quote_plus(text, errors="replace"),
)
_declared: set[str] = set()
_at_work: dict[int, _Work] = {}
# Control characters except line feed and tab; the bidirectional formatting characters of Unicode (UAX #9, table 2); line and
# paragraph separators.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_LINE_START = re.compile(r"\n(?=\S)")


def redact_url(url: str) -> str:
    """Return the URL without user part, query and fragment.

    Example:
        >>> redact_url("https://me:pw@example.org/a.csv?sig=1")
        'https://***@example.org/a.csv?***'
    """
    if not _MAY_HIDE.search(url):
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    user, at, host = parts.netloc.rpartition("@")
    if not (at or _has_valid_port(parts)):
        # What looks like the port is the beginning of a password with a slash that is not percent-encoded.
        return f"{parts.scheme}://{MASK}"
    netloc = f"{MASK}@{host}" if at and user else host
    return urlunsplit((parts.scheme, netloc, parts.path, MASK if parts.query else "", ""))


def _has_valid_port(parts: SplitResult) -> bool:
    """Whether the port of a URL is a number, or missing."""
    try:
        _ = parts.port
    except ValueError:
        return False
    return True


def url_secrets(url: str) -> set[str]:
    """Return the parts of a URL that must not be shown, as written and decoded."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return {url}
    user = parts.netloc.rpartition("@")[0]
    values = (pair.partition("=")[2] for pair in parts.query.split("&"))
    found = {user, parts.username or "", parts.password or "", parts.query, *values}
    found = {form for text in found for form in (text, unquote(text), unquote_plus(text)) if form}
    # HTTP's Basic authentication sends the user part in base64 (RFC 7617).
    return found | ({b64encode(unquote_to_bytes(user)).decode()} if user else set())


def secrets_of(urls: Iterable[str], headers: Mapping[str, str] | None) -> set[str]:
    """Return all secrets in a file's URLs and headers, in each form in which a message may contain them."""
    found = {part for value in (headers or {}).values() for part in _header_secrets(value)}
    for url in urls:
        found |= url_secrets(url)
    return _written(found)


class _Listed(Protocol):
    """A file as a manifest lists it."""

    @property
    def url(self) -> str: ...
    @property
    def urls(self) -> list[str] | None: ...
    @property
    def headers(self) -> dict[str, str] | None: ...


def secrets_of_file(file: _Listed) -> set[str]:
    """Return the secrets of a file, as in :func:`secrets_of`."""
    return secrets_of([file.url, *(file.urls or ())], file.headers)


class _Work:
    """A file that a thread works on; its secrets are looked for when a text comes, as most stages of most files write none."""

    def __init__(self, file: _Listed) -> None:
        self._file = file

    @functools.cached_property
    def secrets(self) -> set[str]:
        return secrets_of_file(self._file)


def hide_secrets_of(file: _Listed | None) -> None:
    """Mask the secrets of a file in all texts that this thread redacts from now on, instead of those of another file; None for none."""
    if file is None:
        _at_work.pop(threading.get_ident(), None)
    else:
        _at_work[threading.get_ident()] = _Work(file)


def _secrets_at_work() -> set[str]:
    """Return the secrets of the file that this thread works on; of all files at work in a thread of its own, as steps may start threads."""
    own = _at_work.get(threading.get_ident())
    return own.secrets if own else set().union(*(work.secrets for work in list(_at_work.values())))


def _header_secrets(value: str) -> set[str]:
    """Return the secrets in a header: its words, the values of cookies, and what Basic authentication has in base64."""
    words = value.split()
    found = {value, *words, *(pair.partition("=")[2].strip() for pair in value.split(";"))}
    if len(words) == 2 and words[0].lower() == "basic":  # noqa: PLR2004 - the scheme and its credentials
        with suppress(ValueError):
            user = b64decode(words[1], validate=True).decode("utf-8", "replace")
            found |= {user, *user.partition(":")[::2]}
    return found


def _written(secrets: Iterable[str]) -> set[str]:
    """Return secrets unchanged, with the escapes of Python and JSON, and percent-encoded."""
    return {form for secret in secrets if secret for form in (secret, *(escape(secret) for escape in _ESCAPES))}


def declared_secrets(value: Any) -> set[str]:
    """Return the values that a plugin declares secret in its options with pydantic's ``SecretStr``, ``SecretBytes`` or ``Secret``."""
    if isinstance(value, (Secret, SecretStr, SecretBytes)):
        text = value.get_secret_value()
        return {text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else str(text)}
    if isinstance(value, BaseModel):
        value = [part for _, part in value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple, set, frozenset)) else ()
    return {secret for part in parts for secret in declared_secrets(part)}


def keep_secret(secrets: Iterable[str]) -> None:
    """Mask these secrets in all texts from now on, until the process ends."""
    _declared.update(_written(secrets))


def printable(text: str) -> str:
    """Return text with control characters escaped, except line feeds and tabs."""
    # Text from a server must not control the terminal, nor, with changes of the writing direction, display as another text.
    return _CONTROL.sub(lambda match: ascii(match.group())[1:-1], text)


def one_line(text: str) -> str:
    """Return text as a part of a line: with all control characters escaped, line feeds and tabs too."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def as_entry(text: str) -> str:
    """Return text as one entry of a log or one message on a terminal: printable, with its further lines indented."""
    # Otherwise a line feed in a file's id or in an exception could forge an entry.
    return _LINE_START.sub("\n  ", printable(text))


def printable_json(text: str) -> str:
    """Return JSON with the same characters escaped as in :func:`printable`, so that it stays the same value."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def redact_text(text: str, secrets: Iterable[str] = ()) -> str:
    """Return text with its URLs redacted, and these secrets, those of options and those of the file at work masked.

    Invalid Unicode is escaped.
    """
    # Secrets of less than four characters are not masked, as they occur in ordinary words.
    for secret in sorted({*secrets, *_declared, *_secrets_at_work()}, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, MASK)
    # File names in another encoding lead to invalid Unicode, which could not be written to a UTF-8 file.
    shown = _URL.sub(_without_secrets, text) if "://" in text else text
    return shown.encode("utf-8", "backslashreplace").decode()


def _without_secrets(match: re.Match[str]) -> str:
    url = match.group().rstrip(_AFTER_A_URL)
    return redact_url(url) + match.group()[len(url) :]


def is_secret_name(name: str) -> bool:
    """Whether the name of a setting, option or variable suggests that its value is a secret."""
    # Names with these suffixes state where a secret is stored, which is not secret.
    return bool(_SECRET_NAME.search(name)) and not name.lower().endswith(("_file", "_env"))


def redact_value(name: str, value: Any) -> Any:
    """Return the value of a setting or option for display: masked if its name suggests a secret, with secrets inside it masked.

    Args:
        name: Name of the setting or option.
        value: A value that JSON can represent.
    """
    if is_secret_name(name) and value not in (None, ""):
        return MASK
    if isinstance(value, Mapping):
        return {key: redact_value(str(key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_value(name, item) for item in value]
    if not isinstance(value, str):
        return value
    return redact_text(_USER.sub(f"{MASK}@", value))


def public_options(options: Mapping[str, Mapping[str, Any]], secret: Collection[str] = ()) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the plugin options that may be stored, and the names of those that may not.

    An option must not be stored if its name, or a name in its value, suggests a secret, or if it contains a URL with
    a user or a query. Names of variables and files with a secret (``passphrase_env``) may be stored.

    Args:
        options: Options by plugin.
        secret: Names of options that are secret, whatever their names suggest.

    Returns:
        The options that may be stored, and ``PLUGIN.OPTION`` for each of the others, in order.

    Example:
        >>> public_options({"sftp": {"password": "x", "timeout": 5}})
        ({'sftp': {'timeout': 5}}, ['sftp.password'])
    """
    public: dict[str, dict[str, Any]] = {}
    withheld = []
    for plugin, given in options.items():
        hidden = {name for name, value in given.items() if name in secret or redact_value(name, value) != value}
        public[plugin] = {name: value for name, value in given.items() if name not in hidden}
        withheld += [f"{plugin}.{name}" for name in sorted(hidden)]
    return public, withheld
