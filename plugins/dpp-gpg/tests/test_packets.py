"""Detection of encrypted messages, and of truncated ones."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpp_gpg.packets import is_cut, is_message
from plugin_targets import openpgp_packets

SESSION_KEY = b"\xc1\x02\x03\x00"
DATA = b"\xd2\x03\x01ab"


@pytest.fixture
def write(tmp_path):
    def write(data):
        path = tmp_path / "file"
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize(
    "data",
    [
        SESSION_KEY,
        b"\x84\x02\x03\x00",
        b"\x85\x01\x0c\x03",
        b"\xc3\x04\x04\x09\x03\x08",
        b"\xd2\x01\x01",
        b"\xd2\xff\x00\x00\x00\x05\x02",
        b"\xd4\xe0\x01",
        b"\xca\x03PGP" + SESSION_KEY,
        b"\n-----BEGIN PGP MESSAGE-----\r\nVersion: x\r\n\r\nhF4DBriauDLto2YS\r\n",
        b"-----BEGIN PGP MESSAGE-----\n\nhF4DBriauDLto2YS",
    ],
)
def test_messages_are_recognised(write, data):
    assert is_message(write(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b"\x84",
        "é à".encode(),
        "À propos".encode(),
        "été".encode("latin-1"),
        b"\xc5\xbf",
        b"\xef\xbb\xbfid,value\n",
        b"\xff\xfea\0",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0\x00\x10JFIF",
        b"\xfd7zXZ\x00",
        b"\x1f\x8b\x08",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        b"\xca\xfe\xba\xbe\x00\x00",
        b"\xcf\xfa\xed\xfe\x0c",
        b"-----BEGIN PGP MESSAGE-----\n\n!",
        b"-----BEGIN PGP MESSAGE-----\n\nAAAA/===",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nhF4DBriauDLto2YS",
        b"see below\n-----BEGIN PGP MESSAGE-----\n\nhF4DBriauDLto2YS",
    ],
)
def test_other_files_are_not(write, data):
    assert not is_message(write(data))


def test_a_folder_or_nothing_is_no_message(tmp_path):
    assert not is_message(tmp_path)
    assert not is_message(tmp_path / "none")


LENGTHS = {
    "one octet": b"\xd2\x05" + bytes(5),
    "two octets": b"\xd2\xc0\x08" + bytes(200),
    "four octets": b"\xd2\xff\x00\x00\x00\x06" + bytes(6),
    "parts": b"\xd2\xe9" + bytes(512) + b"\xe1\x00\x00\x03abc",
    "old": b"\xa4\x04" + bytes(4),
    "old, two octets": b"\xa5\x01\x00" + bytes(256),
}


@pytest.mark.parametrize("data", LENGTHS.values(), ids=LENGTHS)
def test_a_message_is_whole_at_its_last_byte_only(write, data):
    path = write(SESSION_KEY + data + b"garbage")
    assert not is_cut(path)
    whole = []
    for length in range(len(SESSION_KEY + data), -1, -1):
        os.truncate(path, length)
        whole += [] if is_cut(path) else [length]
    assert whole == [len(SESSION_KEY + data)]


def test_a_length_that_is_not_told_reaches_to_the_end(write):
    assert not is_cut(write(SESSION_KEY + b"\xa7abc"))


def test_armor_has_an_end(write):
    armor = b"-----BEGIN PGP MESSAGE-----\n\nhF4DBriauDLto2YS\n"
    assert is_cut(write(armor))
    assert not is_cut(write(armor + b"-----END PGP MESSAGE-----\n"))


def test_very_many_parts_end_the_search(write, monkeypatch):
    monkeypatch.setattr("dpp_gpg.packets._MOST_LENGTHS", 10)
    assert not is_cut(write(b"\xd2" + 100 * b"\xe0x"))


PACKETS = st.lists(
    st.sampled_from([SESSION_KEY, DATA, *LENGTHS.values(), b"\xca\x03PGP", b"\xd2\xe0x", b"\xd2\xff"]) | st.binary(max_size=8)
)


@given(PACKETS.map(b"".join) | st.binary(max_size=60).map(b"-----BEGIN PGP MESSAGE-----\n\n".__add__))
def test_any_bytes_are_a_message_or_none_and_whole_or_cut(data):
    openpgp_packets(data)
