"""All faults of HTTP in one batch, as users run it; a rerun after they are repaired succeeds."""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import ssl

import pytest
import trustme

import http_site
from http_site import cut, full_backlog, raw, serve_file, silent, status, trickle

OK = b"HTTP/1.1 200 OK\r\n"
BODY = bytes(range(256)) * 400
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
# Long enough for the good files in flight at the same time, also on a busy machine.
LIMIT = 15
QUICK = ("--attempts", 2, "--retry-wait", 0.01, "--retry-after-max", 0.1)
ARGUMENTS = (*QUICK, "--connect-timeout", LIMIT, "--read-timeout", LIMIT, "--stall-timeout", LIMIT)

# By name: error class or ok, number of attempts, and the server's replies.
FAULTS = {
    "broken": ("ok", 2, [cut(BODY, 70_000, f'"{hashlib.md5(BODY).hexdigest()}"'), serve_file]),
    "short": ("truncated", 2, [cut(BODY, 70_000)]),
    "reset": ("truncated", 2, [raw(OK + b"Content-Length: 9\r\n\r\nabc", reset=True)]),
    "no-headers": ("connection", 2, [raw(OK + b"ETag: ")]),
    "unended": ("truncated", 2, [raw(CHUNKED)]),
    "junk-length": ("protocol", 1, [raw(OK + b"Content-Length: three\r\n\r\nabc")]),
    "two-lengths": ("protocol", 1, [raw(OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd")]),
    "half-gzip": ("truncated", 2, [status(200, gzip.compress(BODY)[:-1], Content_Encoding="gzip")]),
    "unsolicited": ("protocol", 1, [status(206, b"abc", Content_Range="bytes 0-2/9")]),
    "busy": ("http-429", 2, [status(429, Retry_After="86400")]),
    "down": ("http-503", 2, [status(503, Retry_After="junk")]),
    "loop": ("redirect", 1, [status(302, Location="loop")]),
    "missing": ("http-404", 1, [status(404)]),
    "gone": ("http-410", 1, [status(410)]),
    "to-file": ("redirect", 1, [status(302, Location="file:///etc/passwd")]),
    "to-ftp": ("redirect", 1, [status(302, Location="ftp://127.0.0.1/a")]),
    "slow": ("timeout", 2, [trickle(OK + b"Content-Length: 9999\r\n\r\n", 0.5)]),
    "silent": ("timeout", 2, [silent()]),
    "empty": ("empty", 1, [status(200)]),
}
ELSEWHERE = {"hanging": ("timeout", 2), "expired": ("tls", 1)}


@pytest.fixture
def secure(tmp_path, monkeypatch):
    """Yield a server with an expired certificate, and a function that gives it a valid one."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", not_after=dt.datetime(2001, 1, 1, tzinfo=dt.UTC)).configure_cert(context)
    with http_site.serving(context) as site:
        site.renew = lambda: authority.issue_cert("127.0.0.1").configure_cert(context)
        yield site


@pytest.mark.fault(1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13)
@pytest.mark.parametrize(
    ("fetcher", "words"),
    [
        ("requests", ("luigi", "--module", "dpp", "RunBatch", "--workers", "2", "--files")),
        pytest.param("curl", ("dpp", "run"), marks=pytest.mark.slow),
    ],
    indirect=["fetcher"],
)
def test_every_fault_at_once_costs_its_own_file_and_is_mended_by_a_rerun(
    site, secure, manifest, command, results, tmp_path, fetcher, words
):
    site.files |= {f"/{name}": BODY for name in [*FAULTS, *ELSEWHERE, *map(str, range(40))]}
    site.scripts |= {f"/{name}": list(replies) for name, (_, _, replies) in FAULTS.items()}
    urls = {path[1:]: site.url + path for path in site.files} | {"expired": secure.add("/expired", BODY)}
    with full_backlog() as hanging:
        files = manifest([{"url": url, "id": name} for name, url in {**urls, "hanging": hanging + "a"}.items()])
        first = command(*words, files, *ARGUMENTS)

    expected = {name: (end, attempts) for name, (end, attempts, _) in FAULTS.items()} | ELSEWHERE
    assert {name: (row["error_class"] or "ok", row["attempts"]) for name, row in results().items()} == {
        name: expected.get(name, ("ok", 1)) for name in urls
    }
    failed = [name for name, (end, _) in expected.items() if end != "ok"]
    assert (first.returncode, f"{len(urls) - len(failed)} of {len(urls)} ok" in first.stdout + first.stderr) == (1, True), first.stderr
    assert "Traceback" not in first.stdout + first.stderr
    assert not secure.requests

    site.scripts.clear()
    secure.renew()
    site.forget()
    again = command(*words, manifest([{"url": url, "id": name} for name, url in urls.items()]), *ARGUMENTS)
    assert again.returncode == 0, again.stderr
    assert {row["sha256"] for row in results().values()} == {hashlib.sha256(BODY).hexdigest()}
    assert site.counts() == {f"/{name}": 1 for name in failed if name != "expired"}
    verified = command("dpp", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert not list((tmp_path / "dpp-workspace").rglob("*.part*"))
