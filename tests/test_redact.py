"""Tests of redaction: secrets are masked as written, decoded, and inside messages."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from urllib.parse import quote

import pytest
from dpp.redact import (
    MASK,
    as_entry,
    declared_secrets,
    keep_secret,
    one_line,
    printable_json,
    redact_text,
    redact_url,
    redact_value,
    secrets_of,
    url_secrets,
)
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretBytes, SecretStr

safe = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_.~%+", min_size=6, max_size=30).map(lambda text: f"Zq{text}")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://me:pw@example.org/a.csv?sig=1", "https://***@example.org/a.csv?***"),
        ("https://token@h:8080/a", "https://***@h:8080/a"),
        ("https://a@b@h/x", "https://***@h/x"),
        ("https://@h/x", "https://h/x"),
        ("https://h/a.csv#access_token=1", "https://h/a.csv"),
        ("https://h/a.csv", "https://h/a.csv"),
        ("https://me:pw@[bad/x", MASK),
        ("sftp://me:pa/ss@h/x", "sftp://***"),
        ("https://h:8080/a@b", "https://h:8080/a@b"),
        ("https://[::1]:8080/a@b", "https://[::1]:8080/a@b"),
        ("file:///tmp/x", "file:///tmp/x"),
    ],
)
def test_urls_lose_user_query_and_fragment(url, expected):
    assert redact_url(url) == expected


@given(safe, safe, safe)
def test_no_part_of_a_url_that_is_secret_is_shown(user, password, value):
    url = f"https://{user}:{password}@example.org/a?sig={value}"
    shown = redact_text(f"GET {url}: refused, as /a?sig={value} by {user} with {password}", url_secrets(url))
    assert not any(secret in shown for secret in (user, password, value))
    assert "https://***@example.org/a?*** refused" in shown.replace(": ", " ")


@pytest.mark.parametrize("shown", ["p%40ss/word", "p@ss/word", "p%40ss%2Fword"])
def test_a_password_is_masked_decoded_as_well(shown):
    secrets = url_secrets("https://me:p%40ss%2Fword@h/") | {"p%40ss/word"}
    assert redact_text(f"login with {shown} failed", secrets) == "login with *** failed"


@pytest.mark.parametrize("shown", ["a%2Fb+c==", "a/b c==", "a/b+c=="])
def test_values_of_a_query_are_masked_as_written_and_as_decoded(shown):
    assert redact_text(f"bad signature {shown}", url_secrets("https://h/?x=1&sig=a%2Fb+c==")) == "bad signature ***"


def test_a_url_that_is_none_is_a_secret_as_a_whole():
    assert url_secrets("https://me:pw@[bad") == {"https://me:pw@[bad"}


def test_secrets_of_a_file_are_its_headers_and_all_its_urls():
    found = secrets_of(["https://me:word@h/", "https://g/?sig=s3cret"], {"Authorization": "Bearer t0ken"})
    assert {"word", "me:word", "s3cret", "Bearer t0ken"} <= found
    assert secrets_of([], None) == set()


def test_the_longest_secret_goes_first():
    assert redact_text("Bearer abcdef", ["abcd", "Bearer abcdef"]) == MASK


def test_short_secrets_leave_words_alone():
    assert redact_text("a bad day", ["a", "bad", ""]) == "a bad day"


def test_urls_nobody_named_are_redacted_in_a_text():
    text = "mirror 'sftp://u:secret@h/x' and <https://h/y?k=v> failed"
    assert redact_text(text) == "mirror 'sftp://***@h/x' and <https://h/y?***> failed"


def test_text_that_is_no_unicode_can_be_written_afterwards():
    assert redact_text("no file caf\udce9") == "no file caf\\udce9"


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Z", "Cc"]), min_size=12, max_size=30),
    st.sampled_from([str, repr, ascii, json.dumps, quote]),
)
def test_a_header_is_masked_however_a_message_writes_it(value, written):
    assert redact_text(f"sent {written(value)}.", secrets_of([], {"X-Key": value})).strip("'\"") in (
        "sent ***.",
        "sent '***'.",
        'sent "***".',
    )


def test_what_basic_authentication_sends_is_masked():
    sent = b64encode(b"me:p@ss w\xc3\xb6rd").decode()
    assert redact_text(f"Authorization: Basic {sent}", url_secrets("https://me:p%40ss%20w%C3%B6rd@h/")) == "Authorization: Basic ***"


class Login(BaseModel):
    plain: str = "visible"
    phrase: SecretStr = SecretStr("")
    more: dict[str, list[SecretBytes]] = {}


def test_what_a_model_declares_secret_is_found_however_deep():
    server = Login(phrase="open sesame", more={"a": [b"close sesame", b"\xff\xfe"]})
    assert declared_secrets([server, {"x": (SecretStr("third"),)}, "no"]) == {"open sesame", "close sesame", "\\xff\\xfe", "third"}


def test_a_kept_secret_is_masked_in_every_text_and_value():
    keep_secret(["0pen sesame/ö"])
    assert redact_text("said '0pen sesame/ö' and 0pen+sesame%2F%C3%B6") == "said '***' and ***"
    assert redact_value("phrase", {"doors": ["0pen sesame/\u00f6", 5]}) == {"doors": [MASK, 5]}


def test_a_long_word_is_read_once():
    word = "x" * 200_000
    assert redact_text(f"{word} {word}://me:secret@host/") == f"{word} {word}://***@host/"


def test_a_text_may_be_redacted_twice():
    once = redact_text("failed to list x://me:secret@host/a?key=secret: no route, see https://host/b.")
    assert once == "failed to list x://***@host/a?***: no route, see https://host/b."
    assert redact_text(once) == once


UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
TEXTS = st.text(st.sampled_from("a \n\r\t\x1b\x9b\x7f\u061c\u200f\u2028\u202e\u2066\u2069é😀"))


@given(TEXTS)
def test_a_part_of_a_line_stays_in_its_line_and_is_printable(text):
    assert len(one_line(text).splitlines()) <= 1
    assert not UNSAFE.search(one_line(text))


@given(TEXTS)
def test_the_further_lines_of_an_entry_are_indented(text):
    first, *others = as_entry(f"ERROR: {text}").split("\n")
    assert first.startswith("ERROR: ")
    assert all(not line or line[0].isspace() for line in others)
    assert not UNSAFE.search(as_entry(text))


@given(TEXTS, st.sampled_from([None, 2]))
def test_printable_json_has_the_same_value(text, indent):
    shown = printable_json(json.dumps({text: [text]}, ensure_ascii=False, indent=indent))
    assert json.loads(shown) == {text: [text]}
    assert not UNSAFE.search(shown)
