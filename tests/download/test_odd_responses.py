"""Responses that are odd or invalid: each fetcher must judge the same bytes alike, by RFC 9112, and the strictest reading counts."""

from __future__ import annotations

import pytest
from dpp import FetchError, FileData, Settings
from dpp.download.http_fetcher import RequestsFetcher
from dpp.testing.parts import MemoryPart

from dpp_curl import CurlFetcher
from http_site import raw

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: 3\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"3\r\nabc\r\n0\r\n\r\n"
FILE = LENGTH + b"\r\nabc"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n"

STATUS_LINES = {
    b"HTTP/1.0 200 OK": "abc",
    b"HTTP/1.1 200": "abc",
    b"HTTP/1.1 200 ": "abc",
    b"HTTP/1.1 200 O\xe9K": "abc",
    b"HTTP/1.1 200 " + b"x" * 60_000: "abc",
    b"HTTP/1.1 200 " + b"x" * 70_000: "protocol",
    b"HTTP/1.1 200 O\0K": "protocol",
    b"HTTP/1.2 200 OK": "protocol",
    b"HTTP/1.10 200 OK": "protocol",
    b"HTTP/2 200 OK": "protocol",
    b"HTTP/2.0 200 OK": "protocol",
    b"HTTP/11 200 OK": "protocol",
    b"http/1.1 200 OK": "protocol",
    b"ICY 200 OK": "protocol",
    b"HTTP/1.1  200 OK": "protocol",
    b"HTTP/1.1\t200 OK": "protocol",
    b" HTTP/1.1 200 OK": "protocol",
    b"\r\nHTTP/1.1 200 OK": "protocol",
    b"junk\r\nHTTP/1.1 200 OK": "protocol",
    b"HTTP/1.1 OK": "protocol",
    b"HTTP/1.1 20 OK": "protocol",
    b"HTTP/1.1 +20 OK": "protocol",
    b"HTTP/1.1 0200 OK": "protocol",
    b"HTTP/1.1 2000 OK": "protocol",
    b"HTTP/1.1 200x OK": "protocol",
    b"HTTP/1.1 000 OK": "protocol",
    b"HTTP/1.1 099 OK": "protocol",
    b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade": "protocol",
    b"HTTP/1.1 203 Other": "http-203",
    b"HTTP/1.1 204 None": "http-204",
    b"HTTP/1.1 205 Reset": "http-205",
    b"HTTP/1.1 206 Part": "protocol",
    b"HTTP/1.1 206 Part\r\nContent-Range: bytes 0-2/3": "protocol",
    b"HTTP/1.1 300 Choose\r\nLocation: /b": "http-300",
    b"HTTP/1.1 304 Same": "http-304",
    b"HTTP/1.1 305 Proxy\r\nLocation: /b": "http-305",
    b"HTTP/1.1 600 Odd": "http-600",
    b"HTTP/1.1 999 Odd": "http-999",
    b"HTTP/1.1 404 None\r\njunk": "protocol",
    b"HTTP/1.1 404 None\r\nContent-Length: 4": "protocol",
    b"HTTP/1.1 304 Same\r\nContent-Length: 4": "protocol",
    b"HTTP/1.1 404 None\r\nTransfer-Encoding: gzip, chunked": "protocol",
    b"HTTP/1.1 199 Wait\r\n\r\n" + OK[:-2]: "abc",
    b"HTTP/1.1 100 Wait\r\nContent-Length: 5\r\n\r\n" + OK[:-2]: "abc",
    EARLY * 99 + OK[:-2]: "abc",
    EARLY * 101 + OK[:-2]: "protocol",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 2000 + OK[:-2]: "protocol",
    b"HTTP/1.1 103 Early\r\njunk\r\n\r\n" + OK[:-2]: "protocol",
}
HEADERS = {
    b"X: a\r\n b\r\n" + LENGTH: "abc",
    b"X: a\r\n\tb\r\n" + LENGTH: "abc",
    b"Content-Length:\r\n 3\r\n": "abc",
    b"X: y\n" + LENGTH: "abc",
    b"X : a\r\n" + LENGTH: "protocol",
    b"X\t: a\r\n" + LENGTH: "protocol",
    b"X Y: a\r\n" + LENGTH: "protocol",
    b"X\xe9: a\r\n" + LENGTH: "protocol",
    b"X\0: a\r\n" + LENGTH: "protocol",
    b"X: a\0b\r\n" + LENGTH: "protocol",
    b"X: a\rContent-Length: 9\r\n" + LENGTH: "protocol",
    b"X: a\r\r\n" + LENGTH: "protocol",
    b"X: a\x0cContent-Length: 9\r\n" + LENGTH: "abc",
    b"X: a\x1cContent-Length: 9\r\n" + LENGTH: "abc",
    b"X: a\x85Content-Length: 9\r\n" + LENGTH: "abc",
    b"X: a\x01\x7f\xff\r\n" + LENGTH: "abc",
    b"junk\r\n" + LENGTH: "protocol",
    b"\0\r\n" + LENGTH: "protocol",
    b"X: " + b"y" * 60_000 + b"\r\n" + LENGTH: "abc",
    b"X: " + b"y" * 70_000 + b"\r\n" + LENGTH: "protocol",
    (b"X: " + b"y" * 5000 + b"\r\n") * 80 + LENGTH: "protocol",
    b"X: y\r\n" * 98 + LENGTH: "abc",
    b"X: y\r\n" * 149 + LENGTH: "protocol",
    LENGTH + LENGTH: "abc",
    b"Content-Length: 3,3\r\n": "abc",
    b"Content-Length: 0003\r\n": "abc",
    b"Content-Length: 3 \t\r\n": "abc",
    LENGTH + b"Content-Length: 4\r\n": "protocol",
    b"Content-Length: 3, 4\r\n": "protocol",
    b"Content-Length: 3,\r\n": "protocol",
    b"Content-Length:\r\n": "protocol",
    b"Content-Length: +3\r\n": "protocol",
    b"Content-Length: -1\r\n": "protocol",
    b"Content-Length: 0x3\r\n": "protocol",
    b"Content-Length: 0_3\r\n": "protocol",
    b"Content-Length: 3 3\r\n": "protocol",
    b"Content-Length: 3;x\r\n": "protocol",
    b"Content-Length: 3\x0b\r\n": "protocol",
    b"Content-Length: 3\xa0\r\n": "protocol",
    b"Content-Length: 18446744073709551619\r\n": "protocol",
    b"Content-Length: 2\r\n": "ab",
    b"Content-Length: 4\r\n": "truncated",
    b"Transfer-Encoding: identity\r\n": "abc",
    b"Transfer-Encoding:\r\n": "protocol",
}
TRANSFER_CODINGS = {
    b"Transfer-Encoding: CHUNKED\r\n": "abc",
    b"Transfer-Encoding:\tchunked \r\n": "abc",
    b"Transfer-Encoding:\r\n chunked\r\n": "abc",
    LENGTH + CHUNKED: "abc",
    CHUNKED + b"Content-Length: x\r\n": "protocol",
    CHUNKED + CHUNKED: "protocol",
    b"Transfer-Encoding: gzip, chunked\r\n": "protocol",
    b"Transfer-Encoding: chunked, identity\r\n": "protocol",
    b"Transfer-Encoding: identity, chunked\r\n": "protocol",
    b"Transfer-Encoding: xchunked\r\n": "protocol",
    b"Transfer-Encoding: chunked;q=1\r\n": "protocol",
    b'Transfer-Encoding: "chunked"\r\n': "protocol",
    b"Transfer-Encoding: \x0bchunked\r\n": "protocol",
    b"Transfer-Encoding: chunked,\r\n": "protocol",
}
BODIES = {
    b"3;a=b\r\nabc\r\n0;x\r\n\r\n": "abc",
    b'3 ; a="b;c"\r\nabc\r\n0\r\n\r\n': "abc",
    b"3;" + b"x" * 20_000 + b"\r\nabc\r\n0\r\n\r\n": "abc",
    b"00000003\r\nabc\r\n000\r\n\r\n": "abc",
    b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n": "abc",
    b"3\nabc\r\n0\n\n": "abc",
    b"3\r\nabc\r\n0\r\nX: y\r\nContent-Length: 9\r\n\r\n": "abc",
    b"3\r\nabc\r\n0\r\n\r\nmore": "abc",
    b"3 x\r\nabc\r\n0\r\n\r\n": "truncated",
    b"3;\0\r\nabc\r\n0\r\n\r\n": "truncated",
    b"3;x\ny\r\nabc\r\n0\r\n\r\n": "truncated",
    b"+3\r\nabc\r\n0\r\n\r\n": "truncated",
    b"-3\r\nabc\r\n0\r\n\r\n": "truncated",
    b"3\r\nabc\r\n-0\r\n\r\n": "truncated",
    b"0x3\r\nabc\r\n0\r\n\r\n": "truncated",
    b"0_3\r\nabc\r\n0\r\n\r\n": "truncated",
    b" 3\r\nabc\r\n0\r\n\r\n": "truncated",
    b"0" * 30 + b"3\r\nabc\r\n0\r\n\r\n": "truncated",
    b"10000000000000003\r\nabc\r\n0\r\n\r\n": "truncated",
    b"7fffffffffffffff\r\nabc": "truncated",
    b"1" * 60_000 + b"\r\nabc\r\n0\r\n\r\n": "truncated",
    b"\r\nabc\r\n0\r\n\r\n": "truncated",
    b";x\r\nabc\r\n0\r\n\r\n": "truncated",
    b"3\r\nabc\n0\r\n\r\n": "truncated",
    b"3\r\nabc0\r\n\r\n": "truncated",
    b"3\r\nabcd\r\n0\r\n\r\n": "truncated",
    b"4\r\nabc\r\n0\r\n\r\n": "truncated",
    b"3\r\nabc\r\n0\r\n": "truncated",
    b"3\r\nabc\r\n0\r\n\r": "truncated",
    b"3\r\nabc\r\n": "truncated",
    b"3\r\nabc\r\n0\r\nX: y\r\n": "truncated",
    b"3\r\nabc\r\n0\r\njunk\r\n\r\n": "protocol",
    b"3\r\nabc\r\n0\r\nX : y\r\n\r\n": "protocol",
    b"3\r\nabc\r\n0\r\nX: \0\r\n\r\n": "protocol",
    b"3\r\nabc\r\n0\r\n" + b"X: y\r\n" * 150 + b"\r\n": "protocol",
}
WHOLE = {
    OK + b"\r\nabc": "abc",
    OK.replace(b"\r", b"") + b"Content-Length: 3\n\nabc": "abc",
    b"HTTP/1.0 200 OK\r\n\r\nabc": "abc",
    b"HTTP/1.0 200 OK\r\n" + CHUNKED + b"\r\n" + CHUNKS: "abc",
    OK + LENGTH + b"\r\nabcdef": "abc",
    OK + LENGTH + b"\r\nab": "truncated",
    OK + b"Content-Length: 0\r\n\r\n": "empty",
    OK + LENGTH: "connection",
    OK[:-2]: "connection",
    b"HTTP/1.1 100 Continue\r\n\r\n": "connection",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP": "connection",
    b"HTTP/1.1 100 Continue\r\n\r\nabc": "protocol",
    b"HTTP/1.1 100 Continue\r\nContent-Length: 3\r\n\r\nabc" + OK + FILE: "protocol",
    b"": "connection",
    b"abc": "protocol",
    b"<html>x</html>\n": "protocol",
    b"\r\n\r\n": "protocol",
}
LOCATIONS = {
    b"/b#fragment": "/b",
    b"?x=1": "/a?x=1",
    b"//127.0.0.1:PORT/b": "/b",
    b"HTTP://127.0.0.1:PORT/b": "/b",
    b"http://u:p@127.0.0.1:PORT/b": "/b",
    b"http:/b": "/b",
    b"http:b": "/b",
    b"/b c": "/b%20c",
    b"/caf\xe9": "/caf%C3%A9",
    b"/caf\xc3\xa9": "/caf%C3%A9",
    b"\\b": "/%5Cb",
    b"\\\\127.0.0.1\\b": "/%5C%5C127.0.0.1%5Cb",
    b"/b[1]|<2>": "/b%5B1%5D%7C%3C2%3E",
    b'"/b"': "/%22/b%22",
    b"/b%zz": "/b%25zz",
    b"/b%2Fc?d=%3D": "/b%2Fc?d=%3D",
    b"/../../b": "/b",
    b"/x/./b": "/x/b",
    b"/b??x=/../y": "/b??x=/../y",
    b"/b, /c": "/b,%20/c",
    b"/b\x01c": "/b%01c",
    b"/b\r\nLocation: /b": "/b",
    b"/" + b"b" * 20_000: "/" + "b" * 20_000,
    b"": "redirect",
    b" ": "redirect",
    b"http://127.0.0.1:99999/b": "redirect",
    b"http://[::1/b": "redirect",
    b"file:///etc/passwd": "redirect",
    b"ftp://h/": "redirect",
    b"javascript:1": "redirect",
    b"#x": "redirect",
    b"/b\r\nLocation: /c": "protocol",
    b"/b\0c": "protocol",
    b"http://a b/": "protocol",
}
RESPONSES = {
    **{line + b"\r\n" + FILE: expected for line, expected in STATUS_LINES.items()},
    **{OK + lines + b"\r\nabc": expected for lines, expected in HEADERS.items()},
    **{OK + lines + b"\r\n" + CHUNKS: expected for lines, expected in TRANSFER_CODINGS.items()},
    **{OK + CHUNKED + b"\r\n" + body: expected for body, expected in BODIES.items()},
    **WHOLE,
}


@pytest.fixture(scope="module", params=[RequestsFetcher, CurlFetcher])
def fetcher(request):
    made = request.param(Settings(attempts=1, connect_timeout=60))
    yield made
    made.close()


def outcome(fetcher, url):
    """Return the text of the file, or the error class."""
    part = MemoryPart()
    try:
        fetcher.fetch(url, FileData(url=url), part)
    except FetchError as error:
        return error.error_class
    return part.data.decode()


def failure(fetcher, url):
    """Return the error class of a download that fails, and whether it is tried again."""
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(url, FileData(url=url), MemoryPart())
    return caught.value.error_class, caught.value.retryable


def short(data):
    return repr(data.removeprefix(OK) if isinstance(data, bytes) else data)[:70]


@pytest.mark.parametrize(("data", "expected"), RESPONSES.items(), ids=short)
def test_each_fetcher_judges_the_same_bytes_alike(site, fetcher, data, expected):
    assert outcome(fetcher, site.script("/a", raw(data))) == expected


@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
@pytest.mark.parametrize("head", [OK + LENGTH + b"\r\n", EARLY + OK + CHUNKED + b"\r\n"], ids=["length", "chunked"])
def test_each_fetcher_tries_again_wherever_a_head_is_cut(site, fetcher, head, reset):
    replies = [raw(head[:count], reset=reset) for count in range(len(head))]
    url = site.script("/a", *replies, raw(head + b"1", reset=reset))
    assert [failure(fetcher, url) for _ in replies] == [("connection", True)] * len(replies)
    assert failure(fetcher, url) == ("truncated", True)


@pytest.mark.parametrize(("location", "expected"), LOCATIONS.items(), ids=short)
def test_each_fetcher_follows_the_same_location_alike(site, fetcher, location, expected):
    location = location.replace(b"PORT", site.url.rpartition(":")[2].encode())
    url = site.script("/a", raw(b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"))
    got = outcome(fetcher, url)
    assert (site.requests[-1][0] if got == "http-404" else got) == expected
