"""Downloads from a real server, directly and through a proxy that closes connections."""

from __future__ import annotations

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from dpp import FetchError, FileData, Settings, StageError

from dpp_sftp import SftpFetcher
from listening import reserved_port, wait_until

MIB = 1024 * 1024
KIB = 1024


class Memory:
    """A part in memory that is kept between attempts."""

    def __init__(self, on_write=None):
        self.data, self.etag, self.on_write = b"", None, on_write

    @property
    def offset(self):
        return len(self.data) if self.etag else 0

    def begin(self, offset=0, *, total=None, etag=None, **facts):
        self.data, self.etag = self.data[:offset], etag

    def write(self, data):
        self.data += data
        if self.on_write:
            self.on_write(len(self.data))


@contextmanager
def fetcher(server, settings=None, **options):
    """Yield a function that downloads a URL with one fetcher for all calls; parts are kept per URL."""
    made = SftpFetcher(Settings(**{"connect_timeout": 60, "options": {"sftp": {**server.options, **options}}, **(settings or {})}))
    parts = {}

    def get(url, on_write=None):
        part = parts.setdefault(url, Memory(on_write))
        made.fetch(url, FileData(url=url), part)
        return part.data

    try:
        yield get
    finally:
        made.close()


def failure(get, url):
    """Return the error class of a failed download, and whether it is retryable."""
    with pytest.raises(FetchError) as caught:
        get(url)
    return caught.value.error_class, caught.value.retryable


@pytest.mark.parametrize("size", [0, 1, 32 * KIB, 32 * KIB + 1, 64 * KIB, 3 * MIB + 17])
@pytest.mark.parametrize("known", [True, False])
def test_files_of_any_size_arrive_whole(outbox, fetch, size, known):
    data = os.urandom(size)
    assert fetch(outbox("a", data), **({"size": size} if known else {})) == data


@pytest.mark.parametrize(("kind", "error_class"), [("gone", "not-found"), ("folder", "not-a-file")])
def test_what_is_no_file_is_final(outbox, fetch, kind, error_class):
    (outbox.folder / "folder").mkdir()
    with pytest.raises(FetchError) as caught:
        fetch(outbox.folder / kind)
    assert (caught.value.error_class, caught.value.retryable) == (error_class, False)


def test_a_file_that_was_replaced_since_the_listing_is_final(outbox, fetch):
    path = outbox("a", b"12345")
    with pytest.raises(StageError, match="expected 4 bytes from the manifest or the listing, but the server has 5") as caught:
        fetch(path, size=4)
    assert caught.value.error_class == "size"


def test_a_url_of_another_kind_is_refused(fetch, server):
    with pytest.raises(FetchError, match="percent-encode") as caught:
        fetch(f"{server.url('/a')}?b")
    assert caught.value.error_class == "protocol"


def test_one_connection_serves_file_after_file(outbox, server, proxy):
    with fetcher(server) as get:
        for number in range(20):
            assert get(server.url(outbox(f"f{number}", b"%d" % number), proxy.port)) == b"%d" % number
    assert len(proxy.served) == 1


def test_threads_share_no_more_connections_than_sessions(outbox, server, proxy):
    urls = [server.url(outbox(f"f{number:03d}", os.urandom(2 * KIB)), proxy.port) for number in range(200)]
    with fetcher(server, sessions=2) as get, ThreadPoolExecutor(4) as threads:
        assert len(list(threads.map(get, urls))) == 200
    assert proxy.most <= 2


def test_threads_that_wait_get_more_connections(outbox, server, proxy):
    proxy.mute_after = 6 * KIB  # all downloads stall, so that each thread needs a connection of its own
    urls = [server.url(outbox(f"f{number}", bytes(64 * KIB)), proxy.port) for number in range(4)]
    with fetcher(server, sessions=3) as get, ThreadPoolExecutor(4) as threads:
        waits = [threads.submit(get, url) for url in urls]
        wait_until(lambda: proxy.most == 3)
        proxy.mute_after = None
        proxy.drop_all()
        assert None in [wait.exception() for wait in waits]  # the fourth download, which gets a connection only now


def test_a_connection_that_died_while_idle_is_made_anew(outbox, server, proxy):
    url = server.url(outbox("a", b"1"), proxy.port), server.url(outbox("b", b"2"), proxy.port)
    with fetcher(server) as get:
        assert get(url[0]) == b"1"
        proxy.drop_all()
        assert get(url[1]) == b"2"
    assert len(proxy.served) == 2


@pytest.mark.fault(32)
def test_a_connection_cut_in_mid_file_continues_the_part(outbox, server, proxy):
    data = os.urandom(8 * MIB)
    url = server.url(outbox("a", data), proxy.port)
    proxy.cuts = [6 * MIB]
    with fetcher(server) as get:
        with pytest.raises(FetchError) as caught:
            get(url)
        assert (caught.value.error_class, caught.value.retryable) == ("truncated", True)
        assert get(url) == data
    assert proxy.served[1] < 5 * MIB  # some of the 2 MiB in flight may have been lost


@pytest.mark.fault(32)
def test_a_server_that_is_gone_and_comes_back_continues_the_part_within_one_run(outbox, server, proxy, fetch):
    data = os.urandom(12 * MIB)
    proxy.cuts = [5 * MIB, 5 * MIB]
    url = server.url(outbox("a", data), proxy.port)
    assert fetch(url, settings={"attempts": 3, "retry_wait": 0.01}, size=len(data)) == data
    assert len(proxy.served) == 3
    assert proxy.served[2] < 8 * MIB


def test_a_part_of_another_file_is_not_continued(outbox, server, proxy):
    url = server.url(outbox("a", os.urandom(2 * MIB)), proxy.port)
    proxy.cuts = [MIB]
    with fetcher(server) as get:
        with pytest.raises(FetchError):
            get(url)
        data = os.urandom(2 * MIB)
        outbox("a", data, mtime=1_700_000_001)
        assert get(url) == data


def _grow(path):
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("change", [_grow, lambda path: os.truncate(path, MIB)])
def test_a_file_that_changes_meanwhile_is_tried_again(outbox, server, change):
    path = outbox("a", bytes(8 * MIB))

    def meddle(_):
        if path.stat().st_size == 8 * MIB:
            change(path)

    with fetcher(server) as get, pytest.raises(FetchError) as caught:
        get(server.url(path), on_write=meddle)
    assert (caught.value.error_class, caught.value.retryable) == ("changed", True)


@pytest.mark.fault(32)
def test_silence_is_a_timeout(outbox, server, proxy):
    url = server.url(outbox("a", bytes(MIB)), proxy.port)
    proxy.mute_after = 100 * KIB
    began = time.monotonic()
    with fetcher(server, {"read_timeout": 0.5}) as get, pytest.raises(FetchError, match=r"no data from the server for 0\.5 s") as caught:
        get(url)
    assert (caught.value.error_class, caught.value.retryable) == ("timeout", True)
    assert time.monotonic() - began < 30  # half of the default limit


def test_a_server_that_does_not_say_hello_is_a_timeout(server):
    with socket.create_server(("127.0.0.1", 0)) as mute, fetcher(server, {"connect_timeout": 0.3}) as get:
        url = server.url("/a", mute.getsockname()[1])
        assert failure(get, url) == ("timeout", True)


def test_nobody_there_is_a_connection_error(server):
    with reserved_port() as port, fetcher(server) as get, pytest.raises(FetchError, match="refused") as caught:
        get(server.url("/a", port))
    assert (caught.value.error_class, caught.value.retryable) == ("connection", True)


def test_a_fetcher_can_be_used_after_a_fork(outbox, server):
    url, before = server.url(outbox("a", b"1")), threading.active_count()
    with fetcher(server) as get:
        assert get(url) == b"1"
        child = os.fork()
        if not child:
            with suppress(BaseException):  # otherwise the child would continue as a second pytest
                os._exit(0 if get(url) == b"1" else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert get(url) == b"1"
    assert threading.active_count() <= before
