"""Tests of sources that are listed: a real SFTP server and a real S3 server on loopback."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import time

import pytest

import moto_server as moto_server_module
from sshd import sshd


@pytest.fixture
def sftp(tmp_path, watched):
    """Watch a folder of an SFTP server; a function that writes a file there."""
    folder = tmp_path / "outbox"
    folder.mkdir()
    with sshd(tmp_path) as server:
        watched.folder = server.url(folder) + "/"
        watched.options = ["--options", json.dumps({"sftp": server.options})]

        def put(name, text, mtime):
            (folder / name).write_text(text)
            os.utime(folder / name, (mtime, mtime))

        yield put


@pytest.fixture
def s3(tmp_path, watched):
    """Watch a bucket; a function that writes an object there."""
    with moto_server_module.moto(tmp_path) as server:
        client = server.client("s3")
        client.create_bucket(Bucket="bucket")
        credentials = {"token": server.access_key, "secret": server.secret_key, "endpoint_url": server.endpoint_url}
        (tmp_path / "credentials.json").write_text(json.dumps(credentials))
        watched.folder = "s3://bucket/in/"
        watched.options = ["--options", json.dumps({"s3": {"credentials_file": str(tmp_path / "credentials.json")}})]

        def put(name, text, _mtime):
            client.put_object(Bucket="bucket", Key=f"in/{name}", Body=text.encode())

        yield put


@pytest.mark.parametrize("source", ["sftp", "s3"])
def test_files_of_a_source_are_taken_once_per_version(watched, request, source):
    put = request.getfixturevalue(source)
    put("a.txt", "first", 1_700_000_000)
    put("b.part", "part", 1_700_000_000)
    assert watched.once(*watched.options) == 0
    put("a.txt", "other", 1_700_000_060)
    put("c.txt", "third", 1_700_000_060)
    assert watched.once(*watched.options) == 0
    assert watched.once(*watched.options) == 0
    assert sorted(row["id"] for row in watched.results()) == ["a.txt", "a.txt", "c.txt"]
    assert len(watched.done()) == 3
    assert [line["path"] for line in watched.journal() if "path" in line] == ["a.txt", "a.txt", "c.txt"]


def test_a_file_replaced_after_the_listing_fails_as_changed(watched, sftp, tmp_path, monkeypatch):
    sftp("a.txt", "first", 1_700_000_000)
    (tmp_path / "swap.py").write_text(
        "import os\nfrom dpp import hookimpl\n\n\n@hookimpl\ndef dpp_batch_started(run):\n"
        f"    path = {str(tmp_path / 'outbox/a.txt')!r}\n"
        "    if os.stat(path).st_mtime < 1_700_000_060:\n"
        "        open(path, 'w').write('other')\n        os.utime(path, (1_700_000_060, 1_700_000_060))\n"
    )
    info = tmp_path / "dpp_swap-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dpp-swap\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dpp]\nswap = swap\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for _ in range(2):
        watched.once(*watched.options)
    assert [(row["status"], row["error_class"]) for row in watched.results()] == [("failed", "changed"), ("ok", None)]


@pytest.mark.slow
def test_a_file_that_grows_between_two_listings_is_not_taken(watched, sftp, wait):
    settle = 4.0
    process = watched.start("--scan", "0.2", "--settle", str(settle), "--collect", "0", *watched.options, quick=False)
    begun, replaced = {}, {}
    for size in range(1, 40):
        begun[size] = time.monotonic()
        sftp("a.txt", "x" * size, 1_700_000_000 + size)
        replaced[size - 1] = time.monotonic()
        time.sleep(0.1)
    wait(watched.ended)
    assert watched.stop(process) == 128 + signal.SIGTERM
    # On a busy machine, a version in between may have stood still for long enough.
    stood_still = {size for size, start in begun.items() if replaced.get(size, math.inf) - start > settle}
    taken = [row["bytes"] for row in watched.results()]
    assert taken[-1] == max(begun)
    assert set(taken) <= stood_still


def test_a_source_that_cannot_be_listed_is_tried_again(watched, wait):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(50)
        watched.folder = f"sftp://127.0.0.1:{server.getsockname()[1]}/in/"
        watched.started("--scan", "0.5", "--attempts", "1")
        for _ in range(3):
            server.accept()[0].close()
    wait(lambda: "cannot list files" in watched.errors())
    assert watched.errors().count("trying again every 0.5 s") == 1


INVALID = {
    "sftpp://h/in/": "sftpp://h/in/ is not a folder, and no plugin can list it",
    "sftp://me:pa/SECRET@127.0.0.1:1/in/": "host or port is invalid; percent-encode",
    "foo://me:pa/SECRET@127.0.0.1:1/in/": r"foo://*** is not a folder",
    "sftp://me:SECRET@[bad/in": "host or port is invalid",
    "sftp:/me:SECRET@h/in/": "the URL has no host",
    "s3://bucket?patern=x": "unknown option 'patern'",
}


@pytest.mark.parametrize("url", INVALID)
def test_an_invalid_source_is_refused_and_no_password_is_shown(watched, url):
    watched.folder = url
    assert watched.once() == 2
    assert INVALID[url] in watched.errors()
    assert "SECRET" not in watched.errors()
    assert not watched.workspace.exists()


def test_a_signal_ends_a_listing(watched, wait):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        watched.folder = f"sftp://127.0.0.1:{silent.getsockname()[1]}/in/"
        process = watched.started()
        connection, _ = silent.accept()
        assert watched.stop(process) == 128 + signal.SIGTERM
        connection.close()
