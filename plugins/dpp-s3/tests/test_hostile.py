"""Servers that send invalid, endless or misleading responses."""

from __future__ import annotations

import gc
import itertools

import pytest
from dpp import ConfigurationError, EnvironmentStop, FetchError, FileData, Settings

import http_site
from dpp_s3 import S3Fetcher, S3Files

XML = '<?xml version="1.0"?>'
GOOD = "<Key>in/a</Key><Size>1</Size><LastModified>2020-01-01T00:00:00Z</LastModified>"
ENTITIES = (f'<!ENTITY {name} "{f"&{inner};" * 100}">' for inner, name in itertools.pairwise("abcdef"))
BOMB = f'{XML}<!DOCTYPE x [<!ENTITY a "{"a" * 100}">{"".join(ENTITIES)}]>'


def page(*objects: str, token: str = "", head: str = XML) -> bytes:
    contents = "".join(f"<Contents>{found}</Contents>" for found in objects)
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return f"{head}<ListBucketResult><IsTruncated>{str(bool(token)).lower()}</IsTruncated>{more}{contents}</ListBucketResult>".encode()


class Part:
    """A part in memory."""

    offset, etag, total, waited = 0, None, None, 0.0

    def begin(self, offset=0, **facts):
        self.data = b""

    def write(self, data):
        self.data += data


@pytest.fixture
def options(monkeypatch, site):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return {"endpoint_url": site.url, "region": "us-east-1"}


@pytest.fixture
def second_site():
    with http_site.serving() as found:
        yield found


class Always(dict):
    """The reply of a server to every request."""

    def __init__(self, reply):
        self.reply = reply

    def get(self, path, default=None):
        return [self.reply]


@pytest.fixture
def listed(site, options):
    """Return a function that lists ``s3://bucket/in/`` of a server with these responses, the last one repeated."""

    def ids(*bodies, status=200, **headers):
        responses = itertools.chain(bodies, itertools.repeat(bodies[-1]))
        site.scripts = Always(lambda handler: handler.send(status, next(responses), **headers))
        return [file.id for file in S3Files("bucket", "in/", settings=Settings(attempts=1), **options).list_files()]

    return ids


@pytest.fixture
def fetched(site, options):
    """Return a function that downloads an object of a server with this response."""

    def fetch(body=b"hello", **headers):
        site.scripts = Always(lambda handler: handler.send(200, body, **headers))
        part = Part()
        url = "s3://bucket/in/a"
        S3Fetcher(Settings(options={"s3": options})).fetch(url, FileData(url=url), part)
        return part.data

    return fetch


def test_the_listing_of_these_tests_is_a_good_one(listed):
    assert listed(page(GOOD)) == ["a"]
    assert listed(page(GOOD, token="1"), page(GOOD.replace("in/a", "in/b"))) == ["a", "b"]


INVALID = [
    "",
    GOOD.replace("<Key>in/a</Key>", ""),
    GOOD.replace("in/a", ""),
    GOOD.replace("in/a", "elsewhere/a"),
    GOOD.replace("<Size>1</Size>", ""),
    GOOD.replace("1</Size>", "-5</Size>"),
    GOOD.replace("1</Size>", "1e3</Size>"),
    GOOD.replace("1</Size>", "9" * 5000 + "</Size>"),
    GOOD.replace("2020-01-01T00:00:00Z", "yesterday"),
    GOOD.replace("2020-01-01T00:00:00Z", "9" * 17),
    GOOD + "<Key>in/b</Key>",
]


# Loops in place of parameters, because a client for each server takes long to make
def test_an_invalid_entry_ends_the_listing(listed):
    for found in INVALID:
        with pytest.raises(EnvironmentStop, match="cannot list s3://bucket/in/: "):
            listed(page(found))


@pytest.mark.parametrize("head", [BOMB, f'{XML}<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/hostname">]>'])
def test_entities_are_not_expanded(listed, head):
    with pytest.raises(EnvironmentStop):
        listed(page(GOOD.replace("in/a", "in/&f;"), head=head))


def test_names_that_lead_elsewhere_are_only_names(listed):
    assert listed(page(GOOD.replace("in/a", "in/../../up"))) == ["../../up"]


def test_pages_without_end_are_given_up(listed, monkeypatch):
    monkeypatch.setattr("dpp_s3.listing.MOST_EMPTY_PAGES", 5)
    with pytest.raises(EnvironmentStop, match="6 empty pages"):
        listed(*(page(token=f"{number}") for number in range(10)))
    with pytest.raises(EnvironmentStop, match="without a new continuation token"):
        listed(*(page(GOOD, token=f"{number % 2}") for number in range(10)))


def test_a_response_without_end_is_given_up(listed, fetched, monkeypatch):
    monkeypatch.setattr("dpp_s3.bounded.LARGEST_RESPONSE", 1000)
    with pytest.raises(EnvironmentStop, match="more than 1000 bytes"):
        listed(XML.encode() + b" " * 2000)
    with pytest.raises(EnvironmentStop, match="more than 1000 bytes"):
        listed(b" " * 2000, status=500)
    assert len(fetched(b"x" * 2000)) == 2000


def test_a_redirect_to_another_server_gets_no_credentials(listed, second_site):
    for status, code in itertools.product((301, 302, 307, 308), ("", "TemporaryRedirect", "PermanentRedirect")):
        body = f"<Error><Code>{code}</Code><Endpoint>{second_site.url}</Endpoint></Error>".encode() if code else b""
        with pytest.raises((EnvironmentStop, ConfigurationError)):
            listed(body, status=status, Location=second_site.url, x_amz_bucket_region="eu-west-1")
    assert not second_site.counts()


INVALID_HEADERS = [
    {"x_amz_checksum_crc32": "!!"},
    {"x_amz_checksum_sha256": "x"},
    {"x_amz_checksum_crc32": "AAAAAA=="},
    {"Last_Modified": "yesterday"},
    {"x_amz_mp_parts_count": "many"},
    {"ETag": f'"{"0" * 32}"'},
]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # botocore leaves such a response to the garbage collector
def test_invalid_facts_about_an_object_fail_it(fetched):
    for headers in INVALID_HEADERS:
        with pytest.raises(FetchError) as caught:
            fetched(**headers)
        assert caught.value.error_class in ("checksum", "protocol")
        del caught
    gc.collect()
