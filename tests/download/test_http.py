"""Tests of the rules of HTTP, without a network."""

from __future__ import annotations

import gzip
import time
import zlib
from email.utils import formatdate
from types import SimpleNamespace

import pytest
from dpp import FetchError, Settings
from dpp.download import http
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPHeaderDict

NO_PART = SimpleNamespace(offset=0, etag=None, total=None)
PART = SimpleNamespace(offset=4, etag='"v1"', total=None)
CREDENTIALS = {"Authorization": "Basic eA==", "Cookie": "a=b", "X-Api-Key": "k", "User-Agent": "me", "Range": "bytes=4-"}


def judge(status, *headers, part=NO_PART):
    return http.judge(status, HTTPHeaderDict(headers), part, part.offset)


def continued(content_range, *headers, etag='"v1"'):
    return judge(206, ("Content-Range", content_range), ("ETag", etag), *headers, part=PART)


@pytest.mark.parametrize(
    "part",
    [NO_PART, *(SimpleNamespace(offset=4, etag=etag) for etag in (None, 5, "v1", '"v\r\nX: 1"')), SimpleNamespace(offset=0, etag='"v1"')],
)
def test_the_whole_is_asked_for_without_bytes_or_without_an_etag(part):
    headers = http.request_headers(None, part, "agent")
    assert headers == {"User-Agent": "agent", "Accept": "*/*", "Accept-Encoding": "identity"}


def test_a_part_is_continued_with_range_and_if_range():
    headers = http.request_headers(None, PART, "agent")
    assert (headers["Range"], headers["If-Range"]) == ("bytes=4-", '"v1"')


def test_headers_of_the_manifest_are_sent_but_never_another_coding():
    headers = http.request_headers({"user-agent": "mine", "X-Key": "k", "accept-encoding": "br", "RANGE": "bytes=0-1"}, PART, "agent")
    assert headers == {
        "user-agent": "mine",
        "X-Key": "k",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Range": "bytes=4-",
        "If-Range": '"v1"',
    }


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("b", "http://h/x/b"),
        ("/b?q=1", "http://h/b?q=1"),
        ("http://h:80/b", "http://h:80/b"),
        ("HTTP://H/b", "http://H/b"),
        ("/caf\u00c3\u00a9", "http://h/café"),
        ("/caf\u00e9", "http://h/café"),
    ],
)
def test_a_redirect_on_the_same_origin_keeps_the_headers(location, target):
    assert http.next_hop("http://h/x/a", location, CREDENTIALS) == (target, CREDENTIALS)


@pytest.mark.parametrize("location", [" \x01http://other/b ", "http://other/b", "//other/b", "http://h:81/b", "https://h/b"])
def test_a_redirect_to_another_origin_drops_what_may_be_a_credential(location):
    target, headers = http.next_hop("http://me:pw@h/a", location, CREDENTIALS)
    assert "me" not in target
    assert target.startswith("http")
    assert headers == {"User-Agent": "me", "Range": "bytes=4-"}


@pytest.mark.parametrize(
    ("location", "target"),
    [("/b", "http://me:pw@h/b"), ("http://h/b", "http://me:pw@h/b"), ("http://you@h/b", "http://you@h/b")],
)
def test_a_redirect_on_the_same_origin_keeps_the_user_unless_it_names_another(location, target):
    assert http.next_hop("http://me:pw@h/a", location, {})[0] == target


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://h/x", "data:,x", "javascript:1", None, "", "http://[bad/", "http://h:port/", "https:///path"]
)
def test_a_redirect_leads_nowhere_but_to_http(location):
    with pytest.raises(FetchError) as caught:
        http.next_hop("http://h/a?sig=secret", location, {})
    assert (caught.value.error_class, caught.value.retryable) == ("redirect", False)
    assert "secret" not in str(caught.value)


def test_a_whole_answer():
    body = judge(200, ("content-length", "5"), ("etag", '"v1"'))
    assert body == http.Body(0, 5, 5, "", '"v1"')


@pytest.mark.parametrize(
    ("etag", "kept"), [('"v1"', '"v1"'), ('""', '""'), ('W/"v1"', None), ("v1", None), ('"a" "b"', None), ('"a\r"', None), ("", None)]
)
def test_only_a_strong_etag_is_kept(etag, kept):
    assert judge(200, ("ETag", etag)).etag == kept


def test_an_encoded_body_can_neither_be_continued_nor_measured():
    assert judge(200, ("Content-Encoding", "X-GZIP"), ("Content-Length", "5"), ("ETag", '"v1"')) == http.Body(0, 5, None, "gzip", None)


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "aes128gcm"])
def test_an_encoding_that_cannot_be_undone_is_a_failure(coding):
    with pytest.raises(FetchError) as caught:
        judge(200, ("Content-Encoding", coding))
    assert (caught.value.error_class, caught.value.retryable) == ("encoding", False)


@pytest.mark.parametrize(
    "coding",
    ["", " ", "identity", "identity, identity", "binary", "none", "utf-8", "UTF8", "aws-chunked", "8bit", "text/plain", ","],
)
def test_a_name_that_is_not_one_of_a_coding_changes_nothing(coding):
    assert judge(200, ("Content-Encoding", coding), ("Content-Length", "5"), ("ETag", '"v1"')) == http.Body(0, 5, 5, "", '"v1"')


@pytest.mark.parametrize("coding", ["gzip, identity", "aws-chunked,gzip", "utf-8, x-gzip"])
def test_the_one_coding_among_such_names_is_decoded(coding):
    assert judge(200, ("Content-Encoding", coding)).encoding == "gzip"


STORED = [
    ("gzip", "http://h/d.csv.gz"),
    ("x-gzip", "http://h/D.TGZ?X-Amz-Signature=1"),
    ("gzip", "http://h/get?file=d.csv.gz&x=1"),
    ("br", "http://h/d.js.br"),
    ("zstd", "http://h/d.tar.zst"),
    ("x-bzip2", "http://h/d.bz2"),
    ("x-compress", "http://h/d.tar.Z"),
    ("aws-chunked, gzip", "http://h/d.gz"),
]


@pytest.mark.parametrize(("coding", "url"), STORED)
def test_a_file_that_is_stored_in_its_coding_stays_packed(coding, url):
    headers = HTTPHeaderDict([("Content-Encoding", coding), ("Content-Length", "5"), ("ETag", '"v1"')])
    assert http.judge(200, headers, NO_PART, 0, urls=[url]) == http.Body(0, 5, 5, "", '"v1"')
    assert http.judge(200, headers, NO_PART, 0, urls=["http://h/1", url]).encoding == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Content-Type", "application/x-gzip"),
        ("Content-Type", "application/gzip; charset=binary"),
        ("Content-Disposition", 'attachment; filename="d.csv.gz"'),
        ("Content-Disposition", "attachment; filename*=UTF-8''d.csv.gz"),
    ],
)
def test_a_response_may_name_a_stored_file(name, value):
    assert judge(200, ("Content-Encoding", "gzip"), (name, value)).encoding == ""


@pytest.mark.parametrize("url", ["http://h/d.csv", "http://h/d.csv.bz2", "http://h/d.gz/", "http://h/gz", "http://h.gz"])
def test_a_coding_that_the_name_does_not_have_was_applied_on_the_way(url):
    headers = HTTPHeaderDict([("Content-Encoding", "gzip"), ("Content-Type", "text/csv")])
    assert http.judge(200, headers, NO_PART, 0, urls=[url]).encoding == "gzip"


@pytest.mark.parametrize(("size", "encoding"), [(5, ""), (9, "gzip"), (None, "gzip")])
def test_the_size_in_the_manifest_decides_whether_a_body_is_decoded(size, encoding):
    headers = HTTPHeaderDict([("Content-Encoding", "gzip"), ("Content-Length", "5")])
    assert http.judge(200, headers, NO_PART, 0, size=size).encoding == encoding


def test_the_size_in_the_manifest_comes_before_the_name():
    headers = HTTPHeaderDict([("Content-Encoding", "gzip"), ("Content-Length", "5")])
    assert http.judge(200, headers, NO_PART, 0, urls=["http://h/d.gz"], size=9).encoding == "gzip"
    assert http.judge(200, HTTPHeaderDict([("Content-Encoding", "br"), ("Content-Length", "5")]), NO_PART, 0, size=5).encoding == ""


def test_a_stored_file_is_continued():
    assert continued("bytes 4-9/10", ("Content-Encoding", "gzip"), ("Content-Type", "application/gzip")).offset == 4


@pytest.mark.parametrize("values", [["5", "6"], ["5, 6"], ["five"], ["-5"], ["5.0"], ["+5"], ["\u0665"], [""], ["5,"]])
def test_a_content_length_that_makes_no_sense_is_a_failure(values):
    with pytest.raises(FetchError) as caught:
        judge(200, *(("Content-Length", value) for value in values))
    assert (caught.value.error_class, caught.value.retryable) == ("protocol", False)


@pytest.mark.parametrize("values", [["5", "5"], ["5, 5"], [" 5 "]])
def test_a_content_length_given_twice_alike_is_one(values):
    assert judge(200, *(("Content-Length", value) for value in values)).length == 5


@pytest.mark.parametrize(("coding", "length"), [("chunked", None), ("Chunked", None), ("identity", 5)])
def test_the_length_of_a_body_by_its_transfer_encoding(coding, length):
    assert judge(200, ("Transfer-Encoding", coding), ("Content-Length", "5")).length == length


@pytest.mark.parametrize("codings", [["gzip, chunked"], ["chunked "], ["chunked", "chunked"], ["gzip"], ["xchunked"]])
def test_a_transfer_encoding_that_http_libraries_pass_over_is_a_failure(codings):
    with pytest.raises(FetchError) as caught:
        judge(200, *(("Transfer-Encoding", coding) for coding in codings))
    assert caught.value.error_class == "protocol"


def test_a_continuation():
    assert continued("bytes 4-9/10", ("Content-Length", "6")) == http.Body(4, 6, 10, "", '"v1"')


def test_a_continuation_in_chunks_has_the_length_of_its_range():
    assert continued("BYTES 4-9/10", ("Transfer-Encoding", "chunked")).length == 6


@pytest.mark.parametrize(
    ("content_range", "headers", "etag"),
    [
        ("bytes 3-9/10", [], '"v1"'),
        ("bytes 4-8/10", [], '"v1"'),
        ("bytes 4-9/*", [], '"v1"'),
        ("bytes 4-3/4", [], '"v1"'),
        ("pages 4-9/10", [], '"v1"'),
        ("", [], '"v1"'),
        ("bytes 4-9/10", [("Content-Length", "5")], '"v1"'),
        ("bytes 4-9/10", [("Content-Encoding", "gzip")], '"v1"'),
        ("bytes 4-9/10", [], '"v2"'),
        ("bytes 4-9/10", [], 'W/"v1"'),
        ("bytes 4-9/10", [], ""),
    ],
)
def test_a_continuation_that_does_not_fit_is_started_over(content_range, headers, etag):
    with pytest.raises(http.RangeRefused):
        continued(content_range, *headers, etag=etag)


def test_416_is_a_refused_range_only_where_one_was_asked_for():
    with pytest.raises(http.RangeRefused):
        judge(416, part=PART)
    with pytest.raises(FetchError) as caught:
        judge(416)
    assert caught.value.error_class == "http-416"


def test_an_unsolicited_206_is_a_failure():
    with pytest.raises(FetchError) as caught:
        judge(206, ("Content-Range", "bytes 0-9/10"))
    assert (caught.value.error_class, caught.value.http_status, caught.value.retryable) == ("protocol", 206, False)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 507, 599])
def test_statuses_that_can_get_better(status):
    with pytest.raises(FetchError) as caught:
        judge(status, ("Retry-After", "7"))
    assert (caught.value.retryable, caught.value.http_status, caught.value.retry_after) == (True, status, 7)


@pytest.mark.parametrize("status", [201, 202, 203, 204, 205, 300, 304, 400, 401, 403, 404, 410, 451, 600, 999])
def test_statuses_that_are_final(status):
    with pytest.raises(FetchError) as caught:
        judge(status)
    assert (caught.value.error_class, caught.value.retryable) == (f"http-{status}", False)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0),
        (" 120 ", 120),
        ("junk", None),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("9" * 5000, None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 99 Oct 99999999 07:28:00 GMT", None),
    ],
)
def test_retry_after(value, seconds):
    assert http.parse_retry_after(value) == seconds


def test_retry_after_as_a_date_is_counted_from_now():
    later, began = int(time.time()) + 300, time.time()
    seconds = http.parse_retry_after(formatdate(later, usegmt=True))
    assert later - time.time() <= seconds <= later - began


@given(st.text() | st.from_regex(r"\w{3}, \d+ \w{3} \d+ \d+:\d+:\d+ \S*"))
def test_no_retry_after_breaks_the_parser(value):
    seconds = http.parse_retry_after(value)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize(
    ("received", "written", "expected", "error_class"),
    [(4, 4, None, "truncated"), (6, 6, None, "truncated"), (0, 0, 0, "truncated"), (5, 0, None, "empty")],
)
def test_a_body_that_is_no_whole_file(received, written, expected, error_class):
    with pytest.raises(FetchError) as caught:
        http.check_end(http.Body(0, 5, None, "", None), received, written, expected)
    assert caught.value.error_class == error_class


@pytest.mark.parametrize(("offset", "written", "expected"), [(0, 5, None), (0, 0, 0), (5, 0, None)])
def test_a_body_that_is_a_whole_file(offset, written, expected):
    http.check_end(http.Body(offset, None, None, "", None), written, written, expected)


def decoded(encoding, data, step):
    decoder = http.Decoder(encoding)
    out = b"".join(piece for start in range(0, len(data), step) for piece in decoder.feed(data[start : start + step]))
    decoder.finish()
    return out


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(
    ("encoding", "data", "whole"),
    [
        ("", b"plain", b"plain"),
        ("gzip", gzip.compress(b"one", mtime=0), b"one"),
        ("gzip", gzip.compress(b"one", mtime=0) + gzip.compress(b"two", mtime=0), b"onetwo"),
        ("deflate", zlib.compress(b"one"), b"one"),
    ],
)
def test_a_body_is_decoded_in_pieces_of_any_length(encoding, data, whole, step):
    assert decoded(encoding, data, step) == whole


@pytest.mark.parametrize(("encoding", "data"), [("gzip", gzip.compress(b"one" * 99, mtime=0)), ("deflate", zlib.compress(b"one" * 99))])
def test_a_coded_body_cut_at_any_byte_is_truncated(encoding, data):
    for end in range(len(data)):
        with pytest.raises(FetchError) as caught:
            decoded(encoding, data[:end], 1000)
        assert (caught.value.error_class, caught.value.retryable) == ("truncated", True)


@pytest.mark.parametrize(
    ("encoding", "data"),
    [("gzip", b"no gzip"), ("gzip", gzip.compress(b"a", mtime=0) + b"junk"), ("deflate", zlib.compress(b"a") + b"junk")],
)
def test_a_body_that_is_not_coded_as_it_says_is_a_failure(encoding, data):
    with pytest.raises(FetchError) as caught:
        decoded(encoding, data, 1000)
    assert (caught.value.error_class, caught.value.retryable) == ("encoding", False)


def test_a_small_body_that_decodes_to_much_is_handed_over_in_pieces():
    bomb = gzip.compress(b"\0" * 50_000_000)
    sizes = [len(piece) for piece in http.Decoder("gzip").feed(bomb)]
    assert sum(sizes) == 50_000_000
    assert max(sizes) <= 1024 * 1024


class Clock:
    now = 1000.0


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(http.time, "monotonic", lambda: Clock.now)
    monkeypatch.setattr(Clock, "now", 1000.0)
    return Clock


def test_a_stall_is_a_window_with_too_few_bytes(clock):
    watch = http.TransferTimer(Settings(stall_timeout=10))
    watch.received(10 * 1024)
    clock.now += 10
    watch.received(0)
    clock.now += 9
    watch.received(10 * 1024 - 1)
    clock.now += 1
    with pytest.raises(FetchError, match="stall_timeout") as caught:
        watch.received(0)
    assert (caught.value.error_class, caught.value.retryable) == ("timeout", True)


def test_the_wait_for_the_first_byte_is_no_stall(clock):
    watch = http.TransferTimer(Settings(stall_timeout=10))
    clock.now += 50
    watch.received(1)


def test_a_total_limit_ends_a_fast_attempt_too(clock):
    watch = http.TransferTimer(Settings(total_timeout=30))
    clock.now += 30
    watch.received(10**9)
    clock.now += 0.1
    with pytest.raises(FetchError, match="total_timeout") as caught:
        watch.received(10**9)
    assert (caught.value.error_class, caught.value.retryable) == ("timeout", True)


def test_without_a_total_limit_an_attempt_may_take_days(clock):
    watch = http.TransferTimer(Settings(total_timeout=0))
    for _ in range(100):
        clock.now += 10_000
        watch.received(10**9)
