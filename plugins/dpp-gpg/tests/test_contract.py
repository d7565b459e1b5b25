"""The contract tests of pre-processors, run for both steps."""

from __future__ import annotations

import base64

import dpp.testing
import pytest

from dpp_gpg import GpgDecrypt, GpgVerify

BODIES = {"a.csv": b"id,value\n1,2\n", "b.csv": b""}


class TestDecrypt(dpp.testing.PreProcessorSuite):
    plugin = GpgDecrypt

    @pytest.fixture
    def options(self, ring):
        return {"gnupghome": str(ring.home)}

    @pytest.fixture
    def other_options(self, ring):
        return [{"required": False}, {"max_bytes": 1000}, {"signer": ring.sender}]

    @pytest.fixture
    def samples(self, ring):
        return {f"{name}.gpg": ring.encrypt(body, ring.acme) for name, body in BODIES.items()}

    @pytest.fixture
    def broken(self, ring, stranger):
        cut = ring.encrypt(b"x" * 1000, ring.acme, "--compress-algo", "none")[:-100]
        return {"cut.gpg": cut, "no.gpg": b"no message", "theirs.gpg": stranger.encrypt(b"x", stranger.key)}


class TestVerify(dpp.testing.PreProcessorSuite):
    plugin = GpgVerify

    @pytest.fixture
    def options(self, ring):
        return {"gnupghome": str(ring.home)}

    @pytest.fixture
    def other_options(self, ring):
        return [{"required": False}, {"signature_field": "proof"}, {"signer": ring.sender}]

    @pytest.fixture
    def samples(self):
        return BODIES

    @pytest.fixture
    def broken(self):
        return {"changed.csv": b"id,value\n1,3\n", "unsigned.csv": b"x"}

    @pytest.fixture
    def fields(self, ring):
        signatures = {name: base64.b64encode(ring.sign(body, ring.sender)).decode() for name, body in BODIES.items()}
        return {name: {"signature": signature} for name, signature in {**signatures, "changed.csv": signatures["a.csv"]}.items()}
