"""Tests for dpp-curl only, and the contract of fetchers; tests/download/test_http_fetchers.py tests it together with dpp's own fetcher."""

from __future__ import annotations

import threading

import dpp.testing
import pytest
from dpp import FetchError, FileData, Settings
from dpp.download.downloader import Downloader
from dpp.plugins.registry import load_plugins
from dpp.workspace.layout import Workspace

from dpp_curl import CurlFetcher


class TestContract(dpp.testing.FetcherSuite):
    plugin = CurlFetcher
    schemes = ("http", "https")

    @pytest.fixture
    def serve(self, site):
        return lambda name, body: site.add(f"/{name}", body)

    @pytest.fixture
    def missing(self, site):
        return f"{site.url}/missing"


@pytest.fixture
def fetch(tmp_path):
    """Download a URL with libcurl."""
    fetcher = CurlFetcher(Settings(attempts=1))
    downloader = Downloader(fetcher.settings, Workspace(tmp_path), {"http": fetcher, "https": fetcher})
    yield lambda url, **fields: downloader.get(FileData(url=url, **fields), lambda: None)
    fetcher.close()


def test_it_takes_the_place_of_the_built_in_fetcher_and_gives_it_back(monkeypatch):
    assert load_plugins().fetchers()["https"] is CurlFetcher
    monkeypatch.setenv("DPP_DISABLE_PLUGINS", "curl")
    assert load_plugins().fetchers()["https"] is not CurlFetcher


@pytest.mark.fault(11)
def test_a_name_that_does_not_resolve_is_a_dns_error(fetch):
    # A label has at most 63 characters (RFC 1035, section 2.3.4), so the resolver fails without a query
    with pytest.raises(FetchError) as caught:
        fetch(f"http://{'x' * 64}.invalid/a")
    assert (caught.value.error_class, caught.value.retryable) == ("dns", True)


def test_each_thread_has_a_connection_of_its_own_and_keeps_it(site, fetch):
    ports = []
    for number in range(20):
        site.script(f"/{number}", lambda handler: (ports.append(handler.client_address[1]), handler.send(200, b"x")))
    urls = [f"{site.url}/{number}" for number in range(20)]
    threads = [threading.Thread(target=lambda part: [fetch(url) for url in part], args=(urls[start::2],)) for start in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ports) == 20
    assert len(set(ports)) == 2


def test_an_error_page_is_read_so_that_its_connection_is_used_again(site, fetch):
    ports = []
    # In one write: the fetcher does not wait for the rest of an error page
    page = b"HTTP/1.1 404 Not Found\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000
    site.script("/bad", lambda handler: (ports.append(handler.client_address[1]), handler.wfile.write(page)))
    for _ in range(2):
        with pytest.raises(FetchError, match="404"):
            fetch(site.url + "/bad")
    assert len(set(ports)) == 1


def test_a_path_that_is_not_ascii_is_percent_encoded(site, fetch):
    site.add("/caf%C3%A9", "x")
    assert fetch(site.url + "/café").size == 1
