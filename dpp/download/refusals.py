"""Why a server refused a request: the text of its error page, for the message of the failure."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Collection
from email.message import Message
from typing import Any

from dpp.download.codings import Decoder
from dpp.download.redirects import Headers
from dpp.errors import FetchError
from dpp.redact import redact_text

PAGE_BYTES = 16 * 1024
PAGE_SECONDS = 1.0
_SHOWN = 200
# What JSON names a reason: problem details (RFC 9457), OAuth, and the APIs of many services. The first that is present counts.
_KEYS = ("message", "detail", "error_description", "error", "errors", "msg", "description", "reason", "title")
# S3, Google and Azure Storage; the limits keep the search linear.
_XML = re.compile(r"<(?:\w{1,20}:)?(message|details?|faultstring)(?:\s[^<>]{0,200})?>([^<]*)<", re.IGNORECASE)
_TAG = re.compile(r"<[/!?]?[a-z][^<>]*>", re.IGNORECASE)
_HIDDEN = ("script", "style", "title", "template", "svg", "noscript")
_CHARSETS = ("utf", "iso-8859", "windows-12", "us-ascii", "shift_jis", "euc-", "gb", "big5", "koi8")


def reason_in(page: bytes, headers: Headers, secrets: Collection[str]) -> str:
    """Return the first 200 printable characters of the reason in an error page, without secrets; "" if there is none.

    Args:
        page: The beginning of the body of the response, at most ``PAGE_BYTES``.
        headers: The headers of the response.
        secrets: What must not be shown: the page may repeat the URL and the headers of the request.
    """
    facts = Message()
    facts["Content-Type"] = headers.get("Content-Type") or "text/plain"
    text = _page_text(page, headers, str(facts.get_content_charset() or "utf-8"))
    if "\0" in text:
        return ""
    reason = redact_text(_stated_reason(text.strip(), facts.get_content_type()), secrets)
    shown = "".join(character if character.isprintable() else " " for character in reason)
    return redact_text(" ".join(shown.split()), secrets)[:_SHOWN].strip()


def _page_text(page: bytes, headers: Headers, charset: str) -> str:
    coding = (headers.get("Content-Encoding") or "").strip().lower().removeprefix("x-")
    if coding in ("gzip", "deflate"):
        try:
            page = next(Decoder(coding).feed(page), b"")
        except FetchError:
            return ""
    # Python has text codings that are no charsets, and slow ones.
    known = charset if charset.startswith(_CHARSETS) else "utf-8"
    try:
        return page[:PAGE_BYTES].decode(known, "replace")
    except LookupError:
        return page[:PAGE_BYTES].decode("utf-8", "replace")


def _stated_reason(text: str, kind: str) -> str:
    if kind.endswith("json") or text.startswith(("{", "[")):
        try:
            return _in_json(json.loads(text)) or text
        except (ValueError, RecursionError):
            return text
    if not text.startswith("<"):
        return text
    is_html = "html" in kind or "<html" in text[:1000].lower()
    found = [] if is_html else [html.unescape(match[2]) for match in _XML.finditer(text.replace("<![CDATA[", "").replace("]]>", ""))]
    return " ".join(found) or _visible(text)


def _in_json(value: Any) -> str:
    """Return the first text in a value under one of the names of a reason."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return next((text for text in map(_in_json, value) if text), "")
    if not isinstance(value, dict):
        return ""
    by_name = {str(name).lower(): item for name, item in value.items()}
    return next((text for name in _KEYS if (text := _in_json(by_name.get(name)))), "")


def _visible(text: str) -> str:
    """Return the text of an HTML page as a browser shows it; its title if it shows nothing."""
    first, *rest = text.split("<!--")
    text = first + "".join(comment.partition("-->")[2] for comment in rest)
    shown, title, hidden, end = [], "", "", 0
    for tag in _TAG.finditer(text):
        part, end = text[end : tag.start()], tag.end()
        if not hidden:
            shown.append(part)
        elif hidden == "title":
            title = title or part
        name = tag.group().strip("<!?/>").split(maxsplit=1)[0].rstrip("/").lower()
        if hidden and tag.group().startswith("</") and name == hidden:
            hidden = ""
        elif not hidden and name in _HIDDEN and not tag.group().startswith("</"):
            hidden = name
    if not hidden:
        shown.append(text[end:])
    return html.unescape(" ".join(shown)).strip() or html.unescape(title)
