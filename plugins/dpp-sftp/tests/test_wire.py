"""Messages as bytes, above all those that no honest server sends."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpp_sftp import wire
from dpp_sftp.wire import Attributes, Cursor, WireError


def test_attributes_are_read_in_order():
    flags = 0x1 | 0x2 | 0x4 | 0x8 | 0x80000000
    data = struct.pack(">IQIIIIII", flags, 2**40, 1, 2, 0o100600, 3, 4, 1) + wire.string(b"name") + wire.string(b"value") + b"rest"
    cursor = Cursor(data)
    assert cursor.attributes() == Attributes(2**40, 0o100600, 4)
    assert cursor.take(4) == b"rest"
    assert cursor.is_at_end()


def test_attributes_may_say_nothing():
    assert Cursor(bytes(4)).attributes() == Attributes()


@pytest.mark.parametrize("data", [b"", b"\0\0\0", b"\xff\xff\xff\xffab", struct.pack(">II", 0x80000000, 2**32 - 1)])
def test_lengths_do_not_reach_beyond_a_message(data):
    with pytest.raises(WireError):
        Cursor(data).string() if data[:1] != b"\x80" else Cursor(data).attributes()


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    for read in (lambda: list(wire.names(data)), lambda: wire.status(data), lambda: Cursor(data).attributes()):
        with suppress(WireError):
            read()


def test_the_text_of_a_status_cannot_steer_a_terminal():
    error = wire.status(struct.pack(">I", 4) + wire.string(b"\x1b[31mred\n" + b"x" * 500))
    assert str(error).startswith("status 4: ?[31mred?x")
    assert len(str(error)) < 250


def test_a_status_without_a_text_is_one():
    assert wire.status(struct.pack(">I", 4)).code == 4
