"""Zips: truncation at any byte, wrong central directories, and members that must be rejected."""

from __future__ import annotations

import io
import lzma
import random
import stat
import struct
import zipfile
import zlib

import pytest

from dpp_archive.streams import zstd

TEXT = b"".join(b"%d,%d\n" % (number, number * 7919 % 1000) for number in range(200))


def info(name: str, mode: int = 0, **fields: object) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        archive.comment = comment
        for name, content in members:
            archive.writestr(name, content, method)
    return made.getvalue()


def by_hand(method: int, packed: bytes, content: bytes, size: int | None = None, local: bytes = b"a", *, again: int = 0) -> bytes:
    """Return a zip with one member ``a`` of any method, listed ``again`` more times under other names."""
    facts = struct.pack("<HHHHHIII", 20, 0, method, 0, 33, zlib.crc32(content), len(packed), len(content) if size is None else size)
    body = b"PK\3\4" + facts + struct.pack("<HH", len(local), 0) + local + packed
    entries = b"".join(
        b"PK\1\2\x14\0" + facts + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0) + name
        for name in (b"a", *(b"%d" % number for number in range(again)))
    )
    return body + entries + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, again + 1, again + 1, len(entries), len(body), 0)


def deflated(content: bytes) -> bytes:
    return zlib.compress(content)[2:-4]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_members_are_unpacked(bench, method):
    large = random.Random(0).randbytes(1_500_000) + bytes(1_500_000)
    packed = zipped(("d/a.csv", TEXT), ("empty", b""), ("folder/", b""), ("large", large), ("é", b"x"), method=method)
    assert bench.content(packed, "a.zip") == {
        "a": None,
        "a/d": None,
        "a/d/a.csv": TEXT,
        "a/empty": b"",
        "a/folder": None,
        "a/large": large,
        "a/é": b"x",
    }


@pytest.mark.parametrize(("method", "kind"), [(93, "zst"), (95, "xz")])
def test_newer_methods_are_unpacked(bench, method, kind):
    packed = {"zst": zstd.compress, "xz": lzma.compress}[kind](TEXT)
    assert bench.content(by_hand(method, packed, TEXT), "a.zip") == {"a": None, "a/a": TEXT}


@pytest.mark.parametrize(
    ("method", "name"), [(1, "Shrink"), (6, "Implode"), (9, "Deflate64"), (97, "WavPack"), (98, "PPMd"), (7, "an unknown")]
)
def test_methods_that_are_not_supported_are_named(bench, method, name):
    error = bench.refusal(by_hand(method, TEXT, TEXT), "a.zip")
    assert (error.error_class, f"compressed with {name}" in str(error), f"(method {method})" in str(error)) == (
        "archive-unsupported",
        True,
        True,
    )


def test_lzma_is_unpacked_with_and_without_its_end_marker(bench):
    packed = zipped(("a", TEXT), ("empty", b""), method=zipfile.ZIP_LZMA)
    assert bench.content(packed, "z.zip") == {"z": None, "z/a": TEXT, "z/empty": b""}
    alone = lzma.compress(TEXT, lzma.FORMAT_ALONE)  # with an end marker, and without a size
    raw = lzma.compress(TEXT, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20}])
    header = b"\x09\x14\x05\x00" + alone[:5]
    assert bench.content(by_hand(14, header + alone[13:], TEXT), "z.zip") == {"z": None, "z/a": TEXT}
    assert bench.refusal(by_hand(14, header + raw[:-20], TEXT), "z.zip").error_class in ("archive-truncated", "archive-corrupt")


@pytest.mark.parametrize(
    "packed", [b"", b"\x09\x14\x05\x00", b"\x09\x14\x06\x00" + bytes(30), bytes(30), b"\x09\x14\x05\x00\xff" + bytes(30)]
)
def test_damaged_lzma_is_refused(bench, packed):
    assert bench.refusal(by_hand(14, packed, TEXT), "a.zip").error_class in ("archive-truncated", "archive-corrupt")


def test_lzma_with_a_dictionary_of_gigabytes_is_refused(bench):
    assert bench.refusal(by_hand(14, b"\x09\x14\x05\x00\x5d\x00\x00\x00\xc0" + bytes(30), TEXT), "a.zip").error_class == "archive-limit"


def test_a_zip_without_members_is_an_empty_folder(bench):
    assert bench.content(zipped(), "a.zip") == {"a": None}


def test_a_zip_that_was_written_to_a_pipe_is_unpacked(bench):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def tell(self):
            raise OSError

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", TEXT)
        with archive.open("b", "w", force_zip64=True) as member:
            member.write(TEXT)
    assert bench.content(pipe.getvalue(), "z.zip") == {"z": None, "z/a": TEXT, "z/b": TEXT}


@pytest.mark.slow
def test_more_members_than_16_bits_can_count_are_unpacked(bench):
    packed = zipped(*((f"{number}", b"") for number in range(65_540)), method=zipfile.ZIP_STORED)
    assert b"PK\6\6" in packed
    file = bench.unpack(packed, "a.zip")
    assert len(list(file.local_path.iterdir())) == 65_540
    assert "max_members" in str(bench.refusal(packed, "a.zip", max_members=65_539))


def test_only_the_right_to_execute_is_kept(bench):
    packed = zipped((info("a", stat.S_IFREG | 0o4777), b"x"), (info("b", stat.S_IFREG | 0o600), b"x"))
    file = bench.unpack(packed, "z.zip")
    assert [(file.local_path / name).stat().st_mode & 0o7100 for name in "ab"] == [0o100, 0]


@pytest.mark.fault(31)
@pytest.mark.parametrize("comment", [b"", b"a comment", b"PK\5\6" * 30])
def test_a_zip_cut_at_any_byte_is_refused(bench, comment):
    packed = zipped(("a", TEXT[:100]), ("b", zipped(("c", b"x"))), method=zipfile.ZIP_STORED, comment=comment)
    errors = {bench.refusal(packed[:size], "a.zip").error_class for size in range(len(packed))}
    assert errors <= {"archive-truncated", "archive-corrupt"}
    assert bench.refusal(packed[: len(packed) // 3], "a.zip").error_class == "archive-truncated"


def test_no_flipped_bit_changes_the_content(bench):
    packed = zipped(("a", TEXT[:100]), ("b", b"x"))
    whole = bench.content(packed, "z.zip")
    for position in range(len(packed) * 8):
        flipped = bytearray(packed)
        flipped[position // 8] ^= 1 << position % 8
        made = bench.attempt(bytes(flipped), "z.zip")
        assert made == whole or str(made).startswith("archive-"), position


@pytest.mark.parametrize("tail", [b"x", bytes(10), b"\n" * 70_000])
def test_what_follows_the_end_is_refused(bench, tail):
    error = bench.refusal(zipped(("a", b"x")) + tail, "a.zip")
    assert error.error_class == ("archive-truncated" if len(tail) > 65_535 else "archive-corrupt")


def test_a_zip_after_another_is_refused(bench):
    assert bench.refusal(zipped(("a", b"x")) + zipped(("b", b"x")), "a.zip").error_class == "archive-corrupt"


@pytest.mark.fault(31)
@pytest.mark.parametrize("flag", [0x1, 0x41, 0x2001])
def test_members_with_a_password_are_refused(bench, flag):
    packed = bytearray(zipped(("good", b"x"), ("secret", b"x")))
    struct.pack_into("<H", packed, packed.rindex(b"PK\1\2") + 8, flag)
    error = bench.refusal(bytes(packed), "a.zip")
    assert (error.error_class, "'secret'" in str(error)) == ("archive-encrypted", True)


@pytest.mark.fault(31)
def test_aes_is_a_password_too(bench):
    assert bench.refusal(by_hand(99, TEXT, TEXT), "a.zip").error_class == "archive-encrypted"


@pytest.mark.fault(31)
@pytest.mark.parametrize(
    "name",
    ["/abs", "../up", "a/../../up", "..", "C:/x", "c:x", "..\\up", "a\nb", "a\x1bb", "/", "../", "n" * 256, "d/" * 101 + "n"],
)
def test_names_that_lead_elsewhere_are_refused(bench, name):
    assert bench.refusal(zipped(("good", b"x"), (name, b"")), "a.zip").error_class == "archive-unsafe"


def test_a_nul_does_not_end_a_name(bench):
    packed = zipped(("good.txtXexe", b"x")).replace(b"txtX", b"txt\0")
    assert bench.refusal(packed, "a.zip").error_class == "archive-unsafe"


@pytest.mark.fault(31)
@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_are_refused(bench, kind):
    content = b"" if kind == stat.S_IFIFO else b"a"
    assert bench.refusal(zipped(("a", b"x"), (info("evil", kind | 0o777), content)), "a.zip").error_class == "archive-unsafe"


def test_what_zip_read_from_a_pipe_is_a_file(bench):
    assert bench.content(zipped((info("-", stat.S_IFIFO | 0o600), b"x")), "a.zip") == {"a": None, "a/-": b"x"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a", "a"), ("a", "./a"), ("a", "a/b"), ("a/b", "a"), ("a", "a/")])
def test_two_members_of_one_name_are_refused(bench, names):
    assert bench.refusal(zipped(*((name, b"") for name in names)), "a.zip").error_class == "archive-unsafe"


def test_names_that_differ_by_case_are_told_apart(bench):
    assert bench.content(zipped(("A", b"1"), ("a", b"2"), ("d/", b""), ("D/", b"")), "z.zip") == {
        "z": None,
        "z/A": b"1",
        "z/a": b"2",
        "z/d": None,
        "z/D": None,
    }


@pytest.mark.fault(31)
def test_members_that_share_bytes_are_refused(bench):
    packed = by_hand(8, deflated(TEXT), TEXT, again=2)
    assert bench.refusal(packed, "a.zip").error_class in ("archive-unsafe", "archive-corrupt")


def test_overlapping_members_are_refused(bench):
    inner = zipped(("b", b"x"), method=zipfile.ZIP_STORED)
    packed = bytearray(zipped(("a", inner), ("b", b"x"), method=zipfile.ZIP_STORED))
    struct.pack_into("<L", packed, packed.rindex(b"PK\1\2") + 42, 31)  # the offset of b in the inner zip
    error = bench.refusal(bytes(packed), "a.zip")
    assert (error.error_class, "overlaps" in str(error)) == ("archive-unsafe", True)


@pytest.mark.parametrize("offset", [1, 2**31, 2**32 - 2])
def test_a_member_that_is_not_where_the_directory_says_is_refused(bench, offset):
    packed = bytearray(zipped(("a", b"x")))
    struct.pack_into("<L", packed, packed.rindex(b"PK\1\2") + 42, offset)
    assert bench.refusal(bytes(packed), "a.zip").error_class == "archive-corrupt"


@pytest.mark.parametrize("offset", [2**63 - 1, 2**64 - 1])
def test_an_offset_that_no_file_has_is_refused(bench, offset):
    entry = by_hand(0, b"x", b"x")
    body, directory = entry[:32], bytearray(entry[32:-22])
    struct.pack_into("<HHHHHII", directory, 28, 1, 12, 0, 0, 0, 0, 2**32 - 1)
    directory += struct.pack("<HHQ", 1, 8, offset)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(directory), len(body), 0)
    assert bench.refusal(body + bytes(directory) + end, "a.zip").error_class == "archive-corrupt"


def test_a_member_that_reaches_into_the_directory_is_refused(bench):
    packed = bytearray(zipped(("a", b"x" * 40), method=zipfile.ZIP_STORED))
    at = packed.rindex(b"PK\1\2")
    struct.pack_into("<II", packed, at + 20, 60, 60)
    assert "reaches into" in str(bench.refusal(bytes(packed), "a.zip"))


@pytest.mark.parametrize("size", [0, len(TEXT) - 1, len(TEXT) + 1, 2**31])
def test_a_directory_that_lies_about_sizes_is_found_out(bench, size):
    assert bench.refusal(by_hand(8, deflated(TEXT), TEXT, size), "a.zip").error_class == "archive-corrupt"


def test_a_size_and_crc_of_the_first_half_do_not_hide_the_second(bench):
    half = TEXT[:500]
    assert bench.refusal(by_hand(8, deflated(TEXT), half), "a.zip").error_class == "archive-corrupt"


@pytest.mark.parametrize("packed", [deflated(TEXT) + b"x", deflated(TEXT)[:-1], b"", b"\xff" * 20, TEXT])
def test_data_that_is_not_one_whole_stream_is_refused(bench, packed):
    assert bench.refusal(by_hand(8, packed, TEXT), "a.zip").error_class in ("archive-corrupt", "archive-truncated")


def test_a_local_header_has_to_name_the_same_member(bench):
    assert bench.refusal(by_hand(0, b"x", b"x", local=b"b"), "a.zip").error_class == "archive-corrupt"


def test_a_folder_may_not_have_data(bench):
    assert bench.refusal(zipped((info("d/"), b"x"), method=zipfile.ZIP_STORED), "a.zip").error_class == "archive-corrupt"


@pytest.mark.parametrize("attributes", [0x10, (stat.S_IFDIR | 0o755) << 16, (stat.S_IFDIR | 0o755) << 16 | 0x10])
def test_a_folder_may_lack_its_slash(bench, attributes):
    folder = info("d")
    folder.external_attr = attributes
    assert bench.content(zipped((folder, b""), ("d/a", b"x")), "z.zip") == {"z": None, "z/d": None, "z/d/a": b"x"}


def test_a_file_with_the_attribute_of_a_folder_stays_a_file(bench):
    assert bench.content(zipped((info("a", stat.S_IFREG, external_attr=0x10), b"x")), "z.zip") == {"z": None, "z/a": b"x"}


@pytest.mark.parametrize("date", [0, 0xFFFFFFFF, 0x00210000])
def test_times_and_modes_do_not_matter(bench, date):
    packed = bytearray(zipped((info("a", stat.S_IFREG), b"x"), (info("b", stat.S_IFREG | 0o000), b"")))
    for at, offset in ((0, 10), (packed.index(b"PK\1\2"), 12), (packed.rindex(b"PK\1\2"), 12)):
        struct.pack_into("<L", packed, at + offset, date)
    file = bench.unpack(bytes(packed), "z.zip")
    assert [path.read_bytes() for path in sorted(file.local_path.iterdir())] == [b"x", b""]


def test_a_part_of_a_split_zip_is_refused(bench):
    packed = bytearray(zipped(("a", b"x")))
    struct.pack_into("<HH", packed, len(packed) - 18, 1, 1)
    assert bench.refusal(bytes(packed), "a.zip").error_class == "archive-unsupported"


def test_limits_hold(bench):
    bomb = zipped(*((f"{number}", bytes(5 * 1024 * 1024)) for number in range(4)))
    assert "max_ratio" in str(bench.refusal(bomb, "a.zip", max_ratio=10))
    assert "max_bytes" in str(bench.refusal(bomb, "a.zip", max_bytes="12MiB"))
    assert "max_members" in str(bench.refusal(zipped(("d/" * 10 + "a", b"")), "a.zip", max_members=10))
    assert len(bench.content(bomb, "a.zip", max_ratio=2000)) == 5
