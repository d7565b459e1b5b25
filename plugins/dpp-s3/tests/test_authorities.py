"""Tests for the CA certificates of S3 servers, which the environment names as for http."""

from __future__ import annotations

import ssl

import pytest
import trustme
from dpp import ConfigurationError, FetchError, FileData, Settings
from dpp.testing.parts import MemoryPart

import http_site
from dpp_s3.fetcher import S3Fetcher


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Serve over TLS, with an authority of our own in ca.pem."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with http_site.serving(context) as served:
        yield served


def fetched(site):
    site.add("/bucket/a", "abc")
    fetcher = S3Fetcher(Settings(options={"s3": {"endpoint_url": site.url, "region": "us-east-1", "addressing_style": "path"}}))
    part = MemoryPart()
    try:
        fetcher.fetch("s3://bucket/a", FileData(url="s3://bucket/a"), part)
    finally:
        fetcher.close()
    return bytes(part.data)


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_each_variable_may_name_the_authority(site, tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, str(tmp_path / "ca.pem"))
    assert fetched(site) == b"abc"


def test_an_unknown_authority_is_refused(site):
    with pytest.raises(FetchError) as caught:
        fetched(site)
    assert caught.value.error_class == "tls"


def test_a_bundle_of_boto3_comes_first(site, tmp_path, monkeypatch):
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other.pem"))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    assert fetched(site) == b"abc"


def test_a_bundle_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(ConfigurationError, match=r"AWS_CA_BUNDLE names /nowhere/ca\.pem"):
        S3Fetcher(Settings())
