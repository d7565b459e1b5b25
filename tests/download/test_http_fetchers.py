"""The conformance suite of HTTP fetchers: each one, called by Downloader, against a real server that misbehaves."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import gzip
import hashlib
import logging
import os
import re
import socket
import ssl
import subprocess
import threading
import time
import tracemalloc
import zlib
from pathlib import Path

import pytest
import requests
import trustme
from dpp import ConfigurationError, FetchError, FileData, Settings, StageError
from dpp.download.downloader import Downloader
from dpp.download.http_fetcher import RequestsFetcher
from dpp.testing.parts import MemoryPart
from dpp.workspace.layout import Workspace

import http_site
from dpp_curl import CurlFetcher
from http_site import cut, full_backlog, raw, silent, status, trickle

BODY = b"0123456789" * 10_000
OK = b"HTTP/1.1 200 OK\r\n"
SOON = http_site.SECONDS / 2
CHUNKS = b"3\r\nabc\r\n4;ext=1\r\ndefg\r\n"


@pytest.fixture(params=[RequestsFetcher, CurlFetcher])
def fetcher_class(request):
    """Return each fetcher class; all of them must behave alike."""
    return request.param


@pytest.fixture
def download(tmp_path, fetcher_class):
    """Return a function that downloads a URL as a new run does; it records ``download.attempts`` and ``download.waits``."""
    fetchers = []

    def get(url, settings=None, **fields):
        # The connect timeout includes the TLS handshake, which takes long on a busy machine.
        fetcher = fetcher_class(Settings(**{"attempts": 1, "connect_timeout": 60, **(settings or {})}))
        fetchers.append(fetcher)
        downloader = Downloader(fetcher.settings, Workspace(tmp_path / "ws"), {"http": fetcher, "https": fetcher}, get.waits.append)
        get.attempts, get.waits[:] = 0, []
        return downloader.get(FileData(url=url, **fields), count)

    def count():
        get.attempts += 1

    get.waits = []
    yield get
    for fetcher in fetchers:
        fetcher.close()


def left():
    """Return the names of the files in the workspace's downloads."""
    return sorted(path.name for path in Path("ws").rglob("*") if path.is_file())


def fetch(fetcher, url):
    """Return the body that a fetcher gets from a URL in one attempt."""
    part = MemoryPart()
    fetcher.fetch(url, FileData(url=url), part)
    return bytes(part.data)


def fails(download, url, settings=None, **fields):
    """Return the error of a download, and check that no file has its final name."""
    with pytest.raises(FetchError) as caught:
        download(url, settings, **fields)
    assert all(name.endswith((".part", ".part.dpp.json")) for name in left())
    assert "secret" not in str(caught.value)
    return caught.value


def test_a_file_is_streamed_to_disk_and_digested(site, download):
    got = download(site.add("/a.bin", BODY))
    assert (got.path.read_bytes(), got.size, got.sha256) == (BODY, len(BODY), hashlib.sha256(BODY).hexdigest())
    assert left() == ["a.bin", "a.bin.dpp.json"]


def test_a_large_body_is_never_in_memory_as_a_whole(site, download):
    url = site.add("/big", bytes(30_000_000))
    tracemalloc.start()
    try:
        download(url)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


def test_identity_is_asked_for_with_the_headers_of_the_manifest(site, download):
    download(site.add("/a", "a"), headers={"X-Key": "k", "user-agent": "mine", "Accept-Encoding": "gzip"})
    sent = site.headers("/a")[0]
    assert (sent["accept-encoding"], sent["x-key"], sent["user-agent"]) == ("identity", "k", "mine")
    assert "range" not in sent
    assert "cookie" not in sent


OF_THE_BATCH = {"X-Key": "all", "X-Other": "o", "127.0.0.1": {"x-key": "host"}, "other.example": {"X-Key": "secret"}}


def test_headers_of_the_batch_are_sent_and_those_of_the_host_and_the_manifest_come_first(site, download):
    settings = {"user_agent": "Example Ltd data@example.org", "headers": OF_THE_BATCH}
    download(site.add("/a", "a"), settings)
    sent = site.headers("/a")[0]
    assert (sent["x-key"], sent["x-other"], sent["user-agent"]) == ("host", "o", "Example Ltd data@example.org")
    download(site.add("/b", "b"), settings, headers={"X-KEY": "mine", "User-Agent": "me"})
    sent = site.headers("/b")[0]
    assert (sent["x-key"], sent["user-agent"]) == ("mine", "me")


def test_headers_of_a_port_come_before_those_of_its_host(site, download):
    host = site.url.partition("//")[2]
    download(site.add("/a", "a"), {"headers": {host: {"X-Key": "port"}, "127.0.0.1": {"X-Key": "host"}}})
    assert site.headers("/a")[0]["x-key"] == "port"


def test_headers_of_the_batch_do_not_go_to_another_host_with_a_redirect(site, download):
    with http_site.serving() as other:
        site.script("/a", status(302, Location=other.add("/b", "b")))
        download(site.url + "/a", {"user_agent": "me", "headers": {"X-Key": "all", "127.0.0.1": {"Authorization": "secret"}}})
        assert site.headers("/a")[0].keys() >= {"x-key", "authorization"}
        assert not other.headers("/b")[0].keys() & {"x-key", "authorization"}
        assert other.headers("/b")[0]["user-agent"] == "me"


def test_a_header_that_is_not_ascii_is_sent_as_latin_1(site, download):
    download(site.add("/a", "a"), headers={"X-Key": "caf\u00e9"})
    assert site.headers("/a")[0]["x-key"].encode("latin-1") == b"caf\xe9"


@pytest.mark.parametrize(
    ("user", "pair"), [("me:p%40w", b"me:p@w"), ("t0ken", b"t0ken:"), ("me:", b"me:"), ("m%C3%A9:%E2%9C%93", "mé:✓".encode())]
)
def test_the_user_of_a_url_is_sent_as_basic_credentials(site, download, user, pair):
    site.add("/a", "a")
    download(site.url.replace("//", f"//{user}@") + "/a")
    assert site.headers("/a")[0]["authorization"] == f"Basic {base64.b64encode(pair).decode()}"


def test_a_header_of_the_manifest_comes_before_netrc(site, download, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password pw\n")
    download(site.add("/a", "a"), headers={"authorization": "Bearer token"})
    assert site.headers("/a")[0]["authorization"] == "Bearer token"


def test_the_user_of_a_url_comes_before_netrc(site, download, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password pw\n")
    site.add("/a", "a")
    download(site.url.replace("//", "//me:p%40w@") + "/a")
    assert site.headers("/a")[0]["authorization"] == "Basic bWU6cEB3"


def test_netrc_is_used_where_the_manifest_gives_no_credentials(site, download, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password p@w\n")
    download(site.add("/a", "a"))
    assert site.headers("/a")[0]["authorization"] == "Basic bWU6cEB3"


def test_the_file_of_the_variable_netrc_is_used(site, download, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password pw\n")
    (tmp_path / "mine").write_text("machine 127.0.0.1 login me password p@w\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "mine"))
    download(site.add("/a", "a"))
    assert site.headers("/a")[0]["authorization"] == "Basic bWU6cEB3"


def ports_used(site, fetcher_class):
    """Download five files; return the client port of each request."""
    ports = []
    reply = lambda handler: (ports.append(handler.client_address[1]), handler.send(200, b"x"))  # noqa: E731
    fetcher = fetcher_class(Settings())
    downloader = Downloader(Settings(), Workspace(Path("ws")), {"http": fetcher, "https": fetcher})
    for number in range(5):
        downloader.get(FileData(url=site.script(f"/{number}", reply)), lambda: None)
    fetcher.close()
    return ports


def test_connections_are_used_again(site, fetcher_class):
    ports = ports_used(site, fetcher_class)
    assert (len(ports), len(set(ports))) == (5, 1)


def ends_when_used_again(*, reset=False):
    """Return a reply that serves the first request of each connection, and ends the connection at the second without a byte."""
    served = set()

    def reply(handler):
        if handler.client_address in served:
            raw(b"", reset=reset)(handler)
        else:
            served.add(handler.client_address)
            handler.send(200, b"data")

    return reply


def attempts_on_stale_connections(site, fetcher_class, **how):
    """Download six files from connections that end at their second request; return the number of attempts, and of requests."""
    reply, attempts = ends_when_used_again(**how), []
    fetcher = fetcher_class(Settings(attempts=1, connect_timeout=60))
    downloader = Downloader(fetcher.settings, Workspace(Path("ws")), {"http": fetcher, "https": fetcher})
    for number in range(6):
        downloader.get(FileData(url=site.script(f"/{number}", reply)), lambda: attempts.append(1))
    fetcher.close()
    return len(attempts), sum(site.counts().values())


@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
def test_a_connection_that_ended_while_idle_is_no_attempt(site, fetcher_class, reset):
    assert attempts_on_stale_connections(site, fetcher_class, reset=reset) == (6, 11)


def test_a_new_connection_that_ends_is_an_attempt(site, download):
    error = fails(download, site.script("/a", raw(b"")))
    assert (error.error_class, site.counts()["/a"]) == ("connection", 1)


def test_a_response_that_began_on_an_idle_connection_is_an_attempt(site, fetcher_class):
    fetcher = fetcher_class(Settings(attempts=1))
    downloader = Downloader(fetcher.settings, Workspace(Path("ws")), {"http": fetcher})
    downloader.get(FileData(url=site.add("/a", "a")), lambda: None)
    with pytest.raises(FetchError):
        downloader.get(FileData(url=site.script("/b", raw(OK + b"X: "))), lambda: None)
    fetcher.close()
    assert site.counts()["/b"] == 1


def test_cookies_of_a_server_are_not_stored(site, download):
    site.script("/a", status(302, Location="/b", Set_Cookie="session=1; Path=/"))
    site.script("/b", status(503, Set_Cookie="session=2; Path=/"), status(200, b"b", Set_Cookie="session=3; Path=/"))
    download(site.url + "/a", {"attempts": 2})
    download(site.add("/c", "c"))
    assert [[headers.get("cookie") for headers in site.headers(path)] for path in ("/a", "/b", "/c")] == [
        [None, None],
        ["session=1", "session=1"],
        [None],
    ]


def wants_cookie(value):
    """Return a reply that sends a file to who returns the cookie, and redirects others with it."""
    return lambda handler: (
        handler.send(200, b"data")
        if handler.headers.get("Cookie") == value
        else handler.send(302, Location=handler.path, Set_Cookie=f"{value}; Path=/; HttpOnly")
    )


def test_a_redirect_that_sets_a_cookie_and_returns_gets_it(site, download):
    assert download(site.script("/a", wants_cookie("seen=1"))).size == 4
    assert [headers.get("cookie") for headers in site.headers("/a")] == [None, "seen=1"]


def test_a_cookie_of_the_manifest_is_sent_with_those_of_the_redirect(site, download):
    site.script("/a", status(302, Location="/b", Set_Cookie="new=2"))
    download(site.script("/b", status(200, b"b")).replace("/b", "/a"), headers={"cookie": "mine=1; new=0"})
    assert site.headers("/b")[0]["cookie"] == "mine=1; new=2"


def test_a_cookie_does_not_go_to_another_host_or_port(site, download):
    with http_site.serving() as other:
        site.script("/a", status(302, Location=other.url + "/b", Set_Cookie="session=secret; Path=/"))
        other.script("/b", status(302, Location=site.url.replace("127.0.0.1", "localhost") + "/c"))
        site.add("/c", "c")
        download(site.url + "/a")
        assert "cookie" not in other.headers("/b")[0]
        assert "cookie" not in site.headers("/c")[0]


@pytest.mark.fault(1, 2, 3, 4, 13)
@pytest.mark.parametrize(
    ("reply", "error_class", "retryable"),
    [
        (cut(BODY, 50_000, None), "truncated", True),
        (cut(BODY, 0, None), "truncated", True),
        (raw(OK + b"Content-Length: 9\r\n\r\nabc", reset=True), "truncated", True),
        (raw(OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS), "truncated", True),
        (raw(OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS + b"9\r\nab"), "truncated", True),
        (raw(OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS + b"0"), "truncated", True),
        (raw(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n"), "truncated", True),
        (raw(OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX3\r\ndef\r\n0\r\n\r\n"), "truncated", True),
        (raw(OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS + b"0\r\n\r\n"), "protocol", False),
        (raw(OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"), "protocol", False),
        (raw(OK + b"Content-Length: 3, 4\r\n\r\nabcd"), "protocol", False),
        (raw(OK + b"Content-Length: three\r\n\r\nabc"), "protocol", False),
        (raw(OK + b"Content-Length: -3\r\n\r\nabc"), "protocol", False),
        (raw(OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nabc"), "protocol", False),
        (raw(OK + b"no header\r\nContent-Length: 9\r\n\r\nabc"), "protocol", False),
        (raw(OK + b"Content-Length : 9\r\n\r\nabc"), "protocol", False),
        (raw(OK + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKS + b"0\r\n\r\n"), "protocol", False),
        (raw(OK + b"X: y\rContent-Length: 3\r\n\r\nabc"), "protocol", False),
        (raw(OK + b"Server: x\r\n"), "connection", True),
        (raw(OK + b"Content-Length: 0"), "connection", True),
        (raw(b"HTTP/1.1 302 Found\r\nLocation: /b"), "connection", True),
        (raw(b"HTTP/1.1 404 Not Found\r\nServer"), "connection", True),
        (raw(b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-2/9\r\nContent-Length: 3\r\n\r\nabc"), "protocol", False),
        (status(200, b"abc", Content_Encoding="br"), "encoding", False),
        (status(200, b"abc", Content_Encoding="gzip"), "encoding", False),
        (status(200, gzip.compress(BODY)[:-1], Content_Encoding="gzip"), "truncated", True),
        (status(200, zlib.compress(BODY)[:-9], Content_Encoding="deflate"), "truncated", True),
        (status(200, b""), "empty", False),
        (status(200, gzip.compress(b""), Content_Encoding="gzip"), "empty", False),
        (raw(OK + b"\r\n"), "empty", False),
        (raw(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "empty", False),
        (status(204), "http-204", False),
        (raw(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "http-503", True),
        (raw(b""), "connection", True),
        (raw(b"", reset=True), "connection", True),
    ],
)
def test_an_answer_that_is_no_whole_file_is_a_failure(site, download, reply, error_class, retryable):
    error = fails(download, site.script("/a", reply))
    assert (error.error_class, error.retryable) == (error_class, retryable)
    assert left() == []


@pytest.mark.parametrize(
    "reply",
    [
        raw(b"SSH-2.0-OpenSSH\r\n\r\n"),
        raw(b"HTTP/1.1 200OK\r\n\r\nabc"),
        raw(OK + b"\rX: y\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS + b"0\r\n\r\n"),
        raw(b"HTTP/1.1 2000 OK\r\n\r\nabc"),
        raw(OK + b"X: y\r\n" * 200 + b"\r\n"),
        raw(OK + b"X: " + b"y" * 200_000),
    ],
)
def test_what_is_hardly_http_is_a_failure_of_the_librarys_own_kind(site, download, reply):
    assert fails(download, site.script("/a", reply)).error_class in ("connection", "protocol", "empty")
    assert left() == []


def test_a_coding_with_a_blank_is_understood_or_refused_but_its_framing_is_no_file(site, download):
    url = site.script("/a", raw(OK + b"Transfer-Encoding: chunked \r\n\r\n" + CHUNKS + b"0\r\n\r\n"))
    with contextlib.suppress(FetchError):
        download(url)
    assert [path.read_bytes() for path in Path("ws").rglob("a")] in ([], [b"abcdefg"])


@pytest.mark.parametrize(
    ("reply", "whole"),
    [
        (raw(OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS + b"0\r\nTrailer: x\r\n\r\n"), b"abcdefg"),
        (raw(OK + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n" + CHUNKS + b"0\r\n\r\n"), b"abcdefg"),
        (raw(OK + b"\r\nabc"), b"abc"),
        (raw(OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"), b"abc"),
        (raw(b"HTTP/1.0 200 OK\r\n\r\nabc"), b"abc"),
        (raw(b"HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\nHTTP/1.1 102 Wait\r\n\r\n" + OK + b"\r\nabc"), b"abc"),
        (status(200, gzip.compress(BODY), Content_Encoding="gzip"), BODY),
        (status(200, zlib.compress(BODY), Content_Encoding="deflate"), BODY),
        (status(200, b"abc", Content_Encoding="identity"), b"abc"),
    ],
)
def test_an_answer_in_another_form_is_a_file(site, download, reply, whole):
    got = download(site.script("/a", reply))
    assert (got.path.read_bytes(), got.sha256) == (whole, hashlib.sha256(whole).hexdigest())
    assert left() == ["a", "a.dpp.json"]


PACKED = gzip.compress(BODY, mtime=0)


@pytest.mark.parametrize("known", [{"size": len(PACKED)}, {"sha256": hashlib.sha256(PACKED).hexdigest()}, {}])
def test_a_packed_file_stays_packed(site, download, known):
    url = site.script("/d.csv.gz", status(200, PACKED, Content_Encoding="gzip", Content_Type="application/x-gzip"))
    assert download(url, **known).path.read_bytes() == PACKED


def test_the_digest_in_the_manifest_decides_whether_a_file_is_decoded(site, download):
    for name, body in {"packed": PACKED, "decoded": BODY}.items():
        url = site.script(f"/{name}", status(200, PACKED, Content_Encoding="gzip"))
        got = download(url, sha256=hashlib.sha256(body).hexdigest())
        assert (got.path.read_bytes(), download.attempts) == (body, 1)
    assert site.counts() == {"/packed": 2, "/decoded": 1}


def test_a_digest_of_another_algorithm_decides_as_well(site, download):
    for name, body in {"packed": PACKED, "decoded": BODY}.items():
        url = site.script(f"/{name}", status(200, PACKED, Content_Encoding="gzip"))
        assert download(url, digests={"md5": hashlib.md5(body).hexdigest()}).path.read_bytes() == body


def test_a_packed_file_is_continued(site, download):
    head = f'HTTP/1.1 200 OK\r\nETag: "v1"\r\nContent-Encoding: gzip\r\nContent-Length: {len(PACKED)}\r\n\r\n'.encode()
    rest = status(206, PACKED[99:], ETag='"v1"', Content_Encoding="gzip", Content_Range=f"bytes 99-{len(PACKED) - 1}/{len(PACKED)}")
    url = site.script("/d.csv.gz", raw(head + PACKED[:99]), rest)
    assert download(url, {"attempts": 2}).path.read_bytes() == PACKED


@pytest.mark.parametrize("coding", ["binary", "aws-chunked", "utf-8", "none", "identity, identity", ""])
def test_a_coding_that_is_none_is_no_failure(site, download, coding):
    assert download(site.script("/a", status(200, b"abc", Content_Encoding=coding))).path.read_bytes() == b"abc"


def test_bytes_behind_the_content_length_do_not_spoil_the_next_answer(site, fetcher_class):
    site.script(
        "/a", lambda handler: handler.wfile.write(OK + b"Content-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    )
    fetcher = fetcher_class(Settings())
    downloader = Downloader(Settings(), Workspace(Path("ws")), {"http": fetcher}, [].append)
    first = downloader.get(FileData(url=site.url + "/a"), lambda: None)
    second = downloader.get(FileData(url=site.add("/b", "good")), lambda: None)
    fetcher.close()
    assert (first.path.read_bytes(), second.path.read_bytes()) == (b"abc", b"good")


def test_bytes_that_come_late_do_not_spoil_the_next_answer(site, fetcher_class):
    is_read, is_sent = threading.Event(), threading.Event()

    def reply(handler):
        handler.send(200, b"abc")
        is_read.wait(http_site.SECONDS)
        handler.send(200, b"evil")
        is_sent.set()

    fetcher = fetcher_class(Settings())
    downloader = Downloader(Settings(), Workspace(Path("ws")), {"http": fetcher}, [].append)
    first = downloader.get(FileData(url=site.script("/a", reply)), lambda: None)
    is_read.set()
    assert is_sent.wait(http_site.SECONDS)
    second = downloader.get(FileData(url=site.add("/b", "good")), lambda: None)
    fetcher.close()
    assert (first.path.read_bytes(), second.path.read_bytes()) == (b"abc", b"good")


@pytest.mark.fault(7)
def test_a_refusal_counts_though_its_body_does_not_come(site, download):
    refusal = b"HTTP/1.1 503 Busy\r\nContent-Length: 9\r\nRetry-After: 7\r\n\r\n"
    error = fails(download, site.script("/a", silent(refusal)))
    assert (error.error_class, error.retry_after) == ("http-503", 7)


XML = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired</Message><HostId>x</HostId></Error>"


@pytest.mark.parametrize("packed", [False, True])
def test_a_refusal_gives_the_reason_of_its_page(site, download, packed):
    headers = {"Content_Type": "application/xml"} | ({"Content_Encoding": "gzip"} if packed else {})
    error = fails(download, site.script("/a?sig=secret", status(403, gzip.compress(XML) if packed else XML, **headers)))
    assert (str(error), error.error_class) == ("the server responded with 403: Request has expired", "http-403")


@pytest.mark.parametrize("code", [201, 203, 226, 299])
def test_a_body_that_may_be_the_file_is_no_reason(site, download, code):
    error = fails(download, site.script("/a", status(code, b"private,1\n")))
    assert (error.http_status, str(error)) == (code, f"the server responded with {code}")


def test_a_reason_that_comes_slowly_is_awaited_for_a_short_time(site, download):
    def slow(handler):
        handler.wfile.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 999999\r\nRetry-After: 7\r\n\r\nmaintenance")
        handler.wfile.flush()
        handler.site.over.wait(0.2)
        handler.wfile.write(b" until 12:00")
        trickle()(handler)

    error, took = timed(download, site.script("/a", slow), {})
    assert re.fullmatch("the server responded with 503: maintenance until 12:00x*", str(error))
    assert (took < SOON, error.retry_after) == (True, 7)


def test_an_endless_error_page_is_not_read(site, download):
    def endless(handler):
        handler.wfile.write(b"HTTP/1.1 403 No\r\n\r\n")
        for _ in range(100_000):
            handler.wfile.write(b"no entry " * 1000)

    assert str(fails(download, site.script("/a", endless))).startswith("the server responded with 403: no entry no entry")


def test_a_reason_does_not_repeat_secrets(site, download, tmp_path, monkeypatch):
    with http_site.serving() as other:
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password netrc-secret\n")
        site.script("/a?sig=one-secret", status(302, Location=f"{other.url}/b?sig=two-secret", Set_Cookie="c=cookie-secret"))
        texts = (
            "one-secret two-secret key-secret netrc-secret someone given-secret user-secret",
            f"<p>{site.url}/a?sig=one-secret&amp;x=1</p>",
            base64.b64encode(b"someone:netrc-secret").decode(),
        )
        for number, text in enumerate(texts):
            url = other.script(f"/b?sig=two-secret&n={number}", status(403, text.encode()))
            site.script(f"/a{number}?sig=one-secret", status(302, Location=url))
            basic = base64.b64encode(b"me:user-secret").decode()
            headers = {"X-Key": "key-secret", "Cookie": "a=given-secret", "Authorization": f"Basic {basic}"}
            error = fails(download, f"{site.url}/a{number}?sig=one-secret", headers=headers)
            assert "someone" not in str(error)
            assert "***" in str(error)


@pytest.mark.fault(1)
def test_headers_that_are_cut_are_no_empty_file(site, download):
    assert fails(download, site.script("/a", raw(OK + b"ETag: ")), size=0).error_class == "connection"


@pytest.mark.parametrize(
    "endless",
    [
        b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" * 100_000,
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS + b"0\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
    ],
    ids=["interim", "trailers"],
)
def test_headers_without_end_are_no_answer(site, download, endless):
    assert fails(download, site.script("/a", raw(endless))).error_class in ("protocol", "connection", "truncated")


@pytest.mark.fault(13)
def test_an_empty_answer_is_a_file_where_the_manifest_says_size_0(site, download):
    assert download(site.script("/a", status(200)), size=0).path.read_bytes() == b""


@pytest.mark.fault(8)
@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_a_final_status_is_final_at_once(site, download, code):
    error = fails(download, site.script("/a", status(code, b"sorry")), {"attempts": 3})
    assert (error.error_class, error.http_status, download.attempts, download.waits) == (f"http-{code}", code, 1, [])


@pytest.mark.fault(7)
@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_a_status_that_can_get_better_is_tried_again(site, download, code):
    url = site.script("/a", status(code), status(code), status(200, b"abc"))
    assert download(url, {"attempts": 3}).path.read_bytes() == b"abc"
    assert (download.attempts, len(download.waits)) == (3, 2)


def test_a_closed_port_is_a_connection_error(download):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = fails(download, f"http://127.0.0.1:{taken.getsockname()[1]}/a?k=secret")
    assert (error.error_class, error.retryable, str(error)) == ("connection", True, "connection refused")


@pytest.mark.fault(11)
@pytest.mark.parametrize("fetcher_class", [RequestsFetcher])
def test_a_host_without_an_address_is_a_dns_error(download, monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = fails(download, "http://nowhere.invalid/a?k=secret")
    assert (error.error_class, error.retryable) == ("dns", True)


@pytest.mark.parametrize("url", ["http://a..b/x?k=secret", "http://.example/x?k=secret", "http://\u2603\u0301\ufffd/x"])
def test_a_url_that_the_library_refuses_is_a_failure(download, url):
    assert fails(download, url).error_class in ("protocol", "dns")


class TestLimits:
    """Short time limits; the other limits are so long that an end within ``SOON`` shows that they were not reached."""

    @pytest.mark.fault(11)
    def test_a_connection_that_hangs_ends_with_the_connect_limit(self, download):
        with full_backlog() as url:
            error, took = timed(download, url, {"connect_timeout": 0.2})
        assert (error.error_class, error.retryable) == ("timeout", True)
        assert took < SOON

    @pytest.mark.fault(10)
    @pytest.mark.parametrize("beginning", [b"", OK, OK + b"Content-Length: 9\r\n\r\n", OK + b"Content-Length: 9\r\n\r\nabc"])
    @pytest.mark.parametrize("limits", [{"read_timeout": 0.2}, {"total_timeout": 0.2}])
    def test_silence_ends_with_the_read_limit_or_the_total(self, site, download, beginning, limits):
        error, took = timed(download, site.script("/a", silent(beginning)), limits)
        assert (error.error_class, error.retryable) == ("timeout", True)
        assert took < SOON

    @pytest.mark.fault(10)
    @pytest.mark.parametrize(
        "beginning",
        [b"HTTP/1.1 200 OK\r\nX: ", OK + b"Content-Length: 9999\r\n\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\n5;ext="],
        ids=["headers", "body", "chunk-extension"],
    )
    @pytest.mark.parametrize("limits", [{"stall_timeout": 0.3}, {"total_timeout": 0.3}])
    def test_a_trickle_ends_with_the_stall_limit_or_the_total(self, site, download, beginning, limits):
        error, took = timed(download, site.script("/a", trickle(beginning)), limits)
        assert (error.error_class, error.retryable) == ("timeout", True)
        assert next(iter(limits)) in str(error)
        assert took < SOON

    def test_redirects_and_the_answer_share_one_total(self, site, download):
        slow = lambda handler: (site.over.wait(0.15), handler.send(302, Location="/a"))  # noqa: E731
        error, took = timed(download, site.script("/a", slow), {"total_timeout": 0.4})
        assert (error.error_class, took < SOON) == ("timeout", True)

    def test_a_slow_start_after_a_redirect_is_no_stall(self, site, download):
        site.script("/a", status(302, Location="/b"))
        site.script("/b", late(0.7))
        assert download(site.url + "/a", {"stall_timeout": 0.5}).size == len(BODY)

    def test_a_slow_start_is_no_stall(self, site, download):
        assert download(site.script("/a", late(0.4)), {"stall_timeout": 0.2}).size == len(BODY)


def late(seconds):
    """Return a reply that starts after some seconds and then sends everything at once."""
    # The body is larger than what a stall allows, so a busy machine that stops for a moment afterwards causes no stall.
    whole = raw(OK + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    return lambda handler: (handler.site.over.wait(seconds), whole(handler))


def timed(download, url, settings):
    began = time.monotonic()
    error = fails(download, url, settings)
    return error, time.monotonic() - began


class TestRedirects:
    """Redirects."""

    @pytest.fixture
    def other(self):
        """Start another server; its port makes it another origin."""
        with http_site.serving() as served:
            yield served

    @pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("location", ["{url}/b", "/b", "b", "/x/../b"])
    def test_relative_and_absolute_ones_are_followed(self, site, download, code, location):
        site.script("/a", status(code, Location=location.format(url=site.url)))
        site.add("/b", "b")
        assert download(site.url + "/a").path.read_bytes() == b"b"

    def test_a_location_in_plain_utf_8_is_followed(self, site, download):
        site.script("/a", raw("HTTP/1.1 302 Found\r\nLocation: /café\r\nContent-Length: 0\r\n\r\n".encode()))
        site.add("/caf%C3%A9", "b")
        assert download(site.url + "/a").path.read_bytes() == b"b"

    def test_a_location_with_a_blank_is_followed(self, site, download):
        site.script("/a", status(302, Location="/b c?d e"))
        site.script("/b%20c?d%20e", status(200, b"b"))
        assert download(site.url + "/a").path.read_bytes() == b"b"

    def test_the_download_is_named_by_the_url_that_was_asked_for(self, site, download):
        site.script("/a.txt", status(302, Location="/b.php?x=1"))
        site.add("/b.php", "b")
        assert download(site.url + "/a.txt").path.name == "a.txt"

    @pytest.mark.fault(8)
    @pytest.mark.parametrize(("redirects", "ok"), [(10, True), (11, False)])
    def test_ten_are_followed_and_not_one_more(self, site, download, redirects, ok):
        for number in range(redirects):
            site.script(f"/{number}", status(302, Location=f"/{number + 1}"))
        site.add(f"/{redirects}", "end")
        if ok:
            assert download(site.url + "/0").size == 3
        else:
            assert fails(download, site.url + "/0").error_class == "redirect"
        assert sum(site.counts().values()) == 11

    @pytest.mark.fault(8)
    def test_a_loop_is_final_at_once(self, site, download):
        error = fails(download, site.script("/a", status(302, Location="/a")), {"attempts": 3})
        assert (error.error_class, download.attempts) == ("redirect", 1)

    @pytest.mark.fault(9)
    @pytest.mark.parametrize(
        "location", ["file:///etc/passwd", "ftp://127.0.0.1/a", "//[bad", "gopher://x/", "http://localhost\\@127.0.0.1/"]
    )
    def test_ones_to_another_scheme_are_refused(self, site, download, location):
        error = fails(download, site.script("/a", status(302, Location=location)))
        assert (error.error_class, error.retryable, left()) == ("redirect", False, [])

    def test_one_to_nowhere_is_refused(self, site, download):
        assert fails(download, site.script("/a", status(302))).error_class == "redirect"

    HEADERS = {"Authorization": "Bearer t", "Cookie": "a=b", "X-Api-Key": "k"}  # noqa: RUF012
    SECRET = frozenset({"authorization", "cookie", "x-api-key"})

    @pytest.mark.fault(9)
    def test_credentials_do_not_go_to_another_port_nor_come_back(self, site, other, download):
        site.script("/a", status(302, Location=other.url + "/b"))
        other.script("/b", status(302, Location=site.url + "/c"))
        site.add("/c", "c")
        download(site.url + "/a", headers=self.HEADERS)
        assert site.headers("/a")[0].keys() >= self.SECRET
        assert not other.headers("/b")[0].keys() & self.SECRET
        assert not site.headers("/c")[0].keys() & self.SECRET

    def test_credentials_stay_on_the_same_origin(self, site, download):
        site.script("/a", status(302, Location="/b"))
        site.add("/b", "b")
        download(site.url + "/a", headers=self.HEADERS)
        assert site.headers("/b")[0].keys() >= self.SECRET

    @pytest.mark.fault(9)
    def test_the_user_of_a_url_stays_on_its_origin(self, site, other, download):
        site.script("/a", status(302, Location="/b"))
        site.script("/b", status(302, Location=other.url + "/c"))
        other.add("/c", "c")
        download(site.url.replace("//", "//me:pw@") + "/a")
        assert site.headers("/b")[0]["authorization"] == "Basic bWU6cHc="
        assert "authorization" not in other.headers("/c")[0]


class TestContinuing:
    """Parts that are continued or discarded."""

    @pytest.mark.fault(1)
    def test_within_a_run(self, site, download):
        site.add("/a", BODY)
        etag = f'"{hashlib.md5(BODY).hexdigest()}"'
        site.script("/a", cut(BODY, 30_000, etag), http_site.serve_file)
        got = download(site.url + "/a", {"attempts": 2})
        assert (got.path.read_bytes(), got.sha256) == (BODY, hashlib.sha256(BODY).hexdigest())
        second = site.headers("/a")[1]
        assert (second["range"], second["if-range"]) == ("bytes=30000-", etag)
        assert left() == ["a", "a.dpp.json"]

    @pytest.fixture
    def part(self, site, download):
        """Leave a part with 30,000 bytes of /a, as an earlier run does; forget the request."""
        site.script("/a", cut(BODY, 30_000))
        fails(download, site.url + "/a")
        assert left() == ["a.part", "a.part.dpp.json"]
        site.forget()

    def finish(self, site, download, *replies, **settings):
        got = download(site.script("/a", *replies), settings)
        assert (got.path.read_bytes(), got.sha256) == (BODY, hashlib.sha256(BODY).hexdigest())
        assert left() == ["a", "a.dpp.json"]
        assert download.attempts == settings.get("attempts", 1)
        return [headers.get("range") for headers in site.headers("/a")]

    REST = staticmethod(
        lambda **headers: status(206, BODY[30_000:], **{"ETag": '"v1"', "Content_Range": "bytes 30000-99999/100000", **headers})
    )
    WHOLE = staticmethod(lambda etag='"v2"': status(200, BODY, ETag=etag))

    @pytest.mark.fault(1)
    def test_across_runs(self, site, download, part):
        assert self.finish(site, download, self.REST()) == ["bytes=30000-"]

    def test_across_many_runs_of_a_few_bytes_each(self, site, download, part):
        for start in (30_000, 60_000):
            rest = BODY[start:]
            head = f'HTTP/1.1 206 OK\r\nETag: "v1"\r\nContent-Range: bytes {start}-99999/100000\r\nContent-Length: {len(rest)}\r\n\r\n'
            fails(download, site.script("/a", raw(head.encode() + rest[:30_000])))
        last = status(206, BODY[90_000:], ETag='"v1"', Content_Range="bytes 90000-99999/100000")
        assert self.finish(site, download, last) == ["bytes=30000-", "bytes=60000-", "bytes=90000-"]

    def test_a_continuation_in_chunks(self, site, download, part):
        chunk = f"{70_000:x}\r\n".encode() + BODY[30_000:] + b"\r\n0\r\n\r\n"
        head = b'HTTP/1.1 206 OK\r\nETag: "v1"\r\nContent-Range: bytes 30000-99999/100000\r\nTransfer-Encoding: chunked\r\n\r\n'
        assert self.finish(site, download, raw(head + chunk)) == ["bytes=30000-"]

    @pytest.mark.fault(5)
    @pytest.mark.parametrize("etag", ['"v1"', '"v2"', 'W/"v1"'])
    def test_a_server_that_sends_200_starts_it_over(self, site, download, part, etag):
        assert self.finish(site, download, self.WHOLE(etag)) == ["bytes=30000-"]

    @pytest.mark.fault(6)
    @pytest.mark.parametrize(
        "refusal",
        [
            status(416, Content_Range="bytes */20000"),
            REST(ETag='"v2"'),
            REST(ETag='W/"v1"'),
            status(206, BODY[30_000:], Content_Range="bytes 30000-99999/100000"),
            REST(Content_Range="bytes 29999-99998/100000"),
            REST(Content_Range="bytes 30000-99999/*"),
            status(206, BODY[30_000:40_000], ETag='"v1"', Content_Range="bytes 30000-39999/100000"),
            REST(Content_Range="bytes 30000-99999/100001"),
            status(206, BODY[30_000:40_000], ETag='"v1"', Content_Range="bytes 30000-39999/40000"),
            status(206, BODY[30_000:], ETag='"v1"'),
            status(206, BODY[30_000:], ETag='"v1"', Content_Type="multipart/byteranges; boundary=x"),
            REST(Content_Encoding="gzip"),
        ],
    )
    def test_a_range_that_does_not_fit_starts_it_over_in_the_same_attempt(self, site, download, part, refusal):
        assert self.finish(site, download, refusal, self.WHOLE()) == ["bytes=30000-", None]

    def test_a_continuation_that_is_cut_again_goes_on_in_the_next_attempt(self, site, download, part):
        head = b'HTTP/1.1 206 OK\r\nETag: "v1"\r\nContent-Range: bytes 30000-99999/100000\r\nContent-Length: 70000\r\n\r\n'
        last = status(206, BODY[50_000:], ETag='"v1"', Content_Range="bytes 50000-99999/100000")
        asked = self.finish(site, download, raw(head + BODY[30_000:50_000]), last, attempts=2)
        assert asked == ["bytes=30000-", "bytes=50000-"]

    def test_a_part_survives_a_server_that_is_down(self, site, download, part):
        fails(download, site.script("/a", status(503)), {"attempts": 2})
        assert self.finish(site, download, self.REST())[-1] == "bytes=30000-"

    def test_a_part_that_has_every_byte_is_started_over_by_a_416(self, site, download, part):
        (path,) = Path("ws").rglob("a.part")
        path.write_bytes(BODY)
        assert self.finish(site, download, status(416), self.WHOLE()) == ["bytes=100000-", None]

    @pytest.mark.fault(6)
    @pytest.mark.parametrize("etag", ['W/"v1"', None, "v1"])
    def test_without_a_strong_etag_there_is_nothing_to_continue(self, site, download, etag):
        fails(download, site.script("/a", cut(BODY, 30_000, etag)))
        assert left() == []
        assert self.finish(site, download, self.WHOLE()) == [None, None]

    def test_an_encoded_body_is_not_continued(self, site, download):
        packed = gzip.compress(os.urandom(50_000))
        head = f'HTTP/1.1 200 OK\r\nETag: "v1"\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n'
        fails(download, site.script("/a", raw(head.encode() + packed[:30_000])))
        assert left() == []

    def test_a_range_refused_for_ever_is_a_failure(self, site, download, part):
        error = fails(download, site.script("/a", status(416)))
        assert (error.error_class, left()) == ("http-416", [])

    def test_a_continued_file_that_is_not_as_expected_is_thrown_away(self, site, download, part):
        site.script("/a", self.REST())
        with pytest.raises(Exception, match="expected sha256"):
            download(site.url + "/a", sha256="0" * 64)
        assert left() == []


class TestTls:
    """TLS, with our own certificates."""

    @pytest.fixture
    def ca(self):
        return trustme.CA()

    @pytest.fixture
    def serve(self, ca):
        """Start an https server with a certificate; return its site, whose ``certify`` gives it another one."""
        with contextlib.ExitStack() as servers:

            def start(*names, **facts):
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

                def certify(*names, by=ca, **facts):
                    by.issue_cert(*names, **facts).configure_cert(context)

                certify(*names, **facts)
                site = servers.enter_context(http_site.serving(context))
                site.certify = certify
                return site

            yield start

    @pytest.fixture(autouse=True)
    def trusted(self, ca, tmp_path, monkeypatch):
        ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))

    def test_a_trusted_server(self, serve, download):
        site = serve("127.0.0.1")
        assert download(site.add("/a", BODY)).path.read_bytes() == BODY

    def test_connections_are_used_again(self, serve, fetcher_class):
        ports = ports_used(serve("127.0.0.1"), fetcher_class)
        assert (len(ports), len(set(ports))) == (5, 1)

    def test_a_connection_that_ended_while_idle_is_no_attempt(self, serve, fetcher_class):
        assert attempts_on_stale_connections(serve("127.0.0.1"), fetcher_class) == (6, 11)

    UNTRUSTED = pytest.mark.parametrize(
        ("names", "facts", "reason"),
        [
            (["other.example"], {}, "IP"),
            (["127.0.0.1"], {"by": trustme.CA()}, "unable to get local issuer"),
            (["127.0.0.1"], {"not_after": dt.datetime(2001, 1, 1, tzinfo=dt.UTC)}, "expired"),
        ],
        ids=["host", "ca", "expired"],
    )

    @pytest.mark.fault(12)
    @UNTRUSTED
    def test_one_that_is_not_is_refused_for_good(self, serve, download, names, facts, reason):
        site = serve(*names, **facts)
        error = fails(download, site.add("/a", "a"), {"attempts": 3})
        assert (error.error_class, error.retryable, download.attempts) == ("tls", False, 1)
        assert reason in str(error)
        assert not site.counts()

    @pytest.mark.fault(12)
    @UNTRUSTED
    def test_a_certificate_that_changes_between_attempts_is_checked_again(self, serve, download, names, facts, reason):
        def first(handler):
            site.certify(*names, **facts)
            cut(BODY, 30_000)(handler)

        site = serve("127.0.0.1")
        error = fails(download, site.script("/a", first), {"attempts": 3}, headers={"Authorization": "Bearer t"})
        assert (error.error_class, download.attempts, len(site.requests), reason in str(error)) == ("tls", 2, 1, True)
        assert [path.stat().st_size for path in Path("ws").rglob("a.part")] == [30_000]
        site.certify("127.0.0.1")
        assert TestContinuing().finish(site, download, TestContinuing.REST()) == [None, "bytes=30000-"]

    def test_a_certificate_that_is_renewed_is_trusted_by_the_same_fetcher(self, serve, fetcher_class):
        site = serve("other.example")
        fetcher = fetcher_class(Settings(connect_timeout=60))
        with contextlib.closing(fetcher):
            with pytest.raises(FetchError, match="TLS handshake failed"):
                fetch(fetcher, site.add("/a", "a"))
            site.certify("127.0.0.1")
            assert fetch(fetcher, site.url + "/a") == b"a"

    def test_authorities_that_are_replaced_count_for_new_connections(self, serve, fetcher_class, ca):
        site, other = serve("127.0.0.1"), trustme.CA()
        site.script("/a", raw(OK + b"Content-Length: 1\r\n\r\na"))
        fetcher = fetcher_class(Settings(connect_timeout=60))
        with contextlib.closing(fetcher):
            assert fetch(fetcher, site.url + "/a") == b"a"
            other.cert_pem.write_to_path(os.environ["REQUESTS_CA_BUNDLE"])
            with pytest.raises(FetchError, match="unable to get local issuer"):
                fetch(fetcher, site.url + "/a")
            site.certify("127.0.0.1", by=other)
            assert fetch(fetcher, site.url + "/a") == b"a"

    @pytest.mark.parametrize("damage", [os.unlink, lambda path: os.truncate(path, 0), lambda path: os.truncate(path, 300)])
    def test_authorities_that_are_lost_meanwhile_are_named(self, serve, fetcher_class, damage):
        fetcher = fetcher_class(Settings(connect_timeout=60))
        damage(os.environ["REQUESTS_CA_BUNDLE"])
        with contextlib.closing(fetcher), pytest.raises(FetchError, match="cannot read the CA certificates: ") as caught:
            fetch(fetcher, serve("127.0.0.1").add("/a", "a"))
        assert (caught.value.error_class, caught.value.retryable) == ("tls", False)

    @pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
    def test_each_variable_may_name_the_authority(self, serve, download, monkeypatch, name):
        path = os.environ["REQUESTS_CA_BUNDLE"]
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        monkeypatch.setenv(name, path)
        assert download(serve("127.0.0.1").add("/a", "a")).size == 1

    @pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR"])
    def test_each_variable_may_name_a_folder(self, serve, download, monkeypatch, tmp_path, name):
        (tmp_path / "folder").mkdir()
        (tmp_path / "ca.pem").rename(tmp_path / "folder" / "ca.pem")
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        monkeypatch.setenv(name, str(tmp_path / "folder"))
        with pytest.raises(ConfigurationError, match=f"{name}.*openssl rehash"):
            download("https://127.0.0.1/a")
        subprocess.run(["openssl", "rehash", tmp_path / "folder"], check=True)
        assert download(serve("127.0.0.1").add("/a", "a")).size == 1

    def test_file_and_folder_of_openssl_count_together(self, serve, download, monkeypatch, tmp_path):
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
        subprocess.run(["openssl", "rehash", tmp_path], check=True)
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other.pem"))
        site = serve("127.0.0.1")
        assert fails(download, site.add("/a", "a")).error_class == "tls"
        monkeypatch.setenv("SSL_CERT_DIR", f"/nowhere:{tmp_path}")
        assert download(site.add("/a", "a")).size == 1

    def test_a_private_key_is_no_certificate(self, fetcher_class, monkeypatch, tmp_path):
        key = tmp_path / "key.pem"
        trustme.CA().private_key_pem.write_to_path(str(key))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(key))
        with pytest.raises(ConfigurationError, match=r"key\.pem, which has no certificate in PEM format"):
            fetcher_class(Settings())

    @pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"])
    @pytest.mark.parametrize("path", ["/nowhere/ca.pem", "/dev/null"])
    def test_authorities_that_are_not_there_are_named_before_anything_is_fetched(self, fetcher_class, monkeypatch, name, path):
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        monkeypatch.setenv(name, path)
        with pytest.raises(ConfigurationError, match=f"{name} names {path}"):
            fetcher_class(Settings())

    @pytest.mark.fault(12)
    def test_a_server_that_speaks_no_tls_is_refused(self, site, download):
        error = fails(download, site.add("/a", "a").replace("http:", "https:"))
        assert (error.error_class, error.retryable) == ("tls", False)
        assert "wrong version number" in str(error)

    def test_a_body_cut_without_a_goodbye_is_continued(self, serve, download):
        site = serve("127.0.0.1")
        site.script("/a", cut(BODY, 30_000), TestContinuing.REST())
        assert download(site.url + "/a", {"attempts": 2}).path.read_bytes() == BODY

    @pytest.mark.fault(1)
    def test_a_body_without_a_length_needs_a_goodbye(self, serve, download):
        def goodbye(handler):
            raw(OK + b"\r\nabc")(handler)
            with contextlib.suppress(OSError):
                handler.connection.unwrap()

        site = serve("127.0.0.1")
        error = fails(download, site.script("/a", raw(OK + b"\r\nabc")))
        assert (error.error_class, error.retryable) == ("truncated", True)
        assert download(site.script("/b", goodbye)).path.read_bytes() == b"abc"

    @pytest.mark.fault(12)
    @pytest.mark.parametrize("taken", [1, 65536], ids=["reset", "end"])
    def test_a_handshake_that_breaks_can_get_better(self, download, taken):
        def breaks():
            connection = server.accept()[0]
            connection.recv(taken)
            connection.close()

        with socket.create_server(("127.0.0.1", 0)) as server:
            threading.Thread(target=breaks, daemon=True).start()
            error = fails(download, f"https://127.0.0.1:{server.getsockname()[1]}/a")
        assert (error.error_class, error.retryable) == ("connection", True)

    @pytest.mark.fault(9)
    def test_credentials_are_dropped_on_the_way_from_https_to_http(self, serve, site, download):
        secure = serve("127.0.0.1")
        secure.script("/a", status(302, Location=site.add("/b", "b")))
        download(secure.url + "/a", headers={"Authorization": "Bearer t"})
        assert "authorization" not in site.headers("/b")[0]


@pytest.mark.parametrize("level", [logging.DEBUG, logging.WARNING])
def test_no_log_shows_the_query_or_the_password(site, download, caplog, level):
    caplog.set_level(level)
    broken = raw(OK + b"no header at all\r\nContent-Length: 3\r\n\r\nabc")
    url = site.script("/a?sig=secret", status(302, Location="/b?sig=secret"))
    site.script("/b?sig=secret", broken)
    with contextlib.suppress(FetchError):
        download(url.replace("//", "//me:secret@"))
    assert site.counts()["/b?sig=secret"]
    assert "secret" not in caplog.text
    assert not re.search(r"sig=[^*]", caplog.text)


def test_the_body_of_a_redirect_is_not_read(site, download):
    def endless(handler):
        handler.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: /b\r\n\r\n")
        for _ in range(100_000):
            handler.wfile.write(b"x" * 1000)
        handler.close_connection = True

    site.script("/a", endless)
    site.add("/b", "b")
    tracemalloc.start()
    try:
        download(site.url + "/a")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_proxy_of_the_environment_is_used_under_the_same_limits(site, download, monkeypatch):
    monkeypatch.setenv("http_proxy", site.url)
    monkeypatch.delenv("NO_PROXY")
    site.script("http://far.example/a", trickle(b"HTTP/1.1 200 OK\r\nX: "))
    error, took = timed(download, "http://far.example/a", {"stall_timeout": 0.3})
    assert (error.error_class, took < SOON) == ("timeout", True)
    assert "stall_timeout" in str(error)


def test_what_a_proxy_answers_is_said(site, download, monkeypatch):
    monkeypatch.setenv("https_proxy", site.url.replace("//", "//me:secret@"))
    monkeypatch.delenv("NO_PROXY")
    # The site does not support CONNECT.
    error = fails(download, "https://far.example/a")
    assert error.error_class == "connection"
    assert re.fullmatch("the proxy .* 501", str(error))


@pytest.fixture
def proxy(site, monkeypatch):
    """Make the site the proxy for http."""
    monkeypatch.setenv("http_proxy", site.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    return site


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
@pytest.mark.parametrize(
    ("value", "host", "is_direct"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("x, 127.0.0.0/8", "127.0.0.1", True),
        ("*", "127.0.0.1", True),
        ("localhost", "localhost", True),
        (".localhost", "localhost", True),
        ("localhost:{port}", "localhost", True),
        ("localhost:1", "localhost", False),
        ("LOCALHOST", "localhost", True),
        ("host", "localhost", False),
        ("127.0.0.2", "127.0.0.1", False),
        ("", "127.0.0.1", False),
    ],
)
def test_hosts_without_a_proxy_are_the_same_for_all_fetchers(proxy, download, monkeypatch, name, value, host, is_direct):
    with http_site.serving() as server:
        port = server.url.rpartition(":")[2]
        monkeypatch.setenv(name, value.format(port=port))
        url = f"http://{host}:{port}/a"
        server.add("/a", "direct")
        proxy.script(url, status(200, b"by proxy"))
        assert download(url).path.read_bytes() == (b"direct" if is_direct else b"by proxy")


@pytest.mark.parametrize("value", ["ftp://me:secret@proxy", "http://me:secret@[bad", "http://me:secret@:0"])
def test_a_proxy_that_is_not_one_is_named(proxy, download, monkeypatch, value):
    monkeypatch.setenv("http_proxy", value)
    error = fails(download, "http://far.example/a?k=secret")
    assert (error.error_class, error.retryable) == ("connection", False)
    assert "the proxy in the environment" in str(error)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_refuses_the_connection_is_named(download, monkeypatch, scheme):
    monkeypatch.delenv("NO_PROXY")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv(f"{scheme}_proxy", f"http://me:secret@127.0.0.1:{taken.getsockname()[1]}")
        assert str(fails(download, f"{scheme}://far.example/a")) == "connection refused by the proxy"


@pytest.mark.parametrize("value", ["HTTP_PROXY", "ALL_PROXY", "all_proxy"])
def test_each_variable_may_name_the_proxy(proxy, download, monkeypatch, value):
    monkeypatch.delenv("http_proxy")
    monkeypatch.setenv(value, proxy.url.replace("//", "//me:p%40w@"))
    proxy.script("http://far.example/a", status(200, b"by proxy"))
    assert download("http://far.example/a").path.read_bytes() == b"by proxy"
    assert proxy.headers("http://far.example/a")[0]["proxy-authorization"] == "Basic bWU6cEB3"


@pytest.mark.parametrize("fetcher_class", [RequestsFetcher])
def test_a_proxy_that_needs_another_package_names_it(proxy, download, monkeypatch):
    monkeypatch.setattr("requests.adapters.SOCKSProxyManager", without_pysocks)
    monkeypatch.setenv("http_proxy", "socks5://me:secret@proxy:1080")
    error = fails(download, "http://far.example/a")
    assert (error.error_class, error.retryable) == ("connection", False)
    assert "PySocks" in str(error)


def without_pysocks(*args, **kwargs):
    """Fail as requests does where PySocks is not installed."""
    raise requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")


def endless(handler):
    """Send a response without a length that never ends."""
    handler.close_connection = True
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(bytes(64 * 1024))


LARGEST = 1_000_000
BOMB = gzip.compress(bytes(2 * LARGEST))


@pytest.mark.fault(35)
@pytest.mark.parametrize(
    "reply",
    [
        endless,
        raw(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB),
        raw(OK + b"Content-Length: %d\r\n\r\n" % (LARGEST + 1) + b"the first bytes"),
    ],
    ids=["endless", "bomb", "announced"],
)
def test_a_response_larger_than_the_limit_fails_and_leaves_nothing(site, download, reply, tmp_path, seen, request):
    with pytest.raises(StageError, match=f"at most {LARGEST} bytes") as caught:
        download(site.script("/large", reply), {"max_bytes": LARGEST, "attempts": 3})
    assert (caught.value.error_class, download.attempts) == ("too-large", 1)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    seen(f"{request.node.callspec.id.partition('-')[2]}: too-large at the first attempt")
