"""Tests of the check whether a server's address is public."""

from __future__ import annotations

import contextlib
import socket

import pytest
from dpp import FetchError, FileData, Settings, http
from dpp.download import peers
from dpp.download.downloader import Downloader
from dpp.download.http_fetcher import RequestsFetcher
from dpp.download.local import LocalFetcher
from dpp.download.peers import is_public
from dpp.workspace.layout import Workspace

from dpp_curl import CurlFetcher
from http_site import status

PRIVATE_V4 = [
    *("0.0.0.0", "10.1.2.3", "100.100.100.200", "127.0.0.1", "127.8.8.8", "169.254.169.254"),
    *("172.16.0.1", "192.0.0.192", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1"),
    *("203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
]
PRIVATE_V6 = [
    *("::", "::1", "::127.0.0.1", "64:ff9b:1::1", "100::1", "2001:db8::1"),
    *("2001::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1"),
    *("fe80::1%eth0", "fec0::1", "ff02::1"),
]
PUBLIC = ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "2a00:1450:4001:82f::200e"]


@pytest.mark.parametrize("address", [*PRIVATE_V4, *PRIVATE_V6])
def test_an_address_of_a_special_purpose_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_other_addresses_are_public(address):
    assert is_public(address)


@pytest.mark.parametrize("form", ["::ffff:{}", "64:ff9b::{}", "2002:{:02x}{:02x}:{:02x}{:02x}::1"], ids=["mapped", "NAT64", "6to4"])
@pytest.mark.parametrize(("address", "expected"), [("127.0.0.1", False), ("169.254.169.254", False), ("1.1.1.1", True)])
def test_an_address_that_contains_another_is_as_public_as_that(form, address, expected):
    assert is_public(form.format(address) if "{}" in form else form.format(*map(int, address.split(".")))) is expected


@pytest.fixture(params=[RequestsFetcher, CurlFetcher])
def fetch(request, tmp_path):
    """Return a function that downloads a URL with ``deny_private``, with each HTTP fetcher."""
    settings = Settings(deny_private=True, attempts=3, workspace=tmp_path / "ws")
    made = {"http": request.param(settings), "file": LocalFetcher(settings)}
    attempts = []

    def get(url):
        attempts.clear()
        Downloader(settings, Workspace(tmp_path / "ws"), made).get(FileData(url=url), lambda: attempts.append(1))

    get.attempts = attempts
    yield get
    made["http"].close()


def is_refused(fetch, url, message):
    with pytest.raises(FetchError, match=message) as caught:
        fetch(url)
    return (caught.value.error_class, len(fetch.attempts)) == ("refused", 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433"])
def test_a_private_server_gets_no_request(fetch, site, host):
    assert is_refused(
        fetch, site.add("/a", "x").replace("127.0.0.1", host), "the server's address .* is not public, and deny_private is set"
    )
    assert site.requests == []


def test_a_redirect_to_a_private_server_is_not_followed(fetch, site, monkeypatch):
    monkeypatch.setattr(peers, "is_public", lambda address: address == "127.0.0.1")
    with socket.create_server(("127.0.0.2", 0)) as private:
        url = f"http://127.0.0.2:{private.getsockname()[1]}/secret"
        assert is_refused(fetch, site.script("/a", status(302, Location=url)), "127.0.0.2 is not public")
        private.settimeout(0)
        with contextlib.suppress(BlockingIOError), private.accept()[0] as connection:
            assert connection.recv(1) == b""
    fetch(site.add("/b", "public"))


def test_a_proxy_is_refused(fetch, site, monkeypatch):
    monkeypatch.setenv("http_proxy", site.url.replace("//", "//me:hunter22@"))
    with pytest.raises(FetchError, match="its address cannot be checked") as caught:
        fetch("http://public.example/a")
    assert "hunter22" not in str(caught.value)
    assert site.requests == []


def test_a_fetcher_that_checks_no_peers_is_not_called(fetch, tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(FetchError, match="file: URLs are refused, as deny_private is set") as caught:
        fetch((tmp_path / "a").as_uri())
    assert caught.value.error_class == "refused"


def test_the_check_is_public_for_fetchers_of_plugins():
    assert http.check_peer("1.1.1.1") is None
    with pytest.raises(FetchError, match=r"10\.0\.0\.1 is not public"):
        http.check_peer("10.0.0.1")
