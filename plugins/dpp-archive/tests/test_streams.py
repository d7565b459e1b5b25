"""Compressed files that are complete, truncated, damaged, or over a limit."""

from __future__ import annotations

import binascii
import bz2
import gzip
import io
import lzma
import random

import pytest

from dpp_archive.streams import MAGIC, decompressed, zstd

CHECKED = {zstd.CompressionParameter.checksum_flag: 1}
PACK = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: zstd.compress(data, options=CHECKED),
}
TEXT = b"".join(b"%d,%d\n" % (number, number * 7919 % 1000) for number in range(40))
SKIPPABLE = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc"

every_format = pytest.mark.parametrize("kind", PACK)


@every_format
@pytest.mark.parametrize("data", [b"", b"a", TEXT, bytes(3 * 1024 * 1024), random.Random(0).randbytes(2_500_001)], ids=len)
def test_content_comes_out_as_it_went_in(bench, kind, data):
    assert bench.content(PACK[kind](data), f"a.csv.{kind}") == {"a.csv": data}


@every_format
def test_content_decides_and_not_the_name(bench, kind):
    assert MAGIC[kind].match(PACK[kind](TEXT))
    assert bench.content(PACK[kind](TEXT), "a.csv") == {"a.csv": TEXT}
    assert bench.content(PACK[kind](TEXT), "a.csv.zip") == {"a.csv": TEXT}


@every_format
def test_several_streams_one_after_another_are_one_file(bench, kind):
    packed = PACK[kind](TEXT) + PACK[kind](b"") + PACK[kind](b"b" * 100_000) + PACK[kind](b"c")
    assert bench.content(packed, "a") == {"a": TEXT + b"b" * 100_000 + b"c"}


def test_ten_thousand_small_members_are_one_file(bench):
    assert bench.content(gzip.compress(b"a") * 10_000, "a.gz") == {"a": b"a" * 10_000}


def test_skippable_frames_are_skipped(bench):
    assert bench.content(SKIPPABLE + zstd.compress(b"a") + SKIPPABLE + zstd.compress(b"b") + SKIPPABLE, "a.zst") == {"a": b"ab"}


@pytest.mark.fault(31)
@every_format
def test_a_file_cut_at_any_byte_is_refused(bench, kind):
    packed = PACK[kind](TEXT)
    errors = {bench.refusal(packed[:size], f"a.csv.{kind}").error_class for size in range(len(packed))}
    assert errors == {"archive-truncated"}


@pytest.mark.fault(31)
@every_format
def test_a_file_cut_in_its_second_stream_is_refused(bench, kind):
    first, second = PACK[kind](b"first"), PACK[kind](TEXT)
    for size in range(1, len(second)):
        assert bench.refusal(first + second[:size], f"a.{kind}").error_class == "archive-truncated"


def test_a_large_file_that_is_cut_is_refused(bench):
    for kind, pack in PACK.items():
        packed = pack(random.Random(1).randbytes(3_000_000))
        assert bench.refusal(packed[:-1], f"a.{kind}").error_class == "archive-truncated"
        assert bench.refusal(packed[: len(packed) // 2], f"a.{kind}").error_class == "archive-truncated"


@every_format
def test_zeros_may_follow(bench, kind):
    for count in (1, 4, 512, 200_000):
        assert bench.content(PACK[kind](TEXT) + bytes(count), "a") == {"a": TEXT}
    assert bench.content(PACK[kind](b"a") + bytes(70_000) + PACK[kind](b"b"), "a") == {"a": b"ab"}


@every_format
@pytest.mark.parametrize("garbage", [b"x" * 10, b"\n" * 100_000, bytes(100) + b"garbage and more", PACK["gz"](b"")[:3] + b"x" * 20])
def test_anything_else_that_follows_is_refused(bench, kind, garbage):
    assert bench.refusal(PACK[kind](TEXT) + garbage, f"a.{kind}").error_class == "archive-corrupt"


@every_format
def test_no_flipped_bit_changes_the_content(bench, kind):
    packed = PACK[kind](TEXT)
    for position in range(len(packed)):
        flipped = bytearray(packed)
        flipped[position] ^= 1 << position % 8
        made = bench.attempt(bytes(flipped), f"a.{kind}")
        assert made in ({"a": TEXT}, "archive-corrupt", "archive-truncated", "archive-mismatch"), position


def test_backports_zstd_says_that_a_frame_is_cut():
    packed = PACK["zst"](TEXT * 1000)
    for size in range(1, len(packed)):
        streaming = zstd.ZstdDecompressor()
        streaming.decompress(packed[:size])
        assert not streaming.eof
        with pytest.raises(EOFError):
            zstd.ZstdFile(io.BytesIO(packed[:size])).read()


def test_a_dictionary_of_gigabytes_is_not_made(bench):
    packed = bytearray(lzma.compress(TEXT))
    assert packed[14:16] == b"\x21\x01"  # LZMA2 with one byte of properties (The .xz File Format, section 5.3.1)
    packed[16] = 40  # 4 GiB - 1
    packed[20:24] = binascii.crc32(packed[12:20]).to_bytes(4, "little")
    assert bench.refusal(bytes(packed), "a.xz").error_class == "archive-limit"


@pytest.mark.fault(31)
def test_a_window_of_gigabytes_is_not_made(bench):
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([21 << 3]) + b"\x09\x00\x00a"  # 2 GiB (RFC 8878, section 3.1.1.1.2)
    assert bench.refusal(frame, "a.zst").error_class == "archive-limit"
    assert bench.content(frame.replace(b"\xa8", b"\x58"), "a.zst") == {"a": b"a"}


@every_format
def test_memory_does_not_grow_with_what_comes_out(kind):
    source = io.BytesIO(PACK[kind](bytes(20 * 1024 * 1024)))
    assert max(map(len, decompressed(source, kind))) <= 1024 * 1024


@pytest.mark.fault(31)
@every_format
def test_limits_hold_before_anything_is_written(bench, kind):
    bomb = PACK[kind](bytes(20 * 1024 * 1024))
    assert "max_ratio" in str(bench.refusal(bomb, f"a.{kind}", max_ratio=10))
    assert "max_bytes" in str(bench.refusal(bomb, f"a.{kind}", max_bytes="10MiB", max_ratio=1e9))
    assert bench.refusal(bomb, f"a.{kind}", max_ratio=10).error_class == "archive-limit"
    assert len(bench.content(bomb, f"a.{kind}", max_bytes=20 * 1024 * 1024, max_ratio=1e9)["a"]) == 20 * 1024 * 1024


def test_a_small_file_may_be_packed_as_well_as_it_likes(bench):
    assert len(bench.content(PACK["zst"](bytes(16 * 1024 * 1024)), "a.zst", max_ratio=1)["a"]) == 16 * 1024 * 1024
