"""Tests of the built-in processor."""

from __future__ import annotations

import hashlib
import json
import zlib

import pytest
from dpp import FileData
from dpp.plugins.builtin import Checksum, guess_media_type

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def processed(tmp_path, body, name="file.bin", **options):
    path = tmp_path / name
    path.write_bytes(body)
    return Checksum(**options).process(FileData(url="file:///file.bin", local_path=path))


def test_an_empty_file(tmp_path):
    assert processed(tmp_path, b"") == {"size": 0, "sha256": EMPTY, "media_type": "application/octet-stream"}


@pytest.mark.parametrize("size", [1, 4095, 4096, 1 << 18, (1 << 20) + 1])
def test_size_and_digest_are_those_of_the_whole_file(tmp_path, size):
    body = bytes(range(256)) * (size // 256 + 1)
    made = processed(tmp_path, body[:size])
    assert (made["size"], made["sha256"]) == (size, hashlib.sha256(body[:size]).hexdigest())


# The digests of "abc" are those in the specifications of the algorithms.
@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("md5", "900150983cd24fb0d6963f7d28e17f72"),
        ("sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        ("sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("sha3_256", "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
    ],
)
def test_the_digest_goes_by_its_algorithm_s_name(tmp_path, algorithm, digest):
    assert processed(tmp_path, b"abc", algorithm=algorithm)[algorithm] == digest


@pytest.mark.parametrize("algorithm", ["crc32", "", "sha-256", "shake_128", "../x"])
def test_an_algorithm_that_is_none_is_refused(algorithm):
    with pytest.raises(ValueError, match="unknown hash algorithm"):
        Checksum(algorithm=algorithm)


def test_a_wrong_algorithm_ends_the_command_before_anything_is_fetched(site, manifest, run_batch):
    files = manifest([{"url": site.add("/a.txt", "a")}])
    run = run_batch(files, "--options", json.dumps({"checksum": {"algorithm": "crc32"}}))
    assert run.returncode == 2
    assert "algorithm: unknown hash algorithm 'crc32'" in run.stderr
    assert not site.counts()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.csv", "text/csv"),
        ("a.JSON", "application/json"),
        ("a.html", "text/html"),
        ("a.png", "image/png"),
        ("a.tar", "application/x-tar"),
        ("a.csv.gz", "application/gzip"),
        ("a.tar.gz", "application/gzip"),
        ("a.tgz", "application/gzip"),
        ("a.csv.bz2", "application/x-bzip2"),
        ("a.csv.xz", "application/x-xz"),
        ("a.csv.br", "application/octet-stream"),
        ("a.unheard-of", "application/octet-stream"),
        ("noextension", "application/octet-stream"),
    ],
)
def test_the_media_type_is_that_of_the_bytes(name, expected):
    assert guess_media_type(name) == expected


def test_the_main_job_does_it_with_no_plugin(site, manifest, run_batch, results):
    body = zlib.compress(b"abc")
    run = run_batch(manifest([{"url": site.add("/a.json", body)}]), "--options", '{"checksum": {"algorithm": "md5"}}')
    assert run.returncode == 0, run.stderr
    expected = {"size": len(body), "md5": hashlib.md5(body).hexdigest(), "media_type": "application/json"}
    assert results()["a"]["result"] == expected
