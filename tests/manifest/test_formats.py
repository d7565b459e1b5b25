"""Tests of what a manifest's first bytes tell: encodings, packed files, and files of another kind, which are named."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sqlite3
import zipfile

import pytest
from dpp import InputError
from dpp.manifest import formats
from dpp.manifest.readers import read

URL = "https://h/a.csv"
TEXTS = {
    "x.json": f'[{{"url": "{URL}", "id": "\u00e9"}}]',
    "x.jsonl": f'{{"url": "{URL}", "id": "\u00e9"}}\n',
    "x.csv": f"url;id\r\n{URL};\u00e9\r\n",
    "x.txt": f"url\tid\r\n{URL}\t\u00e9\r\n",
}
EXPECTED = [{"url": URL, "id": "\u00e9"}]


@pytest.fixture
def fields(tmp_path):
    """Return a function that returns the fields or problems of a manifest with these bytes."""

    def fields(name: str, data: bytes, encoding: str = "") -> list:
        (tmp_path / name).write_bytes(data)
        return [entry.problem or entry.fields for entry in read(tmp_path / name, encoding)]

    return fields


def zipped(**members: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("_", "/", 1), text)
    return made.getvalue()


def database(path) -> bytes:
    with sqlite3.connect(path) as connection:
        connection.execute("create table files (url)")
    connection.close()
    return path.read_bytes()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", TEXTS)
def test_a_byte_order_mark_tells_the_encoding(name, encoding, fields):
    data = TEXTS[name].encode(encoding)
    assert fields(name, data) == fields(name, data, "windows-1252") == EXPECTED


def test_utf_16_of_either_order_is_read(fields):
    assert fields("x.csv", b"\xfe\xff" + TEXTS["x.csv"].encode("utf-16-be")) == EXPECTED


@pytest.mark.parametrize("encoding", ["windows-1252", "utf-16-le", "utf-16-be", "mac-roman"])
@pytest.mark.parametrize("name", TEXTS)
def test_an_encoding_can_be_given(name, encoding, fields):
    assert fields(name, TEXTS[name].encode(encoding), encoding) == EXPECTED


@pytest.mark.fault(22)
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", TEXTS)
def test_utf_16_without_a_mark_is_named(name, encoding, fields):
    with pytest.raises(InputError, match=f"it looks like UTF-16 without a byte order mark: set --encoding {encoding}; --files takes"):
        fields(name, TEXTS[name].encode(encoding))


def test_a_header_in_another_encoding_is_named(fields):
    (problem,) = fields("x.csv", "url,d\u00e9partement\nhttps://h/a,x\n".encode("windows-1252"))
    assert problem.startswith("the header contains the byte 0xe9, which is not valid UTF-8; if the manifest is Windows-1252")


def test_bytes_that_a_given_encoding_does_not_have_are_refused(fields):
    with pytest.raises(InputError, match=r"x\.csv: is not valid shift_jis: illegal multibyte sequence"):
        fields("x.csv", b"url,id\nhttps://h/a,\x81\x00\n", "shift_jis")


@pytest.mark.parametrize("name", TEXTS)
def test_a_manifest_packed_with_gzip_is_read(name, fields):
    data = gzip.compress(TEXTS[name].encode())
    assert fields(f"{name}.gz", data) == fields(name, data) == EXPECTED
    assert fields(f"{name}.GZ", gzip.compress(TEXTS[name].encode("utf-16"))) == EXPECTED


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-12], lambda data: data[:20] + b"\xff" * 20 + data[40:], lambda data: data + b"x" * 20]
)
def test_damaged_gzip_is_reported(damage, fields):
    data = gzip.compress(os.urandom(100) + b"\n" + b"x\n" * 5000)
    with pytest.raises(InputError, match=r"x\.txt\.gz: is damaged or incomplete gzip"):
        fields("x.txt.gz", damage(data))


def test_gzip_that_unpacks_to_too_much_is_refused(fields, monkeypatch):
    monkeypatch.setattr(formats, "UNPACKED_MAX", 1024 * 1024)
    with pytest.raises(InputError, match="unpacks to more than 1 MiB"):
        fields("x.txt.gz", gzip.compress(b"\n" * 2_000_000))


# By message, as the bytes of packed files have a time in them, and tests need fixed names.
KINDS = {
    "is an Excel workbook; save it as CSV": zipped(xl_workbook="x"),
    "is an OpenDocument spreadsheet; save it as CSV": zipped(mimetype="application/vnd.oasis.opendocument.spreadsheet"),
    "is a zip archive; unpack it": zipped(a_csv="x"),
    "is an old Office document": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1rest",
    "is packed with bzip2; unpack it": bz2.compress(b"x"),
    "is packed with xz; unpack it": lzma.compress(b"x"),
    "is packed with gzip twice; unpack it": gzip.compress(gzip.compress(b"x")),
    "is an HTML page, perhaps of a sign-in": b"\xef\xbb\xbf\r\n<!DOCTYPE HTML>\n",
    "is an HTML page": b"<html><body>",
    "is XML; save it as CSV or JSON": b"<?xml version='1.0'?>",
    "is a PDF": b"%PDF-1.7",
    "is a Git LFS pointer; fetch the file itself: git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid",
}


@pytest.mark.fault(22)
@pytest.mark.parametrize("name", ["x.json", "x.csv", "x.txt", "x"])
@pytest.mark.parametrize("expected", KINDS)
def test_a_file_of_another_kind_is_named(name, expected, fields):
    with pytest.raises(InputError) as caught:
        fields(name, KINDS[expected])
    assert f"{name}: {expected}" in str(caught.value)


def test_a_database_and_yaml_are_named(fields, tmp_path):
    with pytest.raises(InputError, match=r"x\.csv: is a SQLite database; export the table as CSV"):
        fields("x.csv", database(tmp_path / "db"))
    with pytest.raises(InputError, match=r"x\.yaml: is YAML; save it as JSON"):
        fields("x.yaml", b"- url: https://h/a\n")
