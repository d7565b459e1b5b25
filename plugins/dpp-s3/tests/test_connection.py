"""Connections: clients per process and thread, and their options."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from dpp import ConfigurationError, FetchError, Settings

from dpp_s3 import S3Files
from dpp_s3.client import client_for, release
from dpp_s3.connection import Connection


def test_importing_the_plugin_does_not_import_boto3():
    code = (
        "import sys, dpp_s3; from dpp.plugins.registry import load_plugins; load_plugins(); print([n for n in sys.modules if 'boto' in n])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_threads_share_a_client(moto):
    with ThreadPoolExecutor(8) as pool:
        clients = list(pool.map(lambda _: client_for(Connection(**moto.options), Settings()), range(16)))
    assert len({id(client) for client in clients}) == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_makes_a_client_of_its_own(moto):
    connection, settings = Connection(**moto.options), Settings()
    mine = client_for(connection, settings)
    mine.list_objects_v2(Bucket=moto.bucket)
    child = os.fork()
    if not child:
        with suppress(BaseException):  # otherwise the child would continue as a second pytest
            theirs = client_for(connection, settings)
            os._exit(0 if theirs is not mine and theirs.list_objects_v2(Bucket=moto.bucket)["KeyCount"] == 0 else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert mine.list_objects_v2(Bucket=moto.bucket)["KeyCount"] == 0


def test_a_client_can_be_used_after_its_connections_were_closed(moto):
    client = client_for(Connection(**moto.options), Settings())
    for _ in range(2):
        assert client.list_objects_v2(Bucket=moto.bucket)["KeyCount"] == 0
        release()
    assert client_for(Connection(**moto.options), Settings()) is client


def test_new_credentials_make_a_new_client(moto):
    before = client_for(Connection(**moto.options), Settings())
    moto.write_credentials(moto.server.endpoint_url, secret="another")
    assert client_for(Connection(**moto.options), Settings()) is not before


@pytest.mark.parametrize("style", ["auto", "path"])
def test_the_aws_chain_is_asked(store, monkeypatch, tmp_path, style):
    (tmp_path / ".aws").mkdir()
    keys = f"aws_access_key_id = {store.server.access_key}\naws_secret_access_key = {store.server.secret_key}\n"
    (tmp_path / ".aws" / "credentials").write_text(f"[acme]\n{keys}")
    files = S3Files(store.bucket, profile="acme", endpoint_url=store.server.endpoint_url, region="us-east-1", addressing_style=style)
    assert list(files.list_files()) == []


def test_a_profile_that_is_not_there_is_named():
    with pytest.raises(ConfigurationError, match="no usable credentials; set credentials_file, profile"):
        list(S3Files("bucket", profile="nobody").list_files())


def test_a_server_in_the_environment_that_is_no_url_is_told(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "canary")
    with pytest.raises(FetchError, match="AWS_ENDPOINT_URL or endpoint_url is not a URL") as caught:
        client_for(Connection(region="us-east-1"), Settings())
    assert "canary" not in str(caught.value)


def test_credentials_and_profile_together_are_refused(moto):
    with pytest.raises(ConfigurationError, match="profile and credentials_file cannot be used together"):
        S3Files("bucket", profile="acme", **moto.options)


def test_a_connection_shows_no_secret(moto):
    connection = Connection(**moto.options)
    client_for(connection, Settings())
    shown = f"{connection!r} {connection.model_dump()} {connection.connection_key()!r}"
    assert moto.server.secret_key not in shown
    assert moto.server.access_key not in shown
