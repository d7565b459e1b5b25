"""Files that are not what their name says, and formats that are not unpacked: both are named."""

from __future__ import annotations

import gzip
import io
import lzma
import shutil
import struct
import subprocess
import tarfile
import zipfile

import pytest

from dpp_archive.content import UNSUPPORTED, described

PACKED = {
    "7z": b"7z\xbc\xaf\x27\x1c\0\4",
    "ace": bytes(7) + b"**ACE**",
    "ar": b"!<arch>\nm.o/            0           0     0     644     8         `\n",
    "arj": b"\x60\xea\x29\x00\x22\x0b\x01\x02\x00\x00\x02",
    "cab": b"MSCF\0\0\0\0",
    "compress (Z)": b"\x1f\x9d\x90",
    "cpio": b"07070100000a",
    "deb": b"!<arch>\ndebian-binary   1342943816  0     0     100644  4         `\n2.0\n",
    "lha": b"\x21\x2e-lh5-",
    "lz4": b"\x04\x22\x4d\x18",
    "lzip": b"LZIP\1",
    "lzma": lzma.compress(b"x", lzma.FORMAT_ALONE),
    "lzop": b"\x89LZO\0\r\n\x1a\n",
    "pack (z)": b"\x1f\x1e\0\0",
    "rar": b"Rar!\x1a\x07\x01\0",
    "rpm": b"\xed\xab\xee\xdb\3\0",
    "snappy": b"\xff\x06\0\0sNaPpY",
    "StuffIt": b"SIT!\0\1",
    "xar": b"xar!\0\x1c\0\1",
    "zoo": b"ZOO 2.10 Archive.\x1a\0\0\xdc\xa7\xc4\xfd",
    "zpaq": b"7kSt\xa01\x83\xd3",
    "zstd (before version 0.8)": b"\x27\xb5\x2f\xfd",
}


def tar() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("m.txt"))
    return made.getvalue()


def zipped(data: bytes = b"x") -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("m.txt", data)
    return made.getvalue()


def test_every_format_that_is_not_unpacked_has_an_example():
    assert PACKED.keys() == UNSUPPORTED.keys()


@pytest.mark.parametrize(("kind", "head"), PACKED.items())
@pytest.mark.parametrize("name", ["a", "a.dat", "a.tar.gz", "a.7z"])
def test_other_formats_are_named(bench, kind, head, name):
    error = bench.refusal(head + bytes(60), name)
    assert (error.error_class, f"the format {kind}," in str(error)) == ("archive-unsupported", True)
    assert bench.refusal(head + bytes(60), name, check_suffix=False).error_class == "archive-unsupported"


@pytest.mark.parametrize("name", ["a.br", "a.csv.Z", "a.lz", "a.cpio", "a.lzma"])
def test_a_suffix_names_a_format_without_magic_number(bench, name):
    assert bench.refusal(b"\x8b\x02\x80x\x03", name).error_class == "archive-unsupported"
    assert bench.unpack(b"\x8b\x02\x80x\x03", name, check_suffix=False).local_path.name == name


def test_other_formats_can_be_kept(bench):
    for name in ("a.7z", "a", "a.dat"):
        assert "add 7z to keep" in str(bench.refusal(PACKED["7z"], name))
        assert bench.unpack(PACKED["7z"], name, keep=["7z"]).local_path.name == name
    assert bench.refusal(PACKED["7z"], "a", keep=["rar"]).error_class == "archive-unsupported"


@pytest.mark.parametrize(
    "data",
    [
        b"7z is a format",
        b"PK",
        b"LZIPPER",
        b"Rare",
        b"\x1f\x9d\xff",
        b"SIT down",
        b"070707 is a number",
        b"]\0\0 text follows",
        b"xar! it is",
        b"!<arch> of",
    ],
)
def test_other_files_are_not_taken_for_archives(bench, data):
    assert bench.unpack(data, "a.dat").local_path.name == "a.dat"


LOOKS = {
    "an HTML page": b"\xef\xbb\xbf\n<!-- x --><!DOCTYPE html><title>Sign in</title>",
    "an XML document": b'<?xml version="1.0"?><Error/>',
    "a JSON document": b'{"error": "no"}',
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\n",
    "a PDF": b"%PDF-1.7",
    "an image": b"\x89PNG\r\n",
    "a program": b"MZ\x90\0",
    "an OpenPGP message": b"-----BEGIN PGP MESSAGE-----\n",
    "text": "Keine Berechtigung für diese Datei".encode(),
    "an unknown format": b"\0\1\2\3",
}


@pytest.mark.fault(31)
@pytest.mark.parametrize(("look", "head"), LOOKS.items())
@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.csv.xz", "a.7z"])
def test_what_came_instead_is_named(bench, look, head, name):
    if (look, name) == ("an unknown format", "a.7z"):
        return
    error = bench.refusal(head.ljust(600, b" " if b"\0" not in head else b"\0"), name)
    assert (error.error_class, f"got {look}" in str(error)) == ("archive-mismatch", True)


# The time of now in a parameter would give it another name in each process of the tests.
@pytest.mark.parametrize(
    ("name", "data"), [("a.zip", b"<html>x"), ("a.gz", b"%PDF-1.7"), ("a.tar.gz", gzip.compress(b'{"error": 1}', mtime=0))]
)
def test_what_came_instead_is_named_though_it_is_short(bench, name, data):
    error = bench.refusal(data, name)
    assert (error.error_class, "got a" in str(error)) == ("archive-mismatch", True)


def test_text_that_is_cut_in_a_character_is_text():
    assert described(b"a" * 511 + "é".encode()[:1]) == "text"
    assert described(b"\xff\xfe\xfd\xfc" * 100) == "an unknown format"
    assert described(b"") == "an empty file"


def test_archives_under_the_name_of_another_are_unpacked(bench):
    for data in (tar(), zipped(), gzip.compress(tar())):
        for name in ("a.tar.gz", "a.zip", "a.tgz", "a.7z"):
            assert bench.unpack(data, name).local_path.is_dir()
    assert bench.content(gzip.compress(b"x"), "a.zip") == {"a": b"x"}


def test_a_tar_gz_with_something_else_inside_names_it(bench):
    assert "got the format zip" in str(bench.refusal(gzip.compress(zipped().ljust(600, b"\0")), "a.tar.gz"))
    assert "got an HTML page" in str(bench.refusal(gzip.compress(b"<html>" + b"x" * 600), "a.tgz"))


def test_a_zip_after_a_program_is_named(bench):
    for stub in (b"MZ" + bytes(600), b"#!/bin/sh\n" + bytes(600), b"data"):
        error = bench.refusal(stub + zipped(), "a.zip")
        assert (error.error_class, "self-extracting" in str(error)) == ("archive-unsupported", True)
    assert bench.unpack(b"MZ" + bytes(600) + zipped(), "a.exe").local_path.name == "a.exe"


def test_parts_of_a_split_zip_are_named(bench, tmp_path):
    program = shutil.which("zip") or pytest.fail("zip is needed: apt-get install zip")
    (tmp_path / "data").write_bytes(b"".join(struct.pack("<Q", number * number * 2654435761 % 2**64) for number in range(20_000)))
    subprocess.run([program, "-q", "-s", "64k", "parts.zip", "data"], cwd=tmp_path, check=True)
    parts = sorted(tmp_path.glob("parts.z*"))
    assert len(parts) > 2
    for part in (parts[0], parts[-1]):
        error = bench.refusal(part.read_bytes(), part.name if part is parts[-1] else "first.zip")
        assert (error.error_class, "split" in str(error)) == ("archive-unsupported", True), part
    assert bench.refusal(parts[1].read_bytes(), "second.zip").error_class == "archive-mismatch"


def test_a_split_zip_of_one_part_is_unpacked(bench):
    packed = bytearray(b"PK00" + zipped())
    end, entry = packed.rindex(b"PK\5\6"), packed.rindex(b"PK\1\2")
    struct.pack_into("<L", packed, end + 16, entry)
    struct.pack_into("<L", packed, entry + 42, 4)
    assert bench.content(bytes(packed), "a.zip") == {"a": None, "a/m.txt": b"x"}


def test_a_file_that_is_packed_twice_is_reported(bench, caplog):
    twice = gzip.compress(gzip.compress(b"x"))
    assert bench.content(twice, "a.csv.gz.gz") == {"a.csv.gz": gzip.decompress(twice)}
    assert caplog.messages == []
    assert bench.content(twice, "a.csv.gz") == {"a.csv": gzip.decompress(twice)}
    assert ["has the format gz again" in text for text in caplog.messages] == [True]
