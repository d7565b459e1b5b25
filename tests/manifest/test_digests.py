"""Tests of the digests in a manifest: columns, notations, problems, and the columns that are not understood."""

from __future__ import annotations

import hashlib
import logging
from base64 import b64encode

import pytest
from dpp import ManifestError
from dpp.manifest.catalog import Chunk, read_catalog, write_catalog
from dpp.manifest.readers import listed
from dpp.models import DIGESTS

pytestmark = pytest.mark.fault(39)
URL = "https://h/a"
HEX = {algorithm: hashlib.new(algorithm, b"data").hexdigest() for algorithm in DIGESTS}
BASE64 = {algorithm: b64encode(bytes.fromhex(digits)).decode() for algorithm, digits in HEX.items()}


@pytest.fixture
def read(tmp_path):
    """Return a function that returns the digests of one entry as a catalog stores it."""

    def one(**fields):
        write_catalog(tmp_path / "c", "x", listed([{"url": URL, **fields}]), {"https"}, lambda total: 1)
        (file,) = read_catalog(tmp_path / "c", Chunk(0, 1))
        return {**({"sha256": file.sha256} if file.sha256 else {}), **(file.digests or {})}

    return one


@pytest.mark.parametrize("algorithm", DIGESTS)
def test_a_column_is_named_after_its_algorithm(read, algorithm):
    for name in (algorithm, algorithm.upper(), f"{algorithm}sum", f"file_{algorithm}", f"{algorithm}_checksum", f"checksum-{algorithm}"):
        assert read(**{name: HEX[algorithm]}) == {algorithm: HEX[algorithm]}, name


@pytest.mark.parametrize("name", ["SHA-256", "Sha256 Sum", "sha256Hash", "SHA_256", "supplied_sha256", "computed_sha256"])
def test_names_of_other_forms(read, name):
    assert read(**{name: HEX["sha256"]}) == {"sha256": HEX["sha256"]}


@pytest.mark.parametrize("algorithm", DIGESTS)
@pytest.mark.parametrize("name", ["checksum", "digest", "hash", "integrity", "Checksum", "file_hash", "hashes"])
def test_a_column_of_any_digest_takes_its_notations(read, name, algorithm):
    digits = HEX[algorithm]
    label = algorithm.upper().replace("SHA", "SHA-")
    for value in (
        *(
            digits,
            digits.upper(),
            f"{algorithm}:{digits}",
            f"{label}:{digits}",
            f"{algorithm}={digits}",
            f"{algorithm}-{BASE64[algorithm]}",
            f"{label.lower()}=:{BASE64[algorithm]}:",
        ),
        *({"type": label, "value": digits}, {"algorithm": algorithm, "digest": digits}, {algorithm: digits}, [f"{algorithm}:{digits}"]),
    ):
        assert read(**{name: value}) == {algorithm: digits}, value


def test_several_digests_of_one_file(read):
    both = {"md5": HEX["md5"], "sha512": HEX["sha512"]}
    assert read(checksum=f"md5:{HEX['md5']} sha512:{HEX['sha512']}") == both
    assert read(digests=both) == both
    assert read(MD5=HEX["md5"], sha512=HEX["sha512"].upper(), md5sum=HEX["md5"], hash=HEX["md5"]) == both


def test_a_value_may_be_base64(read):
    assert read(md5Hash=BASE64["md5"]) == {"md5": HEX["md5"]}
    assert read(sha256=BASE64["sha256"]) == {"sha256": HEX["sha256"]}


@pytest.mark.parametrize("beside", ["checksum_algorithm", "checksumType", "Checksum Algo", "algorithm"])
def test_the_column_beside_gives_the_algorithm(read, tmp_path, caplog, beside):
    for label in ("SHA-512", "sha512sum", "http://spdx.org/rdf/terms#checksumAlgorithm_sha512", "SHA2", "sha", "", None):
        assert read(**{"checksum": HEX["sha512"], beside: label}) == {"sha512": HEX["sha512"]}, label
    assert read(**{"file_checksum": BASE64["md5"], beside: "MD5"}) == {"md5": HEX["md5"]}
    for label in ("SHA3-256", "BLAKE2s", "SM3"):
        fields = {"checksum": HEX["sha256"], "sha1": HEX["sha1"], beside: label}
        assert read(**fields) == {"sha1": HEX["sha1"]}
        caplog.clear()
        assert unread(tmp_path, caplog, fields) == ["checksum"]
        assert read(**{"checksum": f"md5:{HEX['md5']}", beside: label}) == {"md5": HEX["md5"]}


def test_the_column_beside_another_one_says_nothing(read):
    assert read(checksum=HEX["md5"], hash_type="SHA3-256", type="xml") == {"md5": HEX["md5"]}
    for other in ("random-forest", "gzip", "Shapley values", 5):
        assert read(checksum=HEX["md5"], algorithm=other) == {"md5": HEX["md5"]}
    assert read(checksum=f"md5:{HEX['md5']}", sha256=HEX["sha256"], hash_type="crc32") == {"md5": HEX["md5"], "sha256": HEX["sha256"]}


def test_empty_values_are_none(read):
    assert read(md5="", checksum=None, hash=" ", sha1=None) == {}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"md5": "x"}, "md5: expected a digest of md5: 32 hexadecimal digits, or Base64"),
        ({"MD5": HEX["sha1"]}, "MD5: expected a digest of md5: 32 hexadecimal digits"),
        ({"md5": f"sha1:{HEX['sha1']}"}, "md5: expected a digest of md5: 32 hexadecimal digits, or Base64, got one of sha1"),
        ({"md5": 5}, "md5: expected a digest of md5"),
        ({"md5": f"{HEX['md5']};{HEX['md5']}"}, "md5: expected a digest of md5"),
        ({"checksum": HEX["md5"], "checksum_type": "SHA-1"}, "checksum: expected a digest of sha1: 40 hexadecimal digits"),
        ({"checksum": "md5:123"}, "checksum: expected a digest of md5"),
        ({"SHA256": "s3cret"}, "SHA256: expected a digest of sha256: 64 hexadecimal digits"),
        ({"sha256": HEX["sha256"], "SHA256": "0" * 64}, "SHA256: its sha256 differs from that in sha256; remove the wrong one"),
        ({"md5": HEX["md5"], "checksum": "md5:" + "0" * 32}, "checksum: its md5 differs from that in md5"),
        ({"digests": {"crc32": "1"}}, "digests: should be hexadecimal digits by algorithm; choose from md5"),
    ],
)
def test_a_wrong_digest_is_a_problem_of_its_row(read, fields, problem):
    with pytest.raises(ManifestError) as caught:
        read(**fields)
    assert problem in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.total == 1


def unread(tmp_path, caplog, *entries):
    """Return the columns that the warning about digests names."""
    rows = listed([{"url": f"{URL}{number}", **entry} for number, entry in enumerate(entries)])
    with caplog.at_level(logging.WARNING):
        write_catalog(tmp_path / "c", "x", rows, {"https"}, lambda total: 1)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) <= 1
    return messages[0].partition("digests: ")[2].partition(";")[0].split(", ") if messages else []


@pytest.mark.parametrize(
    "fields",
    [
        {"crc32": "1a2b3c4d"},
        {"fastq_md5": f"{HEX['md5']};{HEX['sha1']}"},
        {"sha3_256": "0" * 64},
        {"my checksums of it": "x"},
        {"blake3": "x"},
        {"hash": "crc32:1a2b3c4d"},
        {"checksum": "0123"},
        {"mystery": HEX["md5"]},
        {"sha": HEX["sha1"]},
        {"file.md5": HEX["md5"]},
        {"dataFile.checksum": {"type": "MD5", "value": HEX["md5"]}},
        {"lfs.oid": HEX["sha256"]},
    ],
)
def test_a_column_that_looks_like_a_digest_is_named_once(tmp_path, caplog, fields):
    ((name, value),) = fields.items()
    above, _, member = name.rpartition(".")
    entry = {above: {"size": 4, "other": ["x"], member: value}} if above else fields
    assert unread(tmp_path, caplog, entry, entry) == [name]


def test_all_values_have_to_look_like_digests_where_the_name_does_not(tmp_path, caplog):
    assert unread(tmp_path, caplog, {"x": HEX["md5"]}, {"x": "plain"}, {"x": HEX["md5"]}) == []


@pytest.mark.parametrize("fields", [{"md5": HEX["md5"]}, {"etag": HEX["md5"]}, {"hashtag": "x"}, {"id": HEX["md5"]}, {"name": "x.md5"}])
def test_other_columns_are_not_named(tmp_path, caplog, fields):
    assert unread(tmp_path, caplog, fields) == []
