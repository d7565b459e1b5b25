"""Tests for dpp.download.refusals: the reason in an error page."""

from __future__ import annotations

import gzip
import json

import pytest
from dpp.download.refusals import PAGE_BYTES, reason_in
from urllib3 import HTTPHeaderDict


def reason(page, kind="", secrets=(), **headers):
    given = {name.replace("_", "-"): value for name, value in headers.items()} | ({"Content-Type": kind} if kind else {})
    return reason_in(page if isinstance(page, bytes) else page.encode(), HTTPHeaderDict(given), secrets)


@pytest.mark.parametrize(
    ("page", "kind", "text"),
    [
        ("Rate limit exceeded\n", "text/plain", "Rate limit exceeded"),
        ("  no\tentry\r\n\x1b[31m here\u202e ", "", "no entry [31m here"),
        ("<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", "application/xml", "Request has expired"),
        ("<Error><Message><![CDATA[a &amp; b]]></Message></Error>", "", "a & b"),
        (
            "<Error><Message>Access denied.</Message><Details>Anonymous caller</Details></Error>",
            "text/xml",
            "Access denied. Anonymous caller",
        ),
        ("<m:error><m:code/><m:message xml:lang='en'>No such\nblob</m:message></m:error>", "application/atom+xml", "No such blob"),
        ("<Error><Code>Odd</Code></Error>", "application/xml", "Odd"),
        (
            "<html><title>403</title><style>p {}</style><body><h1>No</h1><p>entry &lt;b&gt;<script>x</script></html>",
            "",
            "No entry <b>",
        ),
        ("<!DOCTYPE html><html><title>Please sign in</title><script>if (a<b) x</script></html>", "text/html", "Please sign in"),
        ("<!-- x --><p>Please declare your user agent<br/>now<!-- never ends", "text/html", "Please declare your user agent now"),
        ("<html><Message>shown as it is</Message>", "text/html", "shown as it is"),
        ('{"message": "Request has expired"}', "application/json", "Request has expired"),
        ('{"error": {"code": 403, "message": "no key"}}', "application/json; charset=utf-8", "no key"),
        ('{"type": "about:blank", "title": "Forbidden", "detail": "not yours"}', "application/problem+json", "not yours"),
        ('{"errors": [{"detail": "first"}, {"detail": "second"}]}', "", "first"),
        ('{"error": "invalid_token", "error_description": "it expired"}', "", "it expired"),
        ('["wrong"]', "", "wrong"),
        ('{"Message": "aws"}', "application/x-amz-json-1.0", "aws"),
        ('{"other": 1}', "application/json", '{"other": 1}'),
        ('{"message": "cut', "application/json", '{"message": "cut'),
        ("[" * 9000, "application/json", "[" * 200),
        ("", "text/html", ""),
        (b"\x89PNG\0\0", "image/png", ""),
        ("é".encode("latin-1"), "text/plain; charset=ISO-8859-1", "é"),
        (b"a\xffb", "text/plain; charset=punycode", "a\ufffdb"),
        (b"ab", "text/plain; charset=utf-999", "ab"),
    ],
)
def test_the_reason_of_a_page(page, kind, text):
    assert reason(page, kind) == text


def test_a_reason_has_200_characters_at_most():
    assert reason("ab " * 100_000) == ("ab " * 100)[:200].strip()


def test_a_page_may_be_coded():
    assert reason(gzip.compress(b"no entry"), Content_Encoding="gzip") == "no entry"
    assert reason(gzip.compress(bytes(50_000_000))[:PAGE_BYTES], Content_Encoding="gzip") == ""
    assert reason(b"no gzip", Content_Encoding="x-gzip") == ""


@pytest.mark.parametrize("form", ["{}", "<p>{}</p>", '{{"message": "x {}"}}', "<Message>{}</Message>", "a" * 195 + "{}", "a\nb {}"])
def test_secrets_in_a_page_are_masked_before_it_is_cut(form):
    shown = reason(form.format("s3cr3t&key"), secrets=["s3cr3t&key"])
    assert "***" in shown
    assert "s3cr" not in shown


def test_a_secret_with_escapes_is_masked():
    assert reason(json.dumps({"message": 'has "s3cr\\3t"'}), secrets=['"s3cr\\3t"']) == "has ***"
    assert reason("<Message>sig=a&amp;b&lt;c</Message>", secrets=["a&b<c"]) == "sig=***"


@pytest.mark.parametrize("page", ["<" * PAGE_BYTES, "<message" * 2000, "<!--" * 4000, "<script>" * 2000, "<a " * 5000, "{" * PAGE_BYTES])
def test_a_page_of_nothing_but_beginnings_is_read_at_once(page):
    assert len(reason(page)) <= 200
