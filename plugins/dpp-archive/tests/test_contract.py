"""The contract tests of pre-processors, run for ``decompress``."""

from __future__ import annotations

import gzip
import io
import zipfile

import dpp.testing
import pytest

from dpp_archive import Decompress


def zipped(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return made.getvalue()


class TestDecompress(dpp.testing.PreProcessorSuite):
    plugin = Decompress

    @pytest.fixture
    def samples(self):
        return {"a.csv.gz": gzip.compress(b"a,b\n"), "b.zip": zipped(one=b"1", two=b"2"), "c.csv": b"as it is"}

    @pytest.fixture
    def broken(self):
        return {"cut.csv.gz": gzip.compress(b"a,b\n" * 100)[:-9], "cut.zip": zipped(one=b"1")[:-9], "no.gz": b"something else"}

    @pytest.fixture
    def other_options(self):
        return [{"required": True}, {"check_suffix": False}, {"keep": [".zip"]}, {"max_bytes": 10}, {"max_members": 1}]
