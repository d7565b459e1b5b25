"""S3 servers on loopback, a bucket for each test, and a proxy with configurable faults."""

from __future__ import annotations

import functools
import json
import os
import secrets

import pytest

import faults as fault_module
import moto_server as moto_server_module
from swift_server import swift


class Store:
    """A bucket on a server, with a credentials file."""

    def __init__(self, server, folder):
        self.server = server
        self.bucket = f"bucket-{secrets.token_hex(4)}"
        self.client = client(server)
        self.client.create_bucket(Bucket=self.bucket)
        self.credentials = folder / f"{self.bucket}.json"
        self.write_credentials(server.endpoint_url)
        self.options = {"credentials_file": str(self.credentials)}

    def write_credentials(self, endpoint_url, **changes):
        known = {"token": self.server.access_key, "secret": self.server.secret_key, "endpoint_url": endpoint_url}
        self.credentials.write_text(json.dumps(known | changes))

    def put(self, **objects):
        for key, body in objects.items():
            self.client.put_object(Bucket=self.bucket, Key=key, Body=body)

    def objects(self):
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
        return {key: self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}

    def open_uploads(self):
        return [found["Key"] for found in self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", ())]


@functools.cache
def client(server, service="s3"):
    """Return a client, created once because that takes long."""
    return server.client(service)


@pytest.fixture(autouse=True)
def no_other_credentials(monkeypatch):
    """Remove the machine's own AWS settings from the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory):
    """moto's server, which checks signatures but not checksums of bodies."""
    with moto_server_module.moto(tmp_path_factory.mktemp("moto")) as server:
        yield server
        client.cache_clear()


@pytest.fixture(scope="session")
def swift_server(tmp_path_factory):
    """OpenStack Swift, which checks signatures and checksums."""
    with swift(tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture
def moto(moto_server, tmp_path):
    """A bucket in moto."""
    return Store(moto_server, tmp_path)


@pytest.fixture(params=["moto", pytest.param("swift", marks=pytest.mark.slow)])
def store(request, tmp_path):
    """A bucket in each of the servers."""
    return Store(request.getfixturevalue(f"{request.param}_server"), tmp_path)


@pytest.fixture
def faults():
    """The module of the proxy's faults."""
    return fault_module


@pytest.fixture
def faulty(store):
    """A proxy in front of the store's server; the credentials file has its URL."""
    with fault_module.proxy(store.server.endpoint_url) as proxy:
        store.write_credentials(proxy.url)
        yield proxy
