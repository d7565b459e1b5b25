"""A provider's files, end to end: from a real sshd, decrypted by gpg, unpacked, and uploaded to a real object store (Swift's S3)."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from canaries import found
from moto_server import moto
from pgp import Pgp
from sshd import sshd
from swift_server import swift

BIN = Path(sys.executable).parent
SECONDS = 120
# One group, so that the servers start only once.
pytestmark = pytest.mark.xdist_group("provider")
NUMBERS = random.Random(1)


def tar_gz(name: str, data: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def zipped(name: str, data: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, data)
    return packed.getvalue()


PACKINGS = {
    "": lambda name, data: data,
    ".gz": lambda name, data: gzip.compress(data),
    ".tar.gz": tar_gz,
    ".zip": zipped,
}


class Provider:
    """A server with 40 files, who may read them, and a bucket that holds five of them already."""

    def __init__(self, folder, server, store, pgp, stranger):
        self.folder, self.server, self.store, self.pgp, self.stranger = folder, server, store, pgp, stranger
        self.outbox = folder / "outbox"
        self.outbox.mkdir()
        self.plain = {f"{kind}{number:02}.{kind}": self.text(kind, number) for number in range(13) for kind in ("csv", "pdf", "xml")}
        self.plain = dict(list(self.plain.items())[:38])
        self.packed = {name: list(PACKINGS)[number % 4] for number, name in enumerate(self.plain)}
        for name in self.plain:
            self.send(name)
        self.there, self.corrupt = list(self.plain)[:5], [name for name in self.plain if self.packed[name] == ".gz"][-3:]
        for name, break_it in zip(self.corrupt, (self.wrong_key, self.truncated, self.bomb), strict=True):
            self.path(name).write_bytes(break_it(name))
        for name in list(self.plain)[5:7]:
            self.path(name).with_name(f"{self.path(name).name}.sig").write_bytes(b"a signature")
        self.client = store.client()

    @staticmethod
    def text(kind, number):
        return f"{kind} {number} canary-plain-text\n".encode() + NUMBERS.randbytes(2000)

    def path(self, name):
        return self.outbox / f"{self.file_name(name)}.gpg"

    def file_name(self, name):
        packing = self.packed[name]
        return f"{name.partition('.')[0]}{packing}" if packing in (".tar.gz", ".zip") else f"{name}{packing}"

    def message(self, name):
        return PACKINGS[self.packed[name]](name, self.plain[name])

    def send(self, name):
        self.path(name).write_bytes(self.pgp.encrypt(self.message(name), "acme@example.org"))

    def wrong_key(self, name):
        return self.stranger.encrypt(self.message(name), "stranger@example.org")

    def truncated(self, name):
        return self.path(name).read_bytes()[:-300]

    def bomb(self, name):
        return self.pgp.encrypt(gzip.compress(bytes(40_000_000)), "acme@example.org", "--compress-algo", "none")

    def bucket(self):
        """Make a bucket with the five files that are there already; return its name."""
        name = f"bucket-{random.randrange(10**9)}"
        self.client.create_bucket(Bucket=name)
        for there in self.there:
            self.client.put_object(Bucket=name, Key=self.key(there), Body=self.plain[there])
        return name

    @staticmethod
    def key(name):
        return f"data/{name.rpartition('.')[2]}/acme/{name}"

    def objects(self, bucket):
        listed = self.client.list_objects_v2(Bucket=bucket).get("Contents", ())
        return {entry["Key"]: self.client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read() for entry in listed}

    def times(self, bucket):
        """Return when each object was written."""
        return {entry["Key"]: entry["LastModified"] for entry in self.client.list_objects_v2(Bucket=bucket)["Contents"]}

    def configure(self, folder, bucket):
        """Write the luigi.cfg of the batch, which names only the places of secrets."""
        credentials = folder / "credentials.json"
        credentials.write_text(
            json.dumps({"token": self.store.access_key, "secret": self.store.secret_key, "endpoint_url": self.store.endpoint_url})
        )
        options = {
            "sftp": self.server.options,
            "s3": {"credentials_file": str(credentials)},
            "gpg-decrypt": {"gnupghome": str(self.pgp.home), "passphrase_env": "ACME_PASSPHRASE"},
            "decompress": {"max_bytes": 10_000_000},
            "s3-upload": {"bucket": bucket, "key": "data/{ext}/acme/{name}", "credentials_file": str(credentials)},
        }
        settings = {
            "files": f"sftp://{self.server.user}@{self.server.host}:{self.server.port}{self.outbox}/?pattern=*.gpg",
            "skip_existing": f"s3://{bucket}/data/",
            "pre_processors": "gpg-decrypt,decompress",
            "post_processors": "s3-upload",
            "cleanup": "true",
            "options": json.dumps(options),
            "retry_wait": "0.01",
        }
        text = "\n".join(f"{name}={value}" for name, value in settings.items())
        (folder / "luigi.cfg").write_text(f"[batch:acme]\n{text}\n")

    def expected(self, without=()):
        return {self.key(name): data for name, data in self.plain.items() if name not in without}


@pytest.fixture(scope="module", params=[moto, pytest.param(swift, marks=pytest.mark.slow)])
def provider(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("provider")
    (folder / "sshd").mkdir()
    (folder / "store").mkdir()
    with Pgp("provider") as pgp, Pgp("stranger") as stranger, sshd(folder / "sshd") as server, request.param(folder / "store") as store:
        yield Provider(folder, server, store, pgp, stranger)


COMMANDS = {
    "luigi": ["luigi", "--module", "dpp", "RunBatch", "--batch-name", "acme", "--workers", "4"],
    "dpp": ["dpp", "run", "--batch", "acme", "--workers", "4"],
}


def start(provider, folder, name="luigi"):
    """Start the batch in its own process group; its output goes to a file."""
    program, *arguments = COMMANDS[name]
    with (folder / "output.txt").open("ab") as output:
        environment = {**os.environ, "ACME_PASSPHRASE": provider.pgp.passphrase}
        return subprocess.Popen(
            [str(BIN / program), *arguments], cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )


def killed(running, workspace, paths):
    """Kill a batch once it has added this many paths to its workspace; return whether it was still running."""

    def count():
        return sum(len(folders) + len(files) for _, folders, files in os.walk(workspace))

    enough = count() + paths
    while running.poll() is None:
        if count() >= enough:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            return True
        time.sleep(0.02)
    return False


def rows(folder):
    runs = sorted(folder.glob("dpp-workspace/batches/*/runs/*/results.jsonl"), key=lambda path: int(path.parent.name))
    return {row["id"]: row for row in map(json.loads, runs[-1].read_text().splitlines())}


def left_in(folder, *needles):
    """Return the files of a workspace that contain one of these."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(needle in path.read_bytes() for needle in needles)]


@pytest.mark.timeout(2 * SECONDS + 60)
@pytest.mark.parametrize("command", ["luigi", pytest.param("dpp", marks=pytest.mark.slow)])
def test_forty_files_of_a_provider_get_into_the_bucket(provider, tmp_path, command):
    bucket = provider.bucket()
    provider.configure(tmp_path, bucket)
    broken = {name: provider.path(name).read_bytes() for name in provider.corrupt}
    before = provider.times(bucket)
    assert start(provider, tmp_path, command).wait(SECONDS) == 1, (tmp_path / "output.txt").read_text()
    output = (tmp_path / "output.txt").read_text()

    assert provider.objects(bucket) == provider.expected(without=provider.corrupt)
    assert before.items() <= provider.times(bucket).items()  # what was there is left alone
    assert "30 of 33 ok, 3 failed, 5 skipped" in output
    failures = {row["name"]: row["error_class"] for row in rows(tmp_path).values() if row["status"] == "failed"}
    reasons = ("gpg-no-key", "gpg-truncated", "archive-limit")
    assert failures == {provider.path(name).name: reason for name, reason in zip(provider.corrupt, reasons, strict=True)}
    assert not left_in(tmp_path / "dpp-workspace", b"canary-plain-text")

    for name in provider.corrupt:
        provider.send(name)
    try:
        again = start(provider, tmp_path, command)
        assert again.wait(SECONDS) == 0, (tmp_path / "output.txt").read_text()
    finally:
        for name, data in broken.items():
            provider.path(name).write_bytes(data)
    assert provider.objects(bucket) == provider.expected()
    assert set(rows(tmp_path)) == {provider.path(name).name for name in provider.corrupt}
    canaries = {"passphrase": provider.pgp.passphrase, "secret": provider.store.secret_key}
    assert found(canaries, tmp_path / "dpp-workspace", [(tmp_path / "output.txt").read_bytes()]) == []


@pytest.mark.slow
def test_a_provider_batch_that_is_killed_again_and_again_ends_with_the_same_bucket(provider, tmp_path):
    bucket = provider.bucket()
    provider.configure(tmp_path, bucket)
    kills = [killed(start(provider, tmp_path), tmp_path / "dpp-workspace", NUMBERS.randint(3, 40)) for _ in range(6)]
    assert any(kills)
    deadline = time.monotonic() + 60
    # 3: a child of the last one still holds the lock
    while (code := start(provider, tmp_path).wait(SECONDS)) == 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert code == 1, (tmp_path / "output.txt").read_text()[-3000:]
    assert provider.objects(bucket) == provider.expected(without=provider.corrupt)
    assert not provider.client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert not left_in(tmp_path / "dpp-workspace", b"canary-plain-text")
