"""Listings of folders on a real server."""

from __future__ import annotations

import base64
import os
import time

import pytest
from dpp import ConfigurationError, InputError, Settings

from dpp_sftp import SftpOptions, dpp_sources


def ids(entries):
    return [entry["id"] for entry in entries]


def test_an_entry_says_what_the_server_says(listed, outbox, server):
    path = outbox("in.csv", b"12345", 1_700_000_000)
    assert listed() == [{"url": server.url(path), "id": "in.csv", "name": "in.csv", "size": 5, "mtime": "2023-11-14T22:13:20Z"}]


def test_files_come_sorted_and_folders_and_pipes_not_at_all(listed, outbox):
    for name in ("b", "a", "folder/c"):
        outbox(name)
    os.mkfifo(outbox.folder / "pipe")
    assert ids(listed()) == ["a", "b"]


def test_folders_below_are_listed_if_asked_for(listed, outbox):
    for name in ("b.csv", "x/a.csv", "x/y/c.csv", "x/y/c.txt"):
        outbox(name)
    entries = listed("?recursive=true&pattern=*.csv")
    assert ids(entries) == ["b.csv", "x/a.csv", "x/y/c.csv"]
    assert [entry["name"] for entry in entries] == ["b.csv", "a.csv", "c.csv"]


def test_several_patterns_are_alternatives(listed, outbox):
    for name in ("a.gpg", "b.pgp", "c.txt"):
        outbox(name)
    assert ids(listed("?pattern=*.gpg&pattern=*.pgp")) == ["a.gpg", "b.pgp"]


def test_links_to_files_are_followed_and_no_others(listed, outbox):
    outbox("x/real", b"123")
    (outbox.folder / "link").symlink_to("x/real")
    (outbox.folder / "dangling").symlink_to("nowhere")
    (outbox.folder / "self").symlink_to("self")
    (outbox.folder / "x" / "loop").symlink_to("..")
    entries = listed("?recursive=true")
    assert [(entry["id"], entry["size"]) for entry in entries] == [("link", 3), ("x/real", 3)]


def test_young_files_are_left_alone(listed, outbox):
    outbox("old", mtime=int(time.time()) - 700)
    outbox("young", mtime=int(time.time()) - 500)
    outbox("future", mtime=int(time.time()) + 5000)
    assert ids(listed("?min_age=10m")) == ["old"]
    assert ids(listed()) == ["future", "old", "young"]


def test_offset_and_limit_cut_a_sorted_list(listed, outbox):
    for name in "edcba":
        outbox(name)
    assert ids(listed("?offset=1&limit=2")) == ["b", "c"]
    assert ids(listed("?offset=4&limit=2")) == ["e"]
    assert ids(listed("?limit=0")) == []


@pytest.mark.parametrize("name", ["a b.csv", "a#b.csv", "a?b.csv", "a%20b.csv", "ümläut.csv", "a&b=c;d+e@f:g.csv", "a'b\"c\\d.csv", "-rf"])
def test_a_name_goes_there_and_back(listed, outbox, fetch, name):
    outbox(name, name.encode())
    (entry,) = listed()
    assert (entry["id"], entry["name"]) == (name, name)
    assert fetch(entry["url"], id=entry["id"]) == name.encode()


def test_names_that_are_no_utf8_are_kept_apart(listed, outbox, fetch):
    outbox(b"caf\xe9", b"latin")
    outbox(b"caf\\xe9", b"literal")
    entries = listed()
    assert ids(entries) == ["caf\\xe9", "caf\\xe9'"]
    assert [fetch(entry["url"], id=entry["id"]) for entry in entries] == [b"literal", b"latin"]


def test_signatures_go_with_their_files(listed, outbox):
    for name, data in {"a.gpg": b"", "a.gpg.sig": b"\0sig", "b.gpg": b"", "b.gpg.asc": b"asc", "lonely.sig": b"", "c.gpg": b""}.items():
        outbox(name, data)
    entries = {entry["id"]: entry.get("signature") for entry in listed("?signatures=true")}
    sig, asc = (base64.b64encode(data).decode() for data in (b"\0sig", b"asc"))
    assert entries == {"a.gpg": sig, "b.gpg": asc, "c.gpg": None, "lonely.sig": None}
    assert ids(listed("?signatures=true&pattern=*.gpg&limit=1")) == ["a.gpg"]


def test_a_signature_that_is_too_large_is_left_out(listed, outbox, caplog):
    outbox("a")
    outbox("a.sig", bytes(64 * 1024 + 1))
    outbox("b")
    outbox("b.sig", bytes(64 * 1024))
    assert [len(entry.get("signature", "")) for entry in listed("?signatures=true")] == [0, 87384]
    assert "a: its signature has 65537 bytes" in caplog.text


def test_a_file_whose_signature_is_young_is_left_alone(listed, outbox):
    outbox("a")
    outbox("a.sig", mtime=int(time.time()))
    assert ids(listed("?signatures=true&min_age=1d")) == []


def test_a_url_of_a_file_lists_that_file(listed, outbox, server):
    path = outbox("only.csv", b"123")
    (entry,) = listed(url=server.url(path))
    assert (entry["url"], entry["id"], entry["name"], entry["size"]) == (server.url(path), str(path), "only.csv", 3)


def test_a_folder_of_a_thousand_files_is_whole(listed, outbox):
    for number in range(1000):
        outbox(f"{number:04d}", b"")
    assert ids(listed()) == [f"{number:04d}" for number in range(1000)]


def test_a_folder_that_is_not_there_is_an_error(listed, server):
    with pytest.raises(InputError, match=r"cannot list files of 127.0.0.1:\d+ \(not-found\): there is no folder /nowhere"):
        listed(url=server.url("/nowhere"))


@pytest.mark.parametrize("url", ["sftp:///in/", "sftp://host/#", "sftp://host/?pattern=", "sftp://host/?x=1", "sftp://me:s3cret@host:x/"])
def test_a_url_that_makes_no_sense_is_an_error_without_secrets(url):
    with pytest.raises(ConfigurationError) as caught:
        dpp_sources(files=url, settings=Settings())
    assert "s3cret" not in str(caught.value)


def test_other_sources_are_left_to_others():
    assert dpp_sources(files="s3://bucket/", settings=Settings()) is None
    assert dpp_sources(files="files.json", settings=Settings()) is None


def test_options_are_checked():
    with pytest.raises(ConfigurationError, match=r"(?s)options of sftp:.*sessions.*strict"):
        dpp_sources(files="sftp://h/", settings=Settings(options={"sftp": {"sessions": 0, "strict": False}}))


def test_known_hosts_may_be_one_or_several():
    assert [str(path) for path in SftpOptions.model_validate({"known_hosts": "a, b"}).known_hosts] == ["a", "b"]
    assert SftpOptions.model_validate({"known_hosts": ["a"], "sessions": "2"}).sessions == 2
