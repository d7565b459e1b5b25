"""Tests of a scheduler that is reached by TLS."""

from __future__ import annotations

import json

import distributed
import pytest
import trustme

from dpp_dask import DaskExecutor
from dpp_dask.quiet import quiet

TIMES = {"connect_timeout": 3, "worker_timeout": 30}

pytestmark = pytest.mark.slow


class Authority:
    """An authority, and the files that it gives to a scheduler, a worker or a client."""

    def __init__(self, folder):
        folder.mkdir()
        self._authority, self._folder = trustme.CA(), folder
        self._authority.cert_pem.write_to_path(folder / "ca.pem")

    def files(self, name):
        certificate = self._authority.issue_cert("127.0.0.1")
        certificate.cert_chain_pems[0].write_to_path(self._folder / f"{name}.pem")
        certificate.private_key_pem.write_to_path(self._folder / f"{name}.key")
        paths = ("ca.pem", f"{name}.pem", f"{name}.key")
        return dict(zip(("ca_file", "cert_file", "key_file"), [str(self._folder / path) for path in paths], strict=True))

    def arguments(self, name):
        files = self.files(name)
        return ["--tls-ca-file", files["ca_file"], "--tls-cert", files["cert_file"], "--tls-key", files["key_file"]]


@pytest.fixture
def run(files, command, dask, tmp_path):
    """Return a function that runs a batch on a scheduler with TLS, with a client's files."""
    authority = Authority(tmp_path / "tls")
    _, address = dask.scheduler("--protocol", "tls", *authority.arguments("scheduler"))
    dask.worker(address, *authority.arguments("worker"))
    assert address.startswith("tls://")

    def start(security=None):
        options = {"dask": {"address": address, **TIMES, "security": security or authority.files("client")}}
        return command("dpp", "run", files(), "--executor", "dask", "--options", json.dumps(options))

    return start


def test_a_batch_runs_on_a_scheduler_with_tls(run, results):
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["status"] for row in results().values()} == {"ok"}


def test_another_authority_is_not_accepted(run, tmp_path):
    done = run(Authority(tmp_path / "other").files("client"))
    assert done.returncode == 3, done.stdout + done.stderr
    assert "cannot reach the Dask scheduler at tls://127.0.0.1:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("scheme", "security", "refusal"),
    [
        ("tcp", distributed.Security, "Connection reset|stream is closed"),
        ("tls", distributed.Security.temporary, "certificate does not match"),
    ],
)
def test_workers_on_this_machine_take_calls_of_their_run_only(scheme, security, refusal):
    with DaskExecutor(workers=1).open() as pool, quiet():
        (scheduler,) = [cluster.scheduler_address for cluster in distributed.LocalCluster._instances]
        assert scheduler.startswith("tls://127.0.0.1:")
        with pytest.raises(OSError, match=refusal):
            distributed.Client(scheduler.replace("tls", scheme), security=security(), timeout=2, set_as_default=False)
        assert pool.submit(abs, -1).result(60) == 1
