"""Names of members: their encodings, declared, given and guessed, and the separators between folders."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib

import pytest
from pydantic import ValidationError

from dpp_archive import Decompress


def zipped(*names: bytes, flag: int = 0, system: int = 3, extra: bytes = b"", contents: bytes = b"x") -> bytes:
    """Return a zip whose members have these bytes as names, stored without compression."""
    made, entries = b"", b""
    for name in names:
        data = b"" if name.endswith((b"/", b"\\")) else contents
        facts = struct.pack("<HHHHHIII", 20, flag, 0, 0, 33, zlib.crc32(data), len(data), len(data))
        entries += b"PK\1\2" + bytes([20, system]) + facts
        entries += struct.pack("<HHHHHII", len(name), len(extra), 0, 0, 0, 0, len(made)) + name + extra
        made += b"PK\3\4" + facts + struct.pack("<HH", len(name), 0) + name + data
    return made + entries + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(names), len(names), len(entries), len(made), 0)


def unicode_path(name: str, of: bytes) -> bytes:
    """Return the Unicode Path field (APPNOTE 4.6.9) of a member whose name has these bytes."""
    data = struct.pack("<BL", 1, zlib.crc32(of)) + name.encode()
    return struct.pack("<HH", 0x7075, len(data)) + data


def tar(name: str, encoding: str, dialect: int = tarfile.USTAR_FORMAT, **fields: object) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=dialect, encoding=encoding) as archive:
        member = tarfile.TarInfo(name)
        for field, value in fields.items():
            setattr(member, field, value)
        archive.addfile(member, io.BytesIO())
    return made.getvalue()


@pytest.fixture
def names(bench):
    """Return a function that unpacks an archive and returns the paths in its folder."""

    def unpacked(data: bytes, name: str = "z.zip", **options: object) -> list[str]:
        return [path[2:] for path in bench.content(data, name, **options) if path != "z"]

    return unpacked


@pytest.mark.parametrize("system", [0, 3, 19])
def test_utf_8_without_the_flag_is_recognized(names, system, caplog):
    assert sorted(names(zipped("café.csv".encode(), "日本/語".encode(), b"plain", system=system))) == [
        "café.csv",
        "plain",
        "日本",
        "日本/語",
    ]
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("encoding", "name"), [("cp932", "表計算.csv"), ("gbk", "数据/年.csv"), ("cp1252", "café.csv"), ("cp437", "ü£.csv")]
)
def test_other_encodings_are_an_option(names, encoding, name, caplog):
    assert name in names(zipped(name.encode(encoding)), name_encoding=encoding)
    assert caplog.messages == []


def test_the_option_leaves_declared_names_alone(names):
    assert names(zipped("é".encode(), flag=0x800), name_encoding="cp1252") == ["é"]
    assert names(zipped(b"?", extra=unicode_path("日本", b"?")), name_encoding="cp1252") == ["日本"]


def test_cp437_is_the_last_guess_and_warns(names, caplog):
    assert sorted(names(zipped("é".encode("cp1252"), "é".encode()))) == sorted(["Θ", "├⌐"])
    assert ["name_encoding" in message and "CP437" in message for message in caplog.messages] == [True]


def test_a_unicode_path_counts_only_for_the_name_it_was_made_for(names):
    assert names(zipped(b"old", extra=unicode_path("日本", b"old"))) == ["日本"]
    assert names(zipped(b"new", extra=unicode_path("日本", b"old"))) == ["new"]
    assert names(zipped(b"new", extra=b"ab\4\0abcd" + unicode_path("日本", b"new"))) == ["日本"]


def test_a_unicode_path_is_checked_like_any_name(bench):
    assert bench.refusal(zipped(b"a", extra=unicode_path("../up", b"a")), "a.zip").error_class == "archive-unsafe"


def test_a_name_that_is_not_in_the_given_encoding_fails(bench):
    error = bench.refusal(zipped(b"\x81"), "a.zip", name_encoding="cp932")
    assert (error.error_class, "name_encoding" in str(error)) == ("archive-names", True)


def test_a_flag_that_is_wrong_is_named(bench):
    error = bench.refusal(zipped("表.csv".encode("cp932"), flag=0x800), "a.zip")
    assert (error.error_class, "marked as UTF-8" in str(error)) == ("archive-names", True)


@pytest.mark.parametrize("encoding", ["cp932", "gbk", "big5"])
def test_half_a_character_is_no_separator(bench, encoding):
    name = next(char for char in map(chr, range(0x4E00, 0x9FFF)) if char.encode(encoding, "replace").endswith(b"\\")).encode(encoding)
    assert bench.refusal(zipped(name + b".csv"), "a.zip").error_class == "archive-names"
    assert bench.content(zipped(name + b".csv"), "a.zip", name_encoding=encoding) == {"a": None, f"a/{name.decode(encoding)}.csv": b"x"}


@pytest.mark.parametrize("encoding", ["", "latin-0", "utf-16", "rot13", "punycode", "cp037"])
def test_an_encoding_has_to_be_one_that_contains_ascii(encoding):
    with pytest.raises(ValidationError, match="unknown encoding"):
        Decompress(name_encoding=encoding)


@pytest.mark.parametrize("dialect", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["表計算.csv", "表" * 60])
def test_names_of_tars_in_other_encodings_are_an_option(bench, names, dialect, name):
    if dialect == tarfile.USTAR_FORMAT and len(name) > 50:
        return
    packed = tar(name, "cp932", dialect)
    assert names(packed, "z.tar", name_encoding="cp932") == [name]
    if dialect == tarfile.PAX_FORMAT:
        assert names(packed, "z.tar", name_encoding="cp1252") == [name]
    else:
        assert bench.refusal(packed, "z.tar").error_class == "archive-names"


def test_a_pax_name_may_be_in_another_encoding(names):
    packed = tar("é" * 4, "utf-8", tarfile.PAX_FORMAT, pax_headers={"hdrcharset": "BINARY"})
    packed = packed.replace("é".encode() * 4, "日本語日".encode("cp932"))
    assert names(packed, "z.tar", name_encoding="cp932") == ["日本語日"]


@pytest.mark.parametrize("system", [0, 10])
def test_backslashes_of_windows_separate_folders(names, system, caplog):
    packed = zipped(b"dir\\", b"dir\\a.csv", b"dir\\sub\\b.csv", b"c.csv", system=system)
    assert sorted(names(packed)) == ["c.csv", "dir", "dir/a.csv", "dir/sub", "dir/sub/b.csv"]
    assert caplog.messages == []


def test_backslashes_of_other_systems_are_reported(names, caplog):
    assert names(zipped(b"dir\\a.csv")) == ["dir", "dir/a.csv"]
    assert ["backslashes" in message for message in caplog.messages] == [True]


@pytest.mark.fault(31)
@pytest.mark.parametrize(
    "name", [b"C:\\a", b"c:a", b"..\\up", b"a\\..\\up", b"\\abs", b"\\\\server\\share", b"\\", b"a\\..", b"..\\", b"\\\\?\\C:\\a"]
)
def test_names_that_lead_elsewhere_are_refused_with_backslashes_too(bench, name):
    assert bench.refusal(zipped(b"good", name, system=0), "a.zip").error_class == "archive-unsafe"


def test_one_path_with_either_separator_is_refused(bench):
    assert bench.refusal(zipped(b"a/b", b"a\\b", system=0), "a.zip").error_class == "archive-unsafe"


def test_names_of_devices_on_windows_are_ordinary(names):
    assert sorted(names(zipped(b"con", b"aux.txt", b"nul/lpt1"))) == ["aux.txt", "con", "nul", "nul/lpt1"]


def test_normal_forms_of_unicode_are_told_apart(names):
    assert sorted(names(zipped("é".encode(), "e\u0301".encode()))) == sorted(["é", "e\u0301"])


def test_python_s_own_zips_keep_their_names(names):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("日本/é", "x")
    assert sorted(names(made.getvalue())) == ["日本", "日本/é"]
