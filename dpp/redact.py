"""The one place that takes secrets out of what people get to see.

A secret is: the user part of a URL, its whole query, the value of any header that a manifest gives, and the value of an option
that its plugin declares secret. Logs, reports, ledgers, task ids and messages carry only what passed through here.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus, unquote_to_bytes, urlsplit, urlunsplit

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

MASK = "***"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{0,40}://[^\s'\"<>]+")  # without a bound, a long word would take the square of its length
_AFTER_A_URL = ":;,.!)"
_MAY_HIDE = re.compile(r"[@?#\[]")
_SHORTEST_SECRET = 4
_SECRET_NAME = re.compile(
    r"passw|passphrase|pwd|secret|token(?!iz)|credential|(access|private|signing)_key|api_?key|authorization|bearer|cookie|headers|signature|dsn",
    re.IGNORECASE,
)
_USER = re.compile(r"^[^/\s@]+:[^/\s@]*@")  # user:password@proxy:3128, a proxy without a scheme
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
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


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
    netloc = f"{MASK}@{host}" if at and user else host
    return urlunsplit((parts.scheme, netloc, parts.path, MASK if parts.query else "", ""))


def url_secrets(url: str) -> set[str]:
    """Return the parts of a URL that must not be shown, as they are written and decoded."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return {url}
    user = parts.netloc.rpartition("@")[0]
    values = (pair.partition("=")[2] for pair in parts.query.split("&"))
    found = {user, parts.username or "", parts.password or "", parts.query, *values}
    found = {form for text in found for form in (text, unquote(text), unquote_plus(text)) if form}
    return found | ({b64encode(unquote_to_bytes(user)).decode()} if user else set())  # as Basic sends it (RFC 7617)


def secrets_of(urls: Iterable[str], headers: Mapping[str, str] | None) -> set[str]:
    """Return every secret that a file's URLs and headers carry, in each form that a message may hold it in."""
    found = {part for value in (headers or {}).values() for part in (value, *value.split())}
    for url in urls:
        found |= url_secrets(url)
    return _written(found)


def _written(secrets: Iterable[str]) -> set[str]:
    """Return secrets as they are, escaped as Python and JSON do, and percent-encoded."""
    return {form for secret in secrets if secret for form in (secret, *(escape(secret) for escape in _ESCAPES))}


def declared_secrets(value: Any) -> set[str]:
    """Return what a plugin declares secret in its options: the values of pydantic's ``SecretStr``, ``SecretBytes`` and ``Secret``."""
    if isinstance(value, (Secret, SecretStr, SecretBytes)):
        text = value.get_secret_value()
        return {text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else str(text)}
    if isinstance(value, BaseModel):
        value = [part for _, part in value]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple, set, frozenset)) else ()
    return {secret for part in parts for secret in declared_secrets(part)}


def keep_secret(secrets: Iterable[str]) -> None:
    """Mask these in every text from now on, for as long as the process lasts."""
    _declared.update(_written(secrets))


def printable(text: str) -> str:
    """Return text with control characters escaped, all but line feeds and tabs: what a server sends must not steer a terminal.

    Those that turn the direction of writing are among them, as text that follows could pass for something else.
    """
    return _CONTROL.sub(lambda match: ascii(match.group())[1:-1], text)


def redact_text(text: str, secrets: Iterable[str] = ()) -> str:
    """Return text with every URL in it redacted, and these secrets and those of options masked.

    Secrets shorter than four characters are left: masking them would eat ordinary words. What is no Unicode,
    such as the name of a file in another encoding, is escaped, so that the text can be written anywhere.
    """
    for secret in sorted({*secrets, *_declared}, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, MASK)
    shown = _URL.sub(_without_secrets, text) if "://" in text else text
    return shown.encode("utf-8", "backslashreplace").decode()


def _without_secrets(match: re.Match[str]) -> str:
    url = match.group().rstrip(_AFTER_A_URL)
    return redact_url(url) + match.group()[len(url) :]


def is_secret_name(name: str) -> bool:
    """Whether a setting, an option or a variable of this name holds a secret, as far as its name tells; not where to find one."""
    return bool(_SECRET_NAME.search(name)) and not name.lower().endswith(("_file", "_env"))


def redact_value(name: str, value: Any) -> Any:
    """Return the value of a setting or an option as people may see it: what its name or a name within calls secret is masked.

    Args:
        name: Its name.
        value: Something that JSON can hold.
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
    """Return the options of plugins that may be stored, and the names of those that may not.

    An option may not be stored if its name, or a name in its value, is like that of a password, or if it has a URL with
    a user or a query. Names of variables and of files that hold a secret (``passphrase_env``) are none.

    Args:
        options: Options by plugin.
        secret: Names of options that are secret whatever they are called.

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
