"""Secrets stay secret, end to end: nothing that a batch leaves contains a passphrase, a password or a secret key of S3."""

from __future__ import annotations

import base64
import json
import shlex
import shutil
import subprocess
import sys
from urllib.parse import quote, quote_plus

import pytest

from canaries import canary, found, watched
from listening import wait_until
from luigi_server import known_tasks, luigid
from moto_server import moto
from pgp import PASSPHRASES, Pgp
from sshd import sshd
from swift_server import swift

SECONDS = 120
pytestmark = [pytest.mark.xdist_group("provider-secrets"), pytest.mark.timeout(2 * SECONDS), pytest.mark.cold]
PASSPHRASE, PASSWORD, WRONG_KEY = PASSPHRASES["provider"], canary(), canary()
FAILURES = {"other": "gpg-passphrase", "refused": "auth", "forbidden": "permission"}
GOOD = ["good", "fine"]
COMMANDS = {"luigi": ("luigi", "--module", "dpp", "RunBatch", "--batch-name", "acme"), "dpp": ("dpp", "run", "--batch", "acme")}
TASKS = {
    ("luigi", "files"): {"RunBatch", "DownloadTarget", "PreProcessed", "Processed", "Report"},
    ("luigi", "environment"): {"RunBatch", "FileChunk"},
}
GPG = """#!/bin/sh
printf '%s\\n' "$*" >> {log}
exec {gpg} "$@"
"""


class Provider:
    """A server that takes a password, a key with a passphrase, a bucket; and files that hold the secrets."""

    def __init__(self, folder, server, store, pgp):
        self.folder, self.server, self.store, self.pgp = folder, server, store, pgp
        self.canaries = {"passphrase": PASSPHRASE, "password": PASSWORD, "secret": store.secret_key, "wrong": WRONG_KEY}
        for name in [*GOOD, "other", "refused"]:
            message = pgp.encrypt(b"a,b\n", "other@example.org" if name == "other" else "acme@example.org")
            (folder / "outbox" / f"{name}.gpg").write_bytes(message)
        for name, secret in self.canaries.items():
            account = {"token": store.access_key, "endpoint_url": store.endpoint_url, "secret": secret}
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(json.dumps(account) if name in ("secret", "wrong") else secret)
        store.client().create_bucket(Bucket="results")

    def url(self, name):
        """Return where a file is: one where the secret key is wrong, one where the password is, the others where all is right."""
        user = "stranger" if name == "refused" else self.server.user
        outbox = f"sftp://{user}@{self.server.host}:{self.server.port}{self.folder}/outbox/"
        return "s3://results/forbidden" if name == "forbidden" else f"{outbox}{name}.gpg"

    def by_reference(self, way):
        """Return options that say where secrets are, and the environment that goes with them."""
        if way == "files":
            passphrase, password = {"passphrase_file": f"{self.folder}/passphrase"}, {"password_file": f"{self.folder}/password"}
            account, environment = {"credentials_file": f"{self.folder}/secret"}, {}
        else:
            passphrase, password = {"passphrase_env": "ACME_PASSPHRASE"}, {"password_env": "ACME_PASSWORD"}
            account = {"endpoint_url": self.store.endpoint_url}  # so that nothing is taken from [s3]
            environment = {"ACME_PASSPHRASE": PASSPHRASE, "ACME_PASSWORD": PASSWORD}
            environment |= {"AWS_ACCESS_KEY_ID": self.store.access_key, "AWS_SECRET_ACCESS_KEY": self.store.secret_key}
        wrong = {"credentials_file": f"{self.folder}/wrong"}
        return {"gpg-decrypt": passphrase, "sftp": password, "s3-upload": account, "s3": wrong}, environment

    def configure(self, folder, files, way="files", core=""):
        """Write the luigi.cfg of a batch that says all it can, with a gpg that writes its arguments down; return the environment."""
        options, environment = self.by_reference(way)
        (folder / "gpg").touch(mode=0o700)
        (folder / "gpg").write_text(GPG.format(log=shlex.quote(f"{folder}/gpg.log"), gpg=shutil.which("gpg")))
        options["gpg-decrypt"] |= {"gpg": f"{folder}/gpg", "gnupghome": str(self.pgp.home)}
        options["sftp"] |= {"known_hosts": str(self.server.known_hosts)}
        options["s3-upload"] |= {"destination": f"s3://results/{folder.name}/"}
        settings = {
            "files": files,
            "workers": 2,
            "chunk_size": 1 if way == "files" else 2,
            "pre_processors": "gpg-decrypt",
            "post_processors": "s3-upload",
            "options": json.dumps(options),
            "retry_wait": 0.01,
            "debug": "true",
            "log_file": "dpp.log",
        }
        lines = [f"{name}={value}" for name, value in settings.items()]
        (folder / "luigi.cfg").write_text("\n".join(["[core]", "log_level=DEBUG", core, "[batch:acme]", *lines]))
        (folder / "tmp").mkdir()
        return {**environment, "TMPDIR": f"{folder}/tmp"}


@pytest.fixture(scope="module", params=[moto, pytest.param(swift, marks=pytest.mark.slow)])
def provider(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("provider")
    for name in ("outbox", "sshd", "store"):
        (folder / name).mkdir()
    with Pgp("provider") as pgp, sshd(folder / "sshd", password=PASSWORD) as server, request.param(folder / "store") as store:
        yield Provider(folder, server, store, pgp)


@pytest.fixture(scope="module")
def scheduler(provider, tmp_path_factory):
    folder = tmp_path_factory.mktemp("luigid")
    with luigid(folder) as url:
        yield url
    assert found(provider.canaries, folder) == []  # it writes its state when it ends


@pytest.mark.parametrize("way", ["files", pytest.param("environment", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["luigi", pytest.param("dpp", marks=pytest.mark.slow)])
def test_secrets_are_in_no_file_output_command_line_or_task(provider, scheduler, manifest, command, dpp, results, tmp_path, name, way):
    files = manifest([{"url": provider.url(name), "id": name} for name in [*GOOD, *FAILURES]])
    provider.pgp.stop()  # so that the batch starts an agent
    before = known_tasks(scheduler)
    environment = provider.configure(tmp_path, files, way, f"scheduler_url={scheduler}")
    with watched() as seen:
        done = command(*COMMANDS[name], timeout=SECONDS, **environment)
    tasks = {key: task for key, task in known_tasks(scheduler).items() if key not in before}
    shown = [dpp("status"), dpp("report"), dpp("report", "--format", "jsonl")]

    assert [done.returncode, *(code for code, _, _ in shown)] == [1, 0, 0, 0], done.stderr
    assert {key: row["error_class"] for key, row in results().items()} == {**dict.fromkeys(GOOD), **FAILURES}
    assert (tmp_path / "gpg.log").read_text().count("--decrypt") == len(GOOD) + 1
    assert any(b"gpg-agent" in line for line in seen)
    assert {task["name"] for task in tasks.values()} == TASKS.get((name, way), set())  # `dpp run` has a scheduler of its own
    texts = [json.dumps(tasks), done.stdout, done.stderr, *(text for _, *streams in shown for text in streams)]
    assert found(provider.canaries, tmp_path, [*seen, *map(str.encode, texts)]) == []
    assert found(provider.canaries, provider.pgp.home) == []


@pytest.mark.parametrize("name", ["luigi", "dpp"])
@pytest.mark.parametrize(("refused", "reason"), [("refused", "refused"), ("forbidden", "the secret key is wrong")])
def test_secrets_are_not_shown_where_a_listing_is_refused(provider, command, tmp_path, name, refused, reason):
    folder = f"{provider.url(refused).rpartition('/')[0]}/"
    with watched() as seen:
        done = command(*COMMANDS[name], timeout=SECONDS, **provider.configure(tmp_path, folder))
    assert (done.returncode, reason in done.stderr) == (2, True), done.stderr
    assert found(provider.canaries, tmp_path, [*seen, done.stdout.encode(), done.stderr.encode()]) == []
    if refused == "refused":
        wait_until(lambda: "Failed password for invalid user stranger" in provider.server.log)  # sshd answers before it logs


LEAKS = {
    "as it is": str,
    "escaped": json.dumps,
    "percent-encoded": quote,
    "in a form": quote_plus,
    "masked in part": lambda secret: secret.replace("canary", "***"),
    "in hexadecimal": lambda secret: secret.encode().hex(),
    **{f"in base64 after {n}": lambda secret, n=n: base64.b64encode(b"x" * n + secret.encode() + b":").decode() for n in range(3)},
}


@pytest.mark.parametrize("form", LEAKS)
def test_the_search_finds_a_secret(tmp_path, form):
    (tmp_path / "log").write_text(f"before {LEAKS[form](PASSWORD)} after")
    assert found({"password": PASSWORD, "passphrase": PASSPHRASE}, tmp_path) == [("password", tmp_path / "log")]


def test_the_search_finds_a_secret_in_a_command_line(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()", PASSWORD], stdin=subprocess.PIPE) as process:
        with watched() as seen:
            pass
        process.communicate(b"\n")
    assert found({"password": PASSWORD}, tmp_path, seen) == [("password", "\0".join(process.args).encode() + b"\0")]
