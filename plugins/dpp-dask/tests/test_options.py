"""Tests of the options, and of what an address needs."""

from __future__ import annotations

import json
import subprocess
import sys

import dask.config
import pytest
from dpp import ConfigurationError
from pydantic import ValidationError

from dpp_dask import DaskExecutor
from dpp_dask.address import is_loopback, parse_address


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("127.0.0.1:8786", "tcp://127.0.0.1:8786"),
        (" tcp://host:8786/ ", "tcp://host:8786"),
        ("tls://[::1]:8786", "tls://[::1]:8786"),
    ],
)
def test_an_address_has_a_scheme_a_host_and_a_port(given, address):
    assert parse_address(given) == address


@pytest.mark.parametrize(
    "address", ["host", "tcp://host", "inproc://1", "tcp://:8786", "tcp://host:port", "tcp://me:secret@host:1", "tcp://h:1/x"]
)
def test_another_text_is_refused_and_not_shown(address):
    with pytest.raises(ValueError, match="expected tcp://HOST:PORT or tls://HOST:PORT") as raised:
        parse_address(address)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("tcp://127.0.0.1:1", True),
        ("tcp://127.8.0.1:1", True),
        ("tcp://[::1]:1", True),
        ("tcp://localhost:1", True),
        ("tcp://localhost.example.org:1", False),
        ("tcp://10.0.0.1:1", False),
        ("tcp://0.0.0.0:1", False),
    ],
)
def test_loopback_is_what_no_other_machine_reaches(address, expected):
    assert is_loopback(address) is expected


@pytest.mark.parametrize(
    "options", [{}, {"address": "127.0.0.1:1"}, {"address": "tls://host:1"}, {"address": "host:1", "allow_insecure": True}]
)
def test_an_address_on_another_machine_needs_tls_or_a_permission(options):
    DaskExecutor(**options)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"address": "host:1"}, "on another machine and without TLS"),
        ({"address": "127.0.0.1:1", "cluster": "a.B"}, "exclude each other"),
        ({"cluster_options": {"cores": 1}}, "cluster_options needs cluster"),
        ({"security": {"ca_file": "/none", "cert_file": "/none", "key_file": "/none"}}, "there is no file /none"),
        ({"address": "tls://host:1", "workers": -1}, "workers"),
        ({"adress": "host:1"}, "adress"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, problem):
    with pytest.raises(ValidationError, match=problem):
        DaskExecutor(**options)


def test_tls_files_need_an_address_of_tls(tmp_path):
    files = dict.fromkeys(("ca_file", "cert_file", "key_file"), str(tmp_path / "file"))
    (tmp_path / "file").touch()
    with pytest.raises(ValidationError, match="an address that begins with tls://"):
        DaskExecutor(address="tcp://127.0.0.1:1", security=files)
    with pytest.raises(ValidationError, match="security needs an address or a cluster"):
        DaskExecutor(security=files)


def test_files_that_are_none_of_tls_are_refused(tmp_path):
    (tmp_path / "file").write_text("no certificate")
    files = dict.fromkeys(("ca_file", "cert_file", "key_file"), str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match="cannot use the files of security"):
        DaskExecutor(address="tls://127.0.0.1:1", security=files).slots()


def test_an_address_of_tls_needs_files():
    with pytest.raises(ConfigurationError, match="needs security: ca_file, cert_file and key_file"):
        DaskExecutor(address="tls://127.0.0.1:1").slots()


def test_a_configuration_of_dask_that_requires_encryption_is_obeyed():
    with dask.config.set({"distributed.comm.require-encryption": True}), pytest.raises(ConfigurationError, match="encryption required"):
        DaskExecutor(address="tcp://127.0.0.1:1").slots()


def test_the_import_does_not_import_distributed():
    program = "import sys, dpp_dask; print([name for name in sys.modules if name.split('.')[0] in ('dask', 'distributed')])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"


def test_an_option_that_is_wrong_ends_the_run_with_a_message(files, command):
    done = command("dpp", "run", files(), "--executor", "dask", "--options", json.dumps({"dask": {"address": "192.0.2.1:8786"}}))
    assert done.returncode == 2
    assert "the Dask scheduler at tcp://192.0.2.1:8786 is on another machine and without TLS" in done.stderr
