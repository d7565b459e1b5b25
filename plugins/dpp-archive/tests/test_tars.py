"""Tars: all dialects, truncation at any byte, and members that must be rejected."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from dpp_archive import Decompress
from dpp_archive.tar_headers import is_tar, pax_records

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def member(name: str, content: bytes | None = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content or b"")
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content or b""


def tar(*members: tuple[tarfile.TarInfo, bytes], dialect: str = "pax", **options: object) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=FORMATS[dialect], **options) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def patched(data: bytes, at: int, field: bytes) -> bytes:
    """Return a tar with a field of its first header replaced, and its checksum corrected."""
    header = bytearray(data[:512])
    header[at : at + len(field)] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


@pytest.fixture
def gnu_tar(tmp_path):
    """Return a function that packs the files of its ``folder`` with GNU tar."""
    program = shutil.which("tar") or pytest.fail("GNU tar is needed: apt-get install tar")
    folder = tmp_path / "gnu"
    folder.mkdir()

    def pack(*options: str) -> bytes:
        return subprocess.run([program, "-c", "-C", folder, *options, "."], capture_output=True, check=True).stdout

    pack.folder = folder
    return pack


@pytest.mark.parametrize("dialect", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_gnu_tar_packs_is_unpacked(bench, gnu_tar, dialect):
    (gnu_tar.folder / "deep/er").mkdir(parents=True)
    (gnu_tar.folder / "deep/er/a.txt").write_bytes(b"a" * 1000)
    (gnu_tar.folder / "empty").touch()
    (gnu_tar.folder / "run.sh").write_bytes(b"#!/bin/sh")
    (gnu_tar.folder / "run.sh").chmod(0o6755)
    file = bench.unpack(gnu_tar(f"--format={dialect}"), "a.tar")
    assert subprocess.run(["diff", "-r", file.local_path, gnu_tar.folder], check=False).returncode == 0
    assert [os.stat(file.local_path / name).st_mode & 0o7100 for name in ("run.sh", "empty")] == [0o100, 0]


@pytest.mark.parametrize("dialect", ["gnu", "posix"])
def test_long_names_are_unpacked(bench, gnu_tar, dialect):
    path = gnu_tar.folder / ("d" * 120) / ("f" * 250)
    path.parent.mkdir()
    path.write_bytes(b"x")
    assert bench.content(gnu_tar(f"--format={dialect}"), "a.tar")[f"a/{'d' * 120}/{'f' * 250}"] == b"x"


def test_times_in_a_gnu_header_are_no_part_of_a_name(bench, gnu_tar):
    (gnu_tar.folder / "a.txt").write_bytes(b"x")
    packed = gnu_tar("--format=gnu", f"--listed-incremental={gnu_tar.folder.parent}/snapshot")
    # An incremental archive has folders of a type of its own, with a list of their files
    assert bench.refusal(packed, "a.tar").error_class == "archive-unsupported"
    assert bench.content(patched(tar(member("a.txt"), dialect="gnu"), 345, b"14700000000"), "a.tar") == {"a": None, "a/a.txt": b"x"}


def test_hard_links_become_files_of_their_own(bench, gnu_tar):
    (gnu_tar.folder / "a.txt").write_bytes(b"x" * 700)
    os.link(gnu_tar.folder / "a.txt", gnu_tar.folder / "b.txt")
    file = bench.unpack(gnu_tar(), "a.tar")
    assert [(path.stat().st_size, path.stat().st_nlink) for path in file.local_path.iterdir()] == [(700, 1)] * 2


@pytest.mark.fault(31)
def test_copies_of_hard_links_count_as_bytes(bench):
    links = [member(f"l{number}", None, type=tarfile.LNKTYPE, linkname="a") for number in range(10)]
    packed = tar(member("a", b"x" * 100_000), *links)
    assert len(bench.content(packed, "a.tar")) == 12
    assert "max_bytes" in str(bench.refusal(packed, "a.tar", max_bytes=500_000))


@pytest.mark.fault(31)
@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, "a"),
        (tarfile.SYMTYPE, "../../out"),
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "../../in/a.tar"),
        (tarfile.LNKTYPE, "evil"),
        (tarfile.LNKTYPE, "later"),
        (tarfile.LNKTYPE, "folder"),
        (tarfile.LNKTYPE, ""),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_links_that_lead_elsewhere_and_devices_are_refused(bench, kind, link):
    packed = tar(member("a"), member("folder", None, type=tarfile.DIRTYPE), member("evil", None, type=kind, linkname=link), member("later"))
    error = bench.refusal(packed, "a.tar")
    assert (error.error_class, "'evil'" in str(error)) == ("archive-unsafe", True)


@pytest.mark.fault(31)
@pytest.mark.parametrize("dialect", FORMATS)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
@pytest.mark.parametrize(
    "name", ["/abs", "../up", "a/../../up", "..", "C:/x", "c:x", "a\\b", "..\\up", "a\nb", "a\x1bb", "x\x7f", "a/../b"]
)
def test_names_that_lead_elsewhere_are_refused(bench, name, kind, dialect):
    assert bench.refusal(tar(member("good"), member(name, None, type=kind), dialect=dialect), "a.tar").error_class == "archive-unsafe"


@pytest.mark.parametrize("name", ["", ".", "./", "a/"])
def test_files_need_a_name(bench, name):
    packed = patched(tar(member("n")), 0, name.encode().ljust(100, b"\0"))
    assert bench.refusal(packed, "a.tar").error_class == "archive-unsafe"


@pytest.mark.parametrize("name", [b"caf\xe9", b"\xff", b"\xed\xa0\x80"])
def test_a_name_that_is_not_utf_8_is_refused(bench, name):
    error = bench.refusal(patched(tar(member("n")), 0, name.ljust(100, b"\0")), "a.tar")
    assert (error.error_class, "name_encoding" in str(error)) == ("archive-names", True)
    assert str(error).isprintable()


@pytest.mark.parametrize("dialect", ["gnu", "pax"])
@pytest.mark.parametrize("name", ["n" * 256, "é" * 128, "d/" * 101 + "n", "n" * 200_000, ("d" * 200 + "/") * 11 + "n"])
def test_names_that_are_too_long_are_refused(bench, name, dialect):
    error = bench.refusal(tar(member(name), dialect=dialect), "a.tar")
    assert (error.error_class, len(str(error)) < 1000) == ("archive-unsafe", True)


@pytest.mark.parametrize("name", ["a\0b", "../up", "/abs"])
@pytest.mark.parametrize("dialect", ["gnu", "pax"])
def test_extended_names_are_looked_at_as_well(bench, name, dialect):
    long = "n" * 150
    packed = tar(member(long), dialect=dialect).replace(long.encode(), name.encode().ljust(150, b"/" if "\0" not in name else b"x"))
    assert bench.refusal(packed, "a.tar").error_class == "archive-unsafe"


@pytest.mark.parametrize(
    "members",
    [
        (member("a"), member("a", b"y")),
        (member("a"), member("./a")),
        (member("a"), member("a/b")),
        (member("a/b"), member("a")),
        (member("a"), member("a", None, type=tarfile.DIRTYPE)),
        (member("a"), member("a", None, type=tarfile.LNKTYPE, linkname="a")),
    ],
)
def test_two_members_of_one_name_are_refused(bench, members):
    assert bench.refusal(tar(*members), "a.tar").error_class == "archive-unsafe"


def test_names_that_differ_by_case_are_told_apart_and_folders_may_be_named_twice(bench):
    folder = member("d", None, type=tarfile.DIRTYPE)
    found = bench.content(tar(folder, member("d/A", b"1"), folder, member("d/a", b"2"), member(".", None, type=tarfile.DIRTYPE)), "a.tar")
    assert found == {"a": None, "a/d": None, "a/d/A": b"1", "a/d/a": b"2"}


@pytest.mark.fault(31)
@pytest.mark.parametrize("dialect", FORMATS)
def test_a_tar_cut_anywhere_before_its_end_is_refused(bench, dialect):
    packed = tar(member("a", b"x" * 600), member("n" * 90, b"y"), member("é", b""), dialect=dialect)
    end = len(packed.rstrip(b"\0")) // 512 * 512 + 512 + 1024
    assert len(bench.content(packed[:end], "a.tar")) == 4
    for size in range(0, end, 64):
        for cut in (size, size + 1):
            assert bench.refusal(packed[:cut], "a.tar").error_class == "archive-truncated", cut
    assert bench.refusal(packed[: end + 100], "a.tar").error_class == "archive-truncated"


def test_a_tar_cut_inside_a_whole_gzip_is_refused(bench):
    packed = tar(member("a", b"x" * 600))
    for size in range(0, 2560, 128):
        assert bench.refusal(gzip.compress(packed[:size]), "a.tar.gz").error_class == "archive-truncated", size


@pytest.mark.fault(31)
def test_a_compressed_tar_cut_at_any_byte_is_refused(bench):
    packed = gzip.compress(tar(member("a", b"x" * 600)))
    assert {bench.refusal(packed[:size], "a.tgz").error_class for size in range(len(packed))} == {"archive-truncated"}


def test_a_gzip_whose_trailer_does_not_fit_its_tar_is_refused(bench):
    packed = gzip.compress(tar(member("a")))
    assert bench.refusal(packed[:-8] + bytes(8), "a.tgz").error_class == "archive-corrupt"


def test_a_tar_without_members_is_an_empty_folder(bench):
    assert bench.content(tar(), "a.tar") == {"a": None}
    assert bench.content(gzip.compress(tar()), "a.tgz") == {"a": None}


@pytest.mark.parametrize("tail", [b"x", bytes(511) + b"x", bytes(20_000) + tar(member("b"))])
def test_what_follows_the_end_is_refused(bench, tail):
    assert bench.refusal(tar(member("a")) + tail, "a.tar").error_class == "archive-corrupt"


def test_a_lone_block_of_zeros_is_no_end(bench):
    packed = tar(member("a", b""))
    assert bench.refusal(packed[:512] + bytes(512) + packed, "a.tar").error_class == "archive-corrupt"


@pytest.mark.parametrize(
    ("at", "field"),
    [
        (124, b"\xff" * 12),
        (124, b"-1\0"),
        (124, b"9" * 11),
        (124, b"\x80" + bytes(7) + b"\x01\0\0\0"),
        (124, b"7" * 11),
        (124, b"\x80" + b"\xff" * 11),
        (100, b"rwxrwxrw"),
    ],
)
def test_numbers_that_are_none_or_lie_are_refused(bench, at, field):
    packed = patched(tar(member("a")), at, field)
    assert bench.refusal(packed, "a.tar").error_class in ("archive-corrupt", "archive-truncated")


def test_no_flipped_bit_of_a_header_changes_what_is_unpacked(bench):
    packed = tar(member("a", b"x"), dialect="ustar")
    for position in range(512):
        flipped = bytearray(packed)
        flipped[position] ^= 1 << position % 8
        same = position in (148, 155)  # a leading zero, and the byte after the digits of the checksum
        made = bench.attempt(bytes(flipped), "a.tar")
        assert made == {"a": None, "a/a": b"x"} if same else made in ("archive-corrupt", "archive-mismatch"), position


def test_an_old_header_is_told_by_its_checksum(bench):
    old = patched(tar(member("a.txt"), dialect="ustar"), 257, bytes(255))
    assert is_tar(old[:512])
    assert bench.content(old, "data") == {"data": None, "data/a.txt": b"x"}
    assert bench.content(patched(old, 156, b"\0"), "data") == {"data": None, "data/a.txt": b"x"}


@pytest.mark.parametrize("time", [b"\xff" * 12, b"\x80" + b"\xff" * 11, b"77777777777\0", b"yesterday\0\0\0"])
def test_times_and_modes_do_not_matter(bench, time):
    packed = patched(patched(tar(member("a")), 136, time), 100, b"0000000\0")
    file = bench.unpack(packed, "a.tar")
    assert [path.read_bytes() for path in file.local_path.iterdir()] == [b"x"]


def test_sparse_files_are_refused(bench, gnu_tar):
    with (gnu_tar.folder / "sparse").open("wb") as file:
        file.truncate(10 * 1024 * 1024)
        file.seek(5 * 1024 * 1024)
        file.write(b"x")
    for options in (["--format=gnu"], *(["--format=posix", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0"))):
        assert bench.refusal(gnu_tar("--sparse", *options), "a.tar").error_class == "archive-unsupported"


@pytest.mark.parametrize(
    ("kind", "name"), [(b"S", "sparse"), (b"M", "multi-volume"), (b"V", "label"), (b"D", "incremental"), (b"Z", "b'Z'"), (b"9", "b'9'")]
)
def test_types_that_are_not_supported_are_named(bench, kind, name):
    error = bench.refusal(patched(tar(member("a")), 156, kind), "a.tar")
    assert (error.error_class, name in str(error)) == ("archive-unsupported", True)


@pytest.mark.parametrize("kind", [b"x", b"g", b"X", b"L", b"K"])
def test_extended_headers_have_a_limit(bench, kind):
    packed = patched(tar(member("a")), 124, b"\x80" + (1 << 40).to_bytes(11, "big"))
    assert bench.refusal(patched(packed, 156, kind), "a.tar").error_class == "archive-limit"


@pytest.mark.parametrize("records", [b"x", b"5 a=b", b"7 a=b\n", b"99 a=b\n", b"0 a=b\n", b"6 abc\n", b"4 =\n\n", b"3 a=b\n", b"-6 a=b\n"])
def test_extended_headers_that_are_no_records_are_refused(bench, records):
    header = patched(tar(member("a", records.ljust(512, b"\n"))), 156, b"x")
    assert bench.refusal(header, "a.tar").error_class == "archive-corrupt"


def test_records_are_read_by_their_length():
    records = pax_records(b"12 path=a=b\n6 c=\n\n" + b"29 comment=two\nlines of text\n\0")
    assert records == {"path": "a=b", "c": "\n", "comment": "two\nlines of text"}


@pytest.mark.parametrize("size", ["-1", "1e3", "999999999999999999999", "0x10", " 1"])
def test_a_size_in_an_extended_header_has_to_be_one(bench, size):
    assert bench.refusal(tar(member("a", pax_headers={"size": size})), "a.tar").error_class == "archive-corrupt"


def test_a_global_header_may_not_name_members(bench):
    assert bench.refusal(tar(member("a"), pax_headers={"path": "b"}), "a.tar").error_class == "archive-corrupt"
    assert bench.content(tar(member("a"), pax_headers={"comment": "b"}), "a.tar") == {"a": None, "a/a": b"x"}


def test_an_extended_header_needs_a_member(bench):
    packed = tar(member("n" * 150))
    assert bench.refusal(packed[:1024] + bytes(1024), "a.tar").error_class == "archive-corrupt"


def test_a_link_or_folder_with_data_is_refused(bench):
    for kind in (tarfile.DIRTYPE, tarfile.LNKTYPE):
        packed = patched(tar(member("a")), 156, kind)
        assert bench.refusal(packed, "a.tar").error_class == "archive-corrupt"


@pytest.mark.fault(31)
def test_members_have_a_limit_and_folders_above_them_count(bench):
    assert "max_members" in str(bench.refusal(tar(*(member(f"{number}") for number in range(11))), "a.tar", max_members=10))
    assert "max_members" in str(bench.refusal(tar(member("d/" * 10 + "a")), "a.tar", max_members=10))
    assert len(bench.content(tar(member("d/" * 9 + "a")), "a.tar", max_members=10)) == 11
    again = [member("d", None, type=tarfile.DIRTYPE) for _ in range(11)]
    assert "max_members" in str(bench.refusal(tar(*again), "a.tar", max_members=10))


@pytest.mark.fault(31)
def test_a_bomb_in_a_compressed_tar_is_refused(bench):
    packed = gzip.compress(tar(member("a", bytes(20 * 1024 * 1024))))
    assert "max_ratio" in str(bench.refusal(packed, "a.tgz", max_ratio=100))
    assert "max_bytes" in str(bench.refusal(packed, "a.tgz", max_bytes=1_000_000))


@pytest.mark.fault(31)
def test_nothing_is_written_through_a_link_that_is_there_already(bench):
    file = bench.file(tar(member("d/a")), "a.tar")
    outside = Path(file.output_dir.parent, "outside")
    outside.mkdir()
    (file.output_dir / "a").symlink_to(outside)
    with pytest.raises(FileExistsError):
        Decompress().pre_process(file)
    assert not list(outside.iterdir())
