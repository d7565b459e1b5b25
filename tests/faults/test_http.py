"""Faults of HTTP servers in a batch: the outcome of the file, of the other files, and of the next run.

These tests use the built-in fetcher; tests/download/test_http_fetchers.py tests the same rules for all fetchers.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import hashlib
import shutil
import ssl
import subprocess
import sys
from email.utils import formatdate
from pathlib import Path

import pytest
import trustme

import http_site
from http_site import cut, full_backlog, raw, serve_file, silent, status, trickle

BIN = Path(sys.executable).parent
pytestmark = pytest.mark.usefixtures("fetcher")
OK = b"HTTP/1.1 200 OK\r\n"
BODY = bytes(range(256)) * 400
ETAG = f'"{hashlib.md5(BODY).hexdigest()}"'
# In a chunk, several downloads wait at the same time.
QUICK = ("--retry-wait", 0.01, "--chunk-size", 100)


@pytest.fixture
def batch(site, manifest, dpp, results, tmp_path):
    """Return a function that runs a batch of URLs and one good file, checks the workspace, and returns the rows of the URLs."""
    well = tmp_path / "well.txt"

    def run(urls, *arguments, **fields):
        well.write_text("well")
        entries = [{"url": url, "id": f"f{number}", **fields} for number, url in enumerate(urls)]
        code, _, said = dpp("run", manifest([*entries, {"url": well.as_uri(), "id": "well"}]), *QUICK, *arguments)
        rows = results()
        assert rows.pop("well")["status"] == "ok"
        assert code == int(any(row["status"] == "failed" for row in rows.values())), said
        assert len(downloads(tmp_path)) == 1 + sum(row["status"] == "ok" for row in rows.values())
        return [rows[f"f{number}"] for number in range(len(urls))]

    return run


def downloads(tmp_path):
    """Return the downloads with their final names."""
    found = (tmp_path / "dpp-workspace/downloads").glob("*/*/*")
    return [path for path in found if not path.name.endswith((".part", ".dpp.json"))]


def ends(rows):
    """Return the outcome of each file and its number of attempts."""
    return [(row["error_class"] or "ok", row["attempts"]) for row in rows]


def digests(rows):
    return {row["sha256"] for row in rows}


@pytest.mark.fault(1)
def test_a_body_that_breaks_is_continued(site, batch, seen):
    beginning = OK + f"Content-Length: {len(BODY)}\r\nETag: {ETAG}\r\n\r\n".encode() + BODY[:70_000]
    site.files |= {"/cut": BODY, "/reset": BODY}
    urls = [site.script("/cut", cut(BODY, 70_000, ETAG), serve_file), site.script("/reset", raw(beginning, reset=True), serve_file)]
    rows = batch(urls)
    assert ends(rows) == [("ok", 2)] * 2
    assert digests(rows) == {hashlib.sha256(BODY).hexdigest()}
    assert site.headers("/cut")[1]["range"] == "bytes=70000-"
    seen("second attempt from byte 70000, digest right")


@pytest.mark.fault(1)
def test_a_body_that_breaks_each_time_fails_and_is_continued_by_the_next_run(site, batch, seen):
    site.files["/a"] = BODY
    assert ends(batch([site.script("/a", cut(BODY, 70_000, ETAG))])) == [("truncated", 3)]
    site.forget()
    assert ends(batch([site.script("/a", serve_file)])) == [("ok", 1)]
    assert [headers["range"] for headers in site.headers("/a")] == ["bytes=70000-"]
    seen("truncated after 3 attempts, continued by a rerun")


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"


@pytest.mark.fault(2)
@pytest.mark.parametrize("end", [b"", b"0", b"5\r\nde", b"0\r\n"])
def test_chunks_without_their_last_are_tried_again(site, batch, seen, end):
    broken = raw(CHUNKED + end)
    rows = batch([site.script("/once", broken, raw(CHUNKED + b"0\r\n\r\n")), site.script("/always", broken)])
    assert ends(rows) == [("ok", 2), ("truncated", 3)]
    seen("ok at the second attempt, else truncated after 3")


@pytest.mark.fault(3)
def test_lengths_that_make_no_sense_are_final(site, batch, seen):
    lengths = [b"three", b"-3", b"3\r\nContent-Length: 4", b"3, 4", b"+3", b"9" * 5000, b""]
    urls = [site.script(f"/{number}", raw(OK + b"Content-Length: " + value + b"\r\n\r\nabcd")) for number, value in enumerate(lengths)]
    assert ends(batch(urls)) == [("protocol", 1)] * len(lengths)
    seen(f"protocol at once, {len(lengths)} ways")


@pytest.mark.fault(4)
def test_a_compressed_answer_that_is_cut_is_tried_again(site, batch, seen):
    packed = gzip.compress(BODY)
    whole, half = status(200, packed, Content_Encoding="gzip"), status(200, packed[:-1], Content_Encoding="gzip")
    rows = batch([site.script("/once", half, whole), site.script("/always", half)])
    assert ends(rows) == [("ok", 2), ("truncated", 3)]
    assert rows[0]["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert {headers["accept-encoding"] for headers in site.headers("/always")} == {"identity"}
    seen("unpacked at the second attempt, else truncated after 3")


@pytest.fixture
def interrupted(site, batch):
    """Leave a part of /a, as a run does if the server closes the connection."""

    def leave(etag):
        site.files["/a"] = BODY
        assert ends(batch([site.script("/a", cut(BODY, 70_000, etag))], "--attempts", 1)) == [("truncated", 1)]
        site.forget()

    return leave


@pytest.mark.fault(5)
def test_a_server_without_ranges_sends_the_whole_anew(site, batch, interrupted, seen):
    interrupted(ETAG)
    rows = batch([site.script("/a", status(200, BODY, ETag=ETAG))])
    assert (ends(rows), digests(rows)) == ([("ok", 1)], {hashlib.sha256(BODY).hexdigest()})
    assert [headers["range"] for headers in site.headers("/a")] == ["bytes=70000-"]
    seen("asked from byte 70000, got all, digest right")


@pytest.mark.fault(6)
@pytest.mark.parametrize("honest", [True, False], ids=["if-range", "no-if-range"])
def test_a_file_that_has_changed_is_started_over(site, batch, interrupted, seen, honest):
    interrupted(ETAG)
    site.files["/a"] = BODY[::-1]
    other = status(206, BODY[::-1][70_000:], ETag='"v2"', Content_Range=f"bytes 70000-{len(BODY) - 1}/{len(BODY)}")
    rows = batch([site.script("/a", *([] if honest else [other]), serve_file)])
    assert (ends(rows), digests(rows)) == ([("ok", 1)], {hashlib.sha256(BODY[::-1]).hexdigest()})
    assert site.headers("/a")[0]["if-range"] == ETAG
    seen("changed: started over, digest of the new one")


@pytest.mark.fault(6)
def test_a_weak_entity_tag_continues_nothing(site, batch, interrupted, seen):
    interrupted(f"W/{ETAG}")
    rows = batch([site.script("/a", status(200, BODY, ETag=f"W/{ETAG}"))])
    assert (ends(rows), digests(rows)) == ([("ok", 1)], {hashlib.sha256(BODY).hexdigest()})
    assert "range" not in site.headers("/a")[0]
    seen("weak: asked for the whole")


@pytest.mark.fault(7)
@pytest.mark.parametrize("code", [429, 503])
def test_a_wait_that_a_server_asks_for_has_a_cap(site, batch, seen, code):
    asked = ["86400", formatdate(4e9, usegmt=True), "9" * 400, "junk", "-1", ""]
    urls = [site.script(f"/{number}", status(code, Retry_After=value)) for number, value in enumerate(asked)]
    rows = batch(urls, "--retry-after-max", 0.2, "--retry-wait-max", 0.01)
    assert ends(rows) == [(f"http-{code}", 3)] * len(asked)
    assert all(row["seconds"]["download"] >= 0.4 for row in rows[:3])
    seen(f"http-{code} after 3 attempts, waits of 86400 s and a date cut to the cap")


@pytest.mark.fault(7)
def test_a_wait_in_seconds_is_obeyed(site, batch, seen):
    rows = batch([site.script("/a", status(503, Retry_After="1"), status(200, b"a"))])
    assert ends(rows) == [("ok", 2)]
    assert rows[0]["seconds"]["download"] >= 1
    seen("waited the second that was asked for")


@pytest.mark.fault(8)
def test_what_is_not_there_is_not_asked_for_again(site, batch, seen):
    rows = batch([site.script("/loop", status(302, Location="/loop")), site.script("/404", status(404)), site.script("/410", status(410))])
    assert ends(rows) == [("redirect", 1), ("http-404", 1), ("http-410", 1)]
    assert site.counts() == {"/loop": 11, "/404": 1, "/410": 1}
    seen("one attempt each; 10 redirects followed")


@pytest.mark.fault(9)
def test_a_redirect_leads_to_no_other_scheme(site, batch, seen, tmp_path):
    (tmp_path / "private").write_text("private")
    places = [(tmp_path / "private").as_uri(), "ftp://127.0.0.1/a", "//"]
    rows = batch([site.script(f"/{number}", status(302, Location=place)) for number, place in enumerate(places)])
    assert ends(rows) == [("redirect", 1)] * len(places)
    seen("redirect at once")


@pytest.mark.fault(9)
@pytest.mark.parametrize(
    ("user", "headers"), [("me:pw@", {"X-Api-Key": "k"}), ("", {"Authorization": "Bearer t", "Cookie": "a=b"})], ids=["url", "headers"]
)
def test_credentials_stay_behind(site, batch, seen, user, headers):
    with http_site.serving() as other:
        site.script("/a", status(302, Location=other.add("/a", "a")))
        assert ends(batch([site.url.replace("//", f"//{user}") + "/a"], headers=headers)) == [("ok", 1)]
        (sent,), (passed_on,) = site.headers("/a"), other.headers("/a")
    assert sent.keys() >= {"authorization", *map(str.lower, headers)}
    assert passed_on.keys() <= {"host", "connection", "user-agent", "accept", "accept-encoding"}
    seen("another port got no credentials")


@pytest.mark.fault(10)
def test_a_server_that_is_slow_without_end_costs_no_more_than_the_limits(site, batch, seen):
    drip = trickle(OK + b"Content-Length: 9999\r\n\r\n", 0.5)
    urls = [site.script("/drip", drip), site.script("/headers", trickle(b"HTTP/1.1 200 OK\r\nX: ", 0.5)), site.script("/silent", silent())]
    stalled = batch(urls, "--stall-timeout", 0.7, "--read-timeout", 0.7, "--attempts", 2)
    assert ends(stalled) == [("timeout", 2)] * 3
    whole = batch(urls, "--total-timeout", 0.7, "--attempts", 1)
    assert ends(whole) == [("timeout", 1)] * 3
    seen("timeout after 2 attempts, by stall, silence and the whole")


@pytest.mark.fault(11)
def test_a_connection_that_hangs_is_tried_again(batch, seen):
    with full_backlog() as url:
        assert ends(batch([url + "a"], "--connect-timeout", 0.3, "--attempts", 2)) == [("timeout", 2)]
    seen("timeout after 2 attempts")


@pytest.mark.fault(11)
def test_a_name_that_does_not_resolve_is_tried_again(manifest, results, tmp_path, seen):
    program = shutil.which("unshare") or pytest.fail("unshare is needed: apt-get install util-linux")
    (tmp_path / "well.txt").write_text("well")
    files = manifest([{"url": "http://example.invalid/a"}, {"url": (tmp_path / "well.txt").as_uri()}])
    command = [program, "-Urn", BIN / "dpp", "run", files, *map(str, QUICK)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert ends([results()[name] for name in ("a", "well")]) == [("dns", 3), ("ok", 1)]
    seen("dns after 3 attempts")


@pytest.mark.fault(12)
def test_a_certificate_that_is_no_good_is_final(batch, seen, monkeypatch, tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    certificates = [
        authority.issue_cert("127.0.0.1"),
        authority.issue_cert("127.0.0.1", not_after=dt.datetime(2001, 1, 1, tzinfo=dt.UTC)),
        authority.issue_cert("other.example"),
        trustme.CA().issue_cert("127.0.0.1"),
    ]
    with contextlib.ExitStack() as servers:
        sites = [servers.enter_context(http_site.serving(secured_with(certificate))) for certificate in certificates]
        rows = batch([secure.add("/a", "a") for secure in sites])
    assert ends(rows) == [("ok", 1)] + [("tls", 1)] * 3
    assert [len(secure.requests) for secure in sites] == [1, 0, 0, 0]
    seen("tls at once, no request was sent")


def secured_with(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.mark.fault(13)
def test_an_empty_body_is_no_file(site, batch, seen):
    empty = {"/length": status(200), "/chunks": raw(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "/end": raw(OK + b"\r\n")}
    urls = [site.script(path, reply) for path, reply in empty.items()]
    assert ends(batch(urls)) == [("empty", 1)] * 3
    assert ends(batch(urls, size=0)) == [("ok", 1)] * 3
    seen("empty at once; ok with size 0")
