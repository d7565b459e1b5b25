"""Keyrings for the tests, and a function that runs a step on a file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from dpp import FileData, StageError

from pgp import Pgp


@pytest.fixture(scope="session")
def gpg_is_there():
    missing = [program for program in ("gpg", "gpgconf", "gpg-agent") if not shutil.which(program)]
    if missing:
        pytest.fail(f"{', '.join(missing)} not found; install with: apt-get install gnupg gpg-agent")


@pytest.fixture(scope="session")
def ring(gpg_is_there):
    """The keyring of the user who runs a batch: a key without passphrase, one with a passphrase, and keys of senders."""
    with Pgp("ring") as pgp:
        for name in ("acme", "locked", "sender", "old"):
            setattr(pgp, name, pgp.fingerprint(f"{name}@example.org"))
        yield pgp


@pytest.fixture(scope="session")
def stranger(gpg_is_there):
    """The keyring of another person, with Acme's public key in it."""
    with Pgp("stranger") as pgp:
        pgp.key = pgp.fingerprint("stranger@example.org")
        yield pgp


@pytest.fixture(autouse=True)
def no_home_of_the_machine(monkeypatch):
    monkeypatch.delenv("GNUPGHOME", raising=False)


@pytest.fixture
def process(tmp_path):
    """Return a function that runs a step on bytes and returns the file or the error, and the content of the output folder."""

    def run(step, data, called="x.csv.gpg", **fields):
        path = tmp_path / called
        path.write_bytes(data)
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        file = FileData(**{"url": f"https://example.org/{called}", "local_path": path, "output_dir": folder, **fields})
        made = error = None
        try:
            made = step.pre_process(file)
        except StageError as raised:
            error = raised
        assert path.read_bytes() == data
        return SimpleNamespace(
            file=made,
            text=made and made.local_path.read_bytes(),
            error_class=error and error.error_class,
            message=str(error),
            left=sorted(path.name for path in folder.iterdir()),
        )

    return run
