"""Tests for dpp.download.cookies: which cookies are sent back, and where to (RFC 6265)."""

from __future__ import annotations

import pytest
from dpp.download.cookies import Cookies

ORIGIN = "https://www.example.org/data/a.csv"


def sent(line, target, origin=ORIGIN, given=""):
    cookies = Cookies()
    cookies.take(origin, [line] if isinstance(line, str) else line)
    return cookies.header(target, given)


@pytest.mark.parametrize(
    "target", [ORIGIN, "https://www.example.org/data/b", "https://WWW.example.org/data/", "https://me:pw@www.example.org/data/"]
)
def test_the_host_that_set_a_cookie_gets_it(target):
    assert sent("seen=1", target) == "seen=1"


@pytest.mark.parametrize(
    "target",
    [
        "https://example.org/data/a",
        "https://www.example.com/data/a",
        "https://a.www.example.org/data/a",
        "https://www.example.org:8443/data/a",
        "http://www.example.org/data/a",
        "https://www.example.org/",
        "https://www.example.org/database",
    ],
)
def test_others_do_not(target):
    assert sent("seen=1", target) == ""


@pytest.mark.parametrize(
    ("domain", "target", "goes"),
    [
        ("example.org", "https://cdn.example.org/data/", True),
        (".example.org", "https://example.org/data/", True),
        ("EXAMPLE.org", "https://a.b.example.org/data/", True),
        ("www.example.org", "https://a.www.example.org/data/", False),
        ("example.org", "https://badexample.org/data/", False),
        ("other.org", "https://other.org/data/", False),
        ("org", "https://a.org/data/", False),
        ("a.www.example.org", "https://a.www.example.org/data/", False),
    ],
)
def test_a_domain_has_the_hosts_below_it(domain, target, goes):
    assert bool(sent(f"seen=1; Domain={domain}", target)) is goes


def test_a_registry_is_no_domain():
    assert sent("seen=1; Domain=co.uk", "https://b.co.uk/data/", "https://a.co.uk/data/a") == ""


def test_an_address_has_no_hosts_below_it():
    assert sent("seen=1; Domain=0.0.1", "http://127.0.0.1/", "http://127.0.0.1/") == ""


@pytest.mark.parametrize(
    ("path", "goes"), [("/", True), ("/data", True), ("/data/", True), ("/dat", False), ("/other", False), ("x", True)]
)
def test_a_path_has_what_is_below_it(path, goes):
    assert bool(sent(f"seen=1; path={path}", ORIGIN)) is goes


def test_a_secure_cookie_must_come_over_https():
    assert sent("seen=1; Secure", "https://www.example.org/data/") == "seen=1"
    assert sent("seen=1; Secure", "https://h/", "http://h/") == ""


def test_a_cookie_of_http_goes_to_https_of_the_same_host():
    assert sent("seen=1", "https://h/", "http://h/") == "seen=1"


@pytest.mark.parametrize(
    "end", ["Max-Age=0", "Max-Age=-1", "Expires=Thu, 01 Jan 1970 00:00:00 GMT", "Max-Age=0; Expires=Fri, 01 Jan 2100 00:00:00 GMT"]
)
def test_an_expired_cookie_is_removed(end):
    assert sent(["seen=1", f"seen=; {end}"], ORIGIN) == ""


@pytest.mark.parametrize(
    "end", ["Max-Age=60", "Expires=Fri, 01 Jan 2100 00:00:00 GMT", "Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "Expires=x"]
)
def test_one_that_has_not_expired_is_sent(end):
    assert sent(f"seen=1; {end}", ORIGIN) == "seen=1"


@pytest.mark.parametrize("line", ["", "seen", "=1", "a b=1", "seen=\x01", "seen=a\rb", "seen=" + "x" * 5000])
def test_what_is_no_cookie_is_ignored(line):
    assert sent(line, ORIGIN) == ""


def test_the_longest_path_comes_first_and_the_given_ones_before():
    lines = ["a=1; Path=/", "b=2; Path=/data", "a=3; Path=/"]
    assert sent(lines, ORIGIN, given="x=9;b=0; y") == "x=9; y; b=2; a=3"


def test_a_server_cannot_set_cookies_without_end():
    assert sent([f"c{number}=1" for number in range(100)], ORIGIN).count("=") == 50
