"""Servers with invalid responses."""

from __future__ import annotations

import struct

import pytest
from dpp import FetchError, FileData, InputError, Settings

from dpp_sftp import SftpFetcher, dpp_sources
from odd_server import Code, Kind, attributes, message, odd_server, status, string

KIB = 1024
HONEST = {
    Kind.OPEN: lambda number, _: message(Kind.HANDLE, number, string(b"h")),
    Kind.OPENDIR: lambda number, _: message(Kind.HANDLE, number, string(b"h")),
    Kind.CLOSE: lambda number, _: message(Kind.STATUS, number, status(Code.OK)),
    Kind.STAT: lambda number, _: message(Kind.ATTRS, number, attributes(0, 0o040755)),
    Kind.FSTAT: lambda number, _: message(Kind.ATTRS, number, attributes(100)),
}


class Nothing:
    """A part in memory without an entity tag."""

    def __init__(self):
        self.offset, self.etag, self.data = 0, None, b""

    def begin(self, offset=0, **facts):
        pass

    def write(self, data):
        self.data += data


@pytest.fixture
def lying(server, request):
    """Run a server with changeable responses; yield them, by type of request, and its port."""
    lies = {}

    def reply(kind, number, body):
        if kind == Kind.INIT:
            return lies.get(kind, lambda *_: struct.pack(">IBI", 5, Kind.VERSION, 3))(number, body)
        return {**HONEST, **lies}[kind](number, body)

    with odd_server(server.folder, reply=reply, piece=getattr(request, "param", 2**30)) as port:
        server.trust_port(port)
        yield lies, port


@pytest.fixture
def fetched(lying, server):
    """Return a function that downloads a file of a server with given responses."""
    fetchers = []

    def fetch(lies, read_timeout=60, **fields):
        lying[0].update(lies)
        fetchers.append(SftpFetcher(Settings(connect_timeout=60, read_timeout=read_timeout, options={"sftp": server.options})))
        url, part = server.url("/a", lying[1]), Nothing()
        fetchers[-1].fetch(url, FileData(url=url, **fields), part)
        return part.data

    yield fetch
    for fetcher in fetchers:
        fetcher.close()


@pytest.fixture
def listed(lying, server):
    """Return a function that lists a folder of a server with given responses."""

    def entries(lies, query="", read_timeout=60):
        lying[0].update(lies)
        settings = Settings(attempts=1, connect_timeout=60, read_timeout=read_timeout, options={"sftp": server.options})
        return list(dpp_sources(files=server.url("/in/", lying[1]) + query, settings=settings))

    return entries


def _version(extensions):
    return struct.pack(">IBI", 5 + len(extensions), Kind.VERSION, 3) + extensions


def data(content):
    return lambda number, _: message(Kind.DATA, number, string(content))


def failed(code):
    return lambda number, _: message(Kind.STATUS, number, status(code))


@pytest.mark.parametrize(
    ("lies", "error_class"),
    [
        ({Kind.INIT: lambda *_: struct.pack(">IBI", 5, Kind.VERSION, 6)}, "protocol"),
        ({Kind.INIT: lambda *_: b"Welcome to my shell\n"}, "protocol"),
        ({Kind.INIT: lambda *_: None}, "connection"),
        ({Kind.OPEN: lambda number, _: message(Kind.HANDLE, number + 9, string(b"h"))}, "protocol"),
        ({Kind.OPEN: lambda number, _: message(Kind.HANDLE, number, b"\xff\xff\xff\xff")}, "protocol"),
        ({Kind.OPEN: lambda number, _: message(Kind.ATTRS, number, b"")}, "protocol"),
        ({Kind.OPEN: failed(Code.OK)}, "protocol"),
        ({Kind.OPEN: failed(Code.FAILURE)}, "read"),
        ({Kind.OPEN: failed(Code.PERMISSION_DENIED)}, "permission"),
        ({Kind.OPEN: failed(Code.CONNECTION_LOST)}, "connection"),
        ({Kind.OPEN: failed(4711)}, "read"),
        ({Kind.OPEN: lambda number, _: message(Kind.STATUS, number, b"")}, "protocol"),
        ({Kind.OPEN: lambda number, _: message(Kind.STATUS, number, struct.pack(">I", Code.FAILURE))}, "read"),
        ({Kind.OPEN: lambda *_: b"\xff\xff\xff\xff"}, "protocol"),
        ({Kind.OPEN: lambda *_: b"\0\0\0\0"}, "protocol"),
        ({Kind.OPEN: lambda *_: b"\0\0\0\1\x66"}, "protocol"),
        ({Kind.OPEN: lambda number, _: b"\0\0\0\2\x66" + number.to_bytes(1)}, "protocol"),
        ({Kind.FSTAT: lambda number, _: message(Kind.ATTRS, number, bytes(4))}, "protocol"),
        ({Kind.READ: data(b"")}, "protocol"),
        ({Kind.READ: data(bytes(101))}, "protocol"),
        ({Kind.READ: failed(Code.END)}, "truncated"),
        ({Kind.READ: failed(Code.FAILURE)}, "read"),
        ({Kind.READ: lambda *_: None}, "truncated"),
    ],
)
@pytest.mark.parametrize("fields", [{}, {"size": 100}])
def test_a_lie_is_a_failure_of_the_file(fetched, lies, error_class, fields):
    with pytest.raises(FetchError) as caught:
        fetched(lies, **fields)
    assert caught.value.error_class == error_class
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("fields", [{}, {"size": 100}])
def test_a_server_that_does_not_answer_is_a_timeout(fetched, fields):
    with pytest.raises(FetchError, match="read_timeout") as caught:
        fetched({Kind.OPEN: lambda *_: b""}, read_timeout=1, **fields)
    assert caught.value.error_class == "timeout"


def test_a_listing_that_stops_and_a_folder_that_is_not_closed_are_a_timeout(listed):
    def mute(*_):
        return b""

    with pytest.raises(InputError, match="read_timeout"):
        listed({Kind.READDIR: mute, Kind.CLOSE: mute}, read_timeout=1)
    row = string(b"a/b") + string(b"") + attributes(1)
    with pytest.raises(InputError, match="read_timeout"):
        listed({Kind.READDIR: lambda number, _: message(Kind.NAME, number, struct.pack(">I", 1) + row), Kind.CLOSE: mute}, read_timeout=1)


def test_a_file_that_was_short_and_is_longer_by_now_has_changed(fetched):
    # A program that overwrites a file truncates it first: a read may find its end, and a later request its full size
    sizes = iter([100, 104, 104])
    with pytest.raises(FetchError, match="it had 100 bytes, now 104") as caught:
        fetched({Kind.READ: failed(Code.END), Kind.FSTAT: lambda number, _: message(Kind.ATTRS, number, attributes(next(sizes)))})
    assert (caught.value.error_class, caught.value.retryable) == ("changed", True)


def test_no_message_is_larger_than_any_that_was_asked_for(fetched):
    with pytest.raises(FetchError, match="a message of 262145 bytes, expected 1 to 262144"):
        fetched({Kind.READ: data(bytes(256 * 1024 - 8))})


def test_the_words_of_a_server_are_cut_short(fetched):
    words = struct.pack(">I", Code.FAILURE) + string(b"x" * 5000) + string(b"")
    with pytest.raises(FetchError, match="status 4: x") as caught:
        fetched({Kind.OPEN: lambda number, _: message(Kind.STATUS, number, words)})
    assert len(str(caught.value)) < 300


def test_short_answers_are_asked_for_again(fetched):
    content = bytes(range(100))

    def seven(number, body):
        offset, count = struct.unpack(">QI", body[-12:])
        return message(Kind.DATA, number, string(content[offset : offset + min(count, 7)]))

    assert fetched({Kind.READ: seven}, size=100) == content


@pytest.mark.parametrize(("announced", "longest"), [(1, 32 * KIB), (100 * KIB, 100 * KIB), (2**64 - 1, 255 * KIB)])
def test_reads_are_as_long_as_a_server_allows_within_bounds(fetched, announced, longest):
    lengths = []

    def zeros(number, body):
        lengths.append(int.from_bytes(body[-4:]))
        return message(Kind.DATA, number, string(bytes(lengths[-1])))

    lies = {
        Kind.INIT: lambda *_: _version(string(b"limits@openssh.com") + string(b"1")),
        Kind.EXTENDED: lambda number, _: message(Kind.EXTENDED_REPLY, number, struct.pack(">4Q", 0, announced, 0, 0)),
        Kind.FSTAT: lambda number, _: message(Kind.ATTRS, number, attributes(600 * KIB)),
        Kind.READ: zeros,
    }
    assert fetched(lies) == bytes(600 * KIB)
    assert max(lengths) == longest


@pytest.mark.parametrize("lying", [1, 7], indirect=True)
def test_answers_may_come_in_crumbs(fetched):
    assert fetched({Kind.READ: data(bytes(100))}, size=100) == bytes(100)


@pytest.mark.parametrize("name", [b"../up", b"a/b", b"", b"nul\0", b"x" * 5000])
def test_what_is_no_name_is_not_listed(listed, name):
    row = string(name) + string(b"") + attributes(1)
    with pytest.raises(InputError, match=r"\(protocol\).*invalid file name"):
        listed({Kind.READDIR: lambda number, _: message(Kind.NAME, number, struct.pack(">I", 1) + row)})


def test_folders_without_end_come_to_an_end(listed):
    row = string(b"folder" * 40) + string(b"") + attributes(0, 0o040755)
    rows = []

    def opened(number, _):
        rows[:] = [row]
        return message(Kind.HANDLE, number, string(b"h"))

    def listing(number, _):
        return message(Kind.NAME, number, struct.pack(">I", 1) + rows.pop()) if rows else failed(Code.END)(number, _)

    with pytest.raises(InputError, match="invalid file name"):
        listed({Kind.OPENDIR: opened, Kind.READDIR: listing}, "?recursive=true")


def test_a_folder_without_end_is_given_up(listed, monkeypatch):
    monkeypatch.setattr("dpp_sftp.listing.MOST_NAMES", 1000)
    row = string(b"a") + string(b"") + attributes(1)
    with pytest.raises(InputError, match="more than 1000 names"):
        listed({Kind.READDIR: lambda number, _: message(Kind.NAME, number, struct.pack(">I", 50) + row * 50)})
    with pytest.raises(InputError, match="instead of the end-of-file status"):
        listed({Kind.READDIR: lambda number, _: message(Kind.NAME, number, bytes(4))})


def test_names_without_end_are_given_up(listed, monkeypatch):
    monkeypatch.setattr("dpp_sftp.listing.MOST_BYTES", 100_000)
    row = string(b"a" * 4000) + string(b"") + attributes(1)
    with pytest.raises(InputError, match="100000 bytes of paths"):
        listed({Kind.READDIR: lambda number, _: message(Kind.NAME, number, struct.pack(">I", 5) + row * 5)})


def test_a_listing_that_ends_in_the_middle_is_none(listed):
    with pytest.raises(InputError, match="Incomplete packet"):
        listed({Kind.READDIR: lambda number, _: message(Kind.NAME, number, struct.pack(">I", 1_000_000))})
    with pytest.raises(InputError, match=r"\(connection\)"):
        listed({Kind.READDIR: lambda *_: None})


def test_a_folder_that_cannot_be_listed_does_not_steer_a_terminal(listed):
    row = string(b"\x1b[31mred") + string(b"") + attributes(0, 0o040755)
    opened = []

    def open_first(number, body):
        opened.append(body)
        return (HONEST[Kind.OPENDIR] if len(opened) == 1 else failed(Code.PERMISSION_DENIED))(number, body)

    rows = [struct.pack(">I", 1) + row]
    listing = {
        Kind.OPENDIR: open_first,
        Kind.READDIR: lambda number, _: message(Kind.NAME, number, rows.pop()) if rows else failed(Code.END)(number, _),
    }
    with pytest.raises(InputError, match=r"cannot list /in/\?\[31mred: .*permission"):
        listed(listing, "?recursive=true")


def test_kinds_that_are_not_said_are_asked_for(listed):
    row = string(b"a") + string(b"") + bytes(4)
    rows = [lambda number: message(Kind.NAME, number, struct.pack(">I", 1) + row)]
    lies = {
        Kind.READDIR: lambda number, _: rows.pop()(number) if rows else message(Kind.STATUS, number, status(Code.END)),
        Kind.STAT: lambda number, body: message(Kind.ATTRS, number, attributes(7, 0o100644 if body.endswith(b"a") else 0o040755)),
    }
    assert [(entry["id"], entry["size"]) for entry in listed(lies)] == [("a", 7)]
