"""Entity tags, and the digests of parts."""

from __future__ import annotations

import hashlib

import pytest

from dpp_s3.content import MIB, PARTS, Content
from dpp_s3.etags import digest_of, md5_of

MD5 = "0" * 32


@pytest.mark.parametrize(
    ("answer", "digest"),
    [
        ({"ETag": f'"{MD5}"'}, MD5),
        ({"ETag": MD5}, MD5),
        ({"ETag": f'"{MD5}-12"'}, f"{MD5}-12"),
        ({"ETag": f'W/"{MD5}"'}, None),
        ({"ETag": '"some-thing"'}, None),
        ({}, None),
        ({"ETag": f'"{MD5}"', "ServerSideEncryption": "AES256"}, MD5),
        ({"ETag": f'"{MD5}"', "ServerSideEncryption": "aws:kms"}, None),
        ({"ETag": f'"{MD5}-2"', "ServerSideEncryption": "aws:kms:dsse"}, None),
        ({"ETag": f'"{MD5}"', "SSECustomerAlgorithm": "AES256"}, None),
    ],
)
def test_an_entity_tag_is_a_digest_or_tells_nothing(answer, digest):
    assert digest_of(answer) == digest
    assert md5_of(answer) == (digest if digest == MD5 else None)


def test_parts_are_as_many_as_any_server_takes(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as stream:
        stream.truncate(PARTS * 5 * MIB + 1)
    with path.open("rb") as stream:
        assert Content(stream, 5 * MIB).part_count == 834  # of 6 MiB each


def test_a_window_is_read_as_any_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    with path.open("rb") as stream:
        window = Content(stream, 4).part(1)["Body"]
        assert (window.read(), window.read(), window.seek(0), window.read(2), window.tell()) == (b"4567", b"", 0, b"45", 2)
        assert (window.seek(-1, 2), window.read()) == (3, b"7")


@pytest.mark.parametrize("size", [0, 1, 8, 9])
def test_digests_are_those_of_the_parts(tmp_path, size):
    path = tmp_path / "a"
    path.write_bytes(b"x" * size)
    with path.open("rb") as stream:
        content = Content(stream, 8)
        assert content.is_large == (size == 9)
        assert content.sha256() == hashlib.sha256(b"x" * size).hexdigest()
        assert len(content.digests) == content.part_count == 1 + (size == 9)
