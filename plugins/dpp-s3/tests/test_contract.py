"""The contract tests of fetchers, sources and post-processors, run on both servers."""

from __future__ import annotations

import dpp.testing
import pytest

import dpp_s3
from dpp_s3 import S3Fetcher, S3Upload


class TestFetcher(dpp.testing.FetcherSuite):
    plugin = S3Fetcher
    schemes = ("s3",)

    @pytest.fixture
    def options(self, store):
        return store.options

    @pytest.fixture
    def serve(self, store):
        def put(name, body):
            store.put(**{name: body})
            return f"s3://{store.bucket}/{name}"

        return put

    @pytest.fixture
    def missing(self, store):
        return f"s3://{store.bucket}/missing"

    @pytest.fixture
    def refused(self, store):
        return [f"s3://{store.bucket}/", f"s3://{store.bucket}/a?x=1", "s3:///a"]


class TestSource(dpp.testing.SourceSuite):
    plugin = dpp_s3
    schemes = ("s3",)

    @pytest.fixture
    def options(self, store):
        return {"s3": store.options}

    @pytest.fixture
    def files(self, store):
        store.put(**dict.fromkeys(("in/", "in/a.csv", "in/sub/a.csv", "in/ü b#?%.csv", "out/b.csv"), b"x"))
        return f"s3://{store.bucket}/in/?pattern=*.csv"


class TestUpload(dpp.testing.PostProcessorSuite):
    plugin = S3Upload

    @pytest.fixture
    def options(self, store):
        return {**store.options, "bucket": store.bucket, "key": "{sha256}/{name}"}

    @pytest.fixture
    def other_options(self):
        return [{"key": "{name}"}, {"bucket": "another"}, {"if_exists": "overwrite"}, {"endpoint_url": "https://s3.example.org"}]

    @pytest.fixture
    def effect(self, store):
        return store.objects
