"""The contract tests of fetchers and sources, run for ``sftp``."""

from __future__ import annotations

import dpp.testing
import pytest

import dpp_sftp
from dpp_sftp import SftpFetcher


class TestFetcher(dpp.testing.FetcherSuite):
    plugin = SftpFetcher
    schemes = ("sftp",)

    @pytest.fixture
    def options(self, server):
        return server.options

    @pytest.fixture
    def serve(self, server, outbox):
        return lambda name, body: server.url(outbox(name, body))

    @pytest.fixture
    def missing(self, server, outbox):
        return server.url(outbox.folder / "missing")

    @pytest.fixture
    def refused(self, server, outbox):
        return [server.url(outbox.folder), server.url(outbox("a.csv")) + "?x=1", "sftp:///no-host"]


class TestSource(dpp.testing.SourceSuite):
    plugin = dpp_sftp
    schemes = ("sftp",)

    @pytest.fixture
    def options(self, server):
        return {"sftp": server.options}

    @pytest.fixture
    def files(self, server, outbox):
        for name in ("a.csv", "sub/a.csv", "\u00fc b#?%.csv", b"\xff.csv"):
            outbox(name)
        return server.url(outbox.folder).replace("@", ":s3cret@") + "?recursive=true&pattern=*.csv"
