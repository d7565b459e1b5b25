"""A server for all tests of this package, and functions that download and list its files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from dpp import FileData, Settings
from dpp.download.downloader import Downloader
from dpp.workspace.layout import Workspace

import tcp_proxy
from dpp_sftp import SftpFetcher, dpp_sources
from sshd import sshd

LONG_AGO = 1_700_000_000
PATIENCE = {"connect_timeout": 60}  # seconds; includes the login, which takes long on a busy machine


@pytest.fixture(scope="session")
def sshd_for_all(tmp_path_factory):
    with sshd(tmp_path_factory.mktemp("sshd"), "LogLevel VERBOSE") as running:
        yield running


@pytest.fixture
def server(sshd_for_all, monkeypatch):
    """A server on loopback, without an SSH agent."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return sshd_for_all


@pytest.fixture
def proxy(server):
    """A proxy in front of the server, with its port in the known hosts file."""
    with tcp_proxy.proxy(server.host, server.port) as running:
        server.trust_port(running.port)
        yield running


@pytest.fixture
def outbox(tmp_path):
    """Return a function that writes a file into ``outbox.folder`` and returns its path."""
    folder = tmp_path / "outbox"
    folder.mkdir()

    def put(name: str | bytes, data: bytes = b"data", mtime: int = LONG_AGO) -> Path:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (mtime, mtime))
        return path

    put.folder = folder
    return put


@pytest.fixture
def fetch(server, tmp_path):
    """Return a function that downloads a URL or a path of the server, with one attempt."""
    fetchers = []

    def get(where, options=None, settings=None, **fields):
        given = Settings(**{**PATIENCE, "attempts": 1, "options": {"sftp": {**server.options, **(options or {})}}, **(settings or {})})
        fetchers.append(SftpFetcher(given))
        downloader = Downloader(given, Workspace(tmp_path / "workspace"), {"sftp": fetchers[-1]})
        url = where if "://" in str(where) else server.url(where)
        return downloader.get(FileData(url=url, **fields), lambda: None).path.read_bytes()

    yield get
    for fetcher in fetchers:
        fetcher.close()


@pytest.fixture
def listed(server, outbox):
    """Return a function that lists the outbox with a query."""

    def entries(query="", options=None, url=None):
        settings = Settings(**PATIENCE, attempts=1, options={"sftp": {**server.options, **(options or {})}})
        return list(dpp_sources(files=f"{url or server.url(outbox.folder)}{query}", settings=settings))

    return entries


@pytest.fixture
def options(server):
    """Return a function that returns the options as arguments of the command line."""
    patience = [f"--{name.replace('_', '-')}={value}" for name, value in PATIENCE.items()]
    return lambda **more: (*patience, "--options", json.dumps({"sftp": {**server.options, **more}}))
