"""Parsing of ``sftp:`` URLs."""

from __future__ import annotations

import pytest

from dpp_sftp.address import Server, parse


@pytest.mark.parametrize(
    ("url", "server", "path"),
    [
        ("sftp://host/a/b", Server("host", 22), b"/a/b"),
        ("SFTP://me@HOST:2222/a%20%23%3F%25", Server("host", 2222, "me"), b"/a #?%"),
        ("sftp://me:p%40ss@[::1]/", Server("::1", 22, "me", "p@ss"), b"/"),
        ("sftp://host", Server("host", 22), b"/"),
        ("sftp://host/~/in/a", Server("host", 22), b"in/a"),
        ("sftp://host/~", Server("host", 22), b"."),
        ("sftp://host/%E9", Server("host", 22), b"/\xe9"),
    ],
)
def test_a_url_names_a_server_and_a_path(url, server, path):
    address = parse(url)
    assert (address.server, address.path) == (server, path)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sftp:///a", "no host"),
        ("sftp:a", "no host"),
        ("sftp://host:x/a", "is invalid"),
        ("sftp://host/a?b", "percent-encode"),
        ("sftp://host/a#b", "percent-encode"),
        ("sftp://host/a?", "percent-encode"),
        ("sftp://host/a%00b", "NUL"),
    ],
)
def test_what_names_nothing_is_refused(url, reason):
    with pytest.raises(ValueError, match=reason):
        parse(url)


@pytest.mark.parametrize("folder", ["sftp://me@h:22/in", "sftp://me@h:22/in/", "sftp://me@h:22/~/in/", "sftp://h/"])
@pytest.mark.parametrize("name", [b"a b#c?d%e.csv", "ü/ñ".encode(), b"\xff\n", b"x;y:z@"])
def test_the_url_of_a_file_names_it_again(folder, name):
    address = parse(folder)
    again = parse(address.url(name))
    assert again.path == address.path.rstrip(b"/") + b"/" + name
    assert again.server == address.server


def test_a_password_is_not_shown():
    assert "s3cret" not in repr(parse("sftp://me:s3cret@host/").server)


def test_the_command_that_shows_a_key_can_be_pasted():
    assert Server("h;reboot", 2222).show_key == "ssh-keyscan -p 2222 'h;reboot' | ssh-keygen -lf -"
