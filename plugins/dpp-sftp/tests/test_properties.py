"""For any bytes of a server, a download or a listing ends with a result or an error."""

from __future__ import annotations

import struct

from hypothesis import example, given
from hypothesis import strategies as st

from odd_server import Code, Kind, attributes, message, status, string
from plugin_targets import SIZE, WORK, sftp_server

VERSION = struct.pack(">IBI", 5, Kind.VERSION, 3)
MODES = st.sampled_from([0o100644, 0o040755, 0o120777, 0])
SIZES = st.sampled_from([SIZE, 0, SIZE - 40, 2**64 - 1]) | st.integers(0, 2**64 - 1)
FILES = st.builds(attributes, SIZES, MODES, st.sampled_from([1, 2**32 - 1])) | st.just(bytes(4))
NAMES = st.sampled_from([b"a", b"a.sig", b".", b"..", b"../a", b"", b"\x1b[31m"]) | st.binary(max_size=4)
ROWS = st.lists(st.builds(lambda name, facts: string(name) + string(b"") + facts, NAMES, FILES), max_size=4)
BODIES = st.one_of(
    st.tuples(st.just(Kind.HANDLE), st.just(string(b"h"))),
    st.tuples(st.just(Kind.ATTRS), FILES),
    st.tuples(st.just(Kind.DATA), st.sampled_from([bytes(SIZE), bytes(SIZE - 40), b"", b"x"]).map(string)),
    st.tuples(st.just(Kind.STATUS), st.sampled_from([*Code, 4711]).map(status)),
    st.tuples(st.just(Kind.NAME), ROWS.map(lambda rows: struct.pack(">I", len(rows)) + b"".join(rows))),
    st.tuples(st.sampled_from(Kind), st.binary(max_size=12)),
)
NUMBERS = st.sampled_from([0] * 8 + [1, 2, 99])  # 0 is the number of the oldest request
MESSAGES = st.builds(lambda number, sent: message(sent[0], number, sent[1]), NUMBERS, BODIES) | st.binary(max_size=12)


@given(st.integers(0, len(WORK) - 1), st.booleans(), st.lists(MESSAGES, max_size=12))
@example(work=0, in_crumbs=False, sent=[b"\0\0\0\2\x66\1"])
def test_any_server_is_worked_with_or_a_failure(work, in_crumbs, sent):
    sftp_server(bytes([work | 0x80 * in_crumbs]) + VERSION + b"".join(sent))


@given(st.binary(max_size=200))
def test_any_bytes_of_a_server_are_an_answer_or_a_failure(data):
    sftp_server(data)
