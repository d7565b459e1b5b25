"""Listings of a bucket."""

from __future__ import annotations

import pytest
from dpp import ConfigurationError, FileData, Settings

from dpp_s3 import S3Files, dpp_sources
from dpp_s3.listing import PrefixQuery

KEYS = ["data/", "data/a.csv", "data/b.txt", "data/sub/", "data/sub/c.csv", "data/ü b#?%.csv", "database.csv", "x/../y"]


@pytest.fixture
def filled(store):
    """A bucket with some objects."""
    store.put(**{key: key.encode() for key in KEYS})
    return store


@pytest.fixture
def ids(store):
    """Return a function that returns the ids of a listing."""
    settings = Settings(attempts=1, options={"s3": store.options})
    return lambda rest: [entry["id"] for entry in dpp_sources(f"s3://{store.bucket}{rest}", settings)]


@pytest.mark.parametrize(
    ("rest", "found"),
    [
        ("", ["data/a.csv", "data/b.txt", "data/sub/c.csv", "data/ü b#?%.csv", "database.csv", "x/../y"]),
        ("/data/", ["a.csv", "b.txt", "sub/c.csv", "ü b#?%.csv"]),
        ("/data/?recursive=false", ["a.csv", "b.txt", "ü b#?%.csv"]),
        ("/data/?pattern=*.csv", ["a.csv", "sub/c.csv", "ü b#?%.csv"]),
        ("/data/?pattern=sub/*&pattern=*.txt", ["b.txt", "sub/c.csv"]),
        ("/data?pattern=*.csv&offset=1&limit=2", ["data/sub/c.csv", "data/ü b#?%.csv"]),
        ("/data/?offset=3&limit=5", ["ü b#?%.csv"]),
        ("/data/?limit=0", []),
        ("/data/%C3%BC%20b%23", ["ü b#?%.csv"]),
        ("/nothing/", []),
    ],
)
def test_what_a_url_asks_for_is_listed(filled, ids, rest, found):
    assert ids(rest) == found


def test_an_empty_bucket_has_nothing(ids):
    assert ids("/data/") == []


def test_an_entry_is_a_file(filled):
    file = FileData(**next(S3Files(filled.bucket, "data/ü", **filled.options).entries(PrefixQuery())))
    assert file.url == f"s3://{filled.bucket}/data/%C3%BC%20b%23%3F%25.csv"
    assert (file.id, file.name, file.size) == ("ü b#?%.csv", "ü b#?%.csv", 16)
    assert len(file.etag) == 32
    assert file.mtime > 1e9


def test_a_script_gets_files_in_pages_of_its_own(filled):
    files = S3Files(filled.bucket, prefix="data/", **filled.options)
    assert [file.id for file in files.list_files(offset=1, limit=2)] == ["b.txt", "sub/c.csv"]
    assert [file.id for file in files.list_files(limit=1, pattern="*.csv")] == ["a.csv"]


@pytest.mark.slow
def test_every_page_is_read(moto):
    moto.put(**{f"k{number:04}": b"" for number in range(1003)})
    assert [file.id for file in S3Files(moto.bucket, **moto.options).list_files(offset=999)] == ["k0999", "k1000", "k1001", "k1002"]


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        ("?limits=1", "unknown option 'limits'; the parameters are pattern, recursive, offset, limit"),
        ("?recursive=perhaps", "recursive: should be true or false"),
        ("/a#b", "# must be percent-encoded as %23"),
        ("/%ff", "is not percent-encoded UTF-8"),
    ],
)
def test_a_wrong_url_says_what_is_wrong(rest, problem):
    with pytest.raises(ConfigurationError, match=problem):
        dpp_sources(f"s3://bucket{rest}", Settings())


@pytest.mark.parametrize("url", ["s3://key:canary@bucket/", "s3://key:can/ary@bucket/", "s3:///canary", "s3://bu cket/?canary=1"])
def test_a_url_with_credentials_or_without_bucket_is_refused_without_showing_it(url):
    with pytest.raises(ConfigurationError) as caught:
        dpp_sources(url, Settings())
    assert "canary" not in str(caught.value).replace("s3:///canary", "")
    assert "ary" not in str(caught.value) or url == "s3:///canary"


def test_another_source_is_left_to_others():
    assert dpp_sources("files.json", Settings()) is None
    assert dpp_sources("sftp://host/s3://", Settings()) is None


def test_a_missing_bucket_is_named(store):
    with pytest.raises(ConfigurationError, match="cannot list s3://no-such-bucket/x/: there is no such bucket"):
        list(S3Files("no-such-bucket", "x/", **store.options).list_files())


def test_wrong_credentials_are_refused(store):
    store.write_credentials(store.server.endpoint_url, secret="canary")
    with pytest.raises(ConfigurationError, match="the secret key is wrong") as caught:
        list(S3Files(store.bucket, **store.options).list_files())
    assert "canary" not in str(caught.value)


def test_what_is_no_s3_server_is_told(site, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    site.script("/bucket?list-type=2&prefix=&encoding-type=url", lambda handler: handler.send(200, b"<html></html>"))
    with pytest.raises(ConfigurationError, match="the response is not that of an S3 server; check endpoint_url"):
        list(S3Files("bucket", endpoint_url=site.url, region="us-east-1").list_files())


def test_wrong_options_are_named():
    with pytest.raises(ConfigurationError, match="unknown option 'endpoint'"):
        S3Files("bucket", endpoint="https://s3.example.org")
