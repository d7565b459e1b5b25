"""The main job, from a bucket to a bucket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from dpp import Settings
from dpp.plugins.registry import load_plugins

BIN = Path(sys.executable).parent
NAMES = [f"{name}.{ext}" for name in ("a", "b", "ü c") for ext in ("csv", "txt")]
LARGE = os.urandom(1024 * 1024) * 11


@pytest.fixture
def filled(store):
    """A bucket with files to process."""
    store.put(**{f"in/{name}": name.encode() for name in NAMES})
    return store


def arguments(store, *more, **options):
    chosen = {"s3": store.options, "s3-upload": {"destination": f"s3://{store.bucket}/out/", **store.options, **options}}
    return ["--post-processors", "s3-upload", "--options", json.dumps(chosen), "--retry-wait", "0.01", *more]


def out(store):
    return {key.removeprefix("out/"): body for key, body in store.objects().items() if key.startswith("out/")}


@pytest.mark.parametrize("more", [(), ("--chunk-size", "2", "--workers", "2")])
def test_files_go_from_a_bucket_into_a_bucket(filled, run_batch, results, more):
    run = run_batch(f"s3://{filled.bucket}/in/?pattern=*.csv", *arguments(filled, *more, key="{ext}/{stem}"))
    assert run.returncode == 0, run.stderr
    assert out(filled) == {"csv/a": b"a.csv", "csv/b": b"b.csv", "csv/ü c": "ü c.csv".encode()}
    assert {row["bytes"] for row in results().values()} == {5, 8}


def test_an_upload_that_is_told_no_connection_takes_the_one_of_s3(filled, run_batch, tmp_path):
    section = "".join(f"{option}={value}\n" for option, value in filled.options.items())
    (tmp_path / "luigi.cfg").write_text(f"[s3]\n{section}[s3-upload]\ndestination=s3://{filled.bucket}/out/\n")
    run = run_batch(f"s3://{filled.bucket}/in/?pattern=a*", "--post-processors", "s3-upload")
    assert run.returncode == 0, run.stderr
    assert out(filled) == {"a.csv": b"a.csv", "a.txt": b"a.txt"}


def test_an_upload_that_is_told_a_connection_takes_nothing_of_another():
    given = {"s3": {"profile": "one", "region": "here"}, "s3-upload": {"bucket": "b", "endpoint_url": "https://s3.example.org"}}
    (upload,) = load_plugins().steps(Settings(post_processors=("s3-upload",), options=given)).post_processors
    assert upload.options == given["s3-upload"]


@pytest.mark.fault(32)
def test_a_file_that_fails_stops_no_other_and_a_rerun_does_just_that(filled, faulty, faults, run_batch, results, seen):
    faulty.fail("PUT /out/b.csv", faults.error(403, "AccessDenied"))
    given = [f"s3://{filled.bucket}/in/?pattern=*.csv", *arguments(filled, attempts=1)]
    run = run_batch(*given)
    assert run.returncode == 1, run.stderr
    assert (results()["b.csv"]["error_class"], sorted(out(filled))) == ("permission", ["a.csv", "ü c.csv"])
    assert (
        f"cannot upload s3://{filled.bucket}/out/b.csv: access denied; check the permissions of the credentials"
        in results()["b.csv"]["message"]
    )
    before = len(faulty.seen)
    assert run_batch(*given).returncode == 0
    assert sorted(out(filled)) == ["a.csv", "b.csv", "ü c.csv"]
    assert [request for request in faulty.seen[before:] if request.startswith("PUT")] == [f"PUT /{filled.bucket}/out/b.csv"]
    seen("S3: 403: permission, redone by a rerun")


def test_a_missing_bucket_ends_the_run_at_once(store, run_batch):
    run = run_batch("s3://no-such-bucket/", *arguments(store))
    assert run.returncode == 2
    assert "cannot list s3://no-such-bucket/: there is no such bucket" in run.stderr


@pytest.mark.fault(32)
@pytest.mark.parametrize("request_", ["PUT partNumber=2", "POST uploadId"])
def test_a_run_that_is_killed_while_it_uploads_is_finished_by_the_next(
    store, faulty, faults, tmp_path, manifest, run_batch, request_, seen
):
    (tmp_path / "large.bin").write_bytes(LARGE)
    files = manifest([{"url": (tmp_path / "large.bin").as_uri()}])
    reached, killed = threading.Event(), threading.Event()

    def stall(handler, body):
        reached.set()
        killed.wait(60)
        handler.close_connection = True

    faulty.fail(request_, stall)
    given = arguments(store, multipart_bytes=5 * 1024 * 1024)
    process = subprocess.Popen(
        [BIN / "luigi", "--module", "dpp", "RunBatch", "--files", files, *given],
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert reached.wait(100)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()  # wait until the last of its processes has ended and released the lock
    killed.set()
    assert (out(store), store.open_uploads()) == ({}, ["out/large.bin"])
    assert run_batch(files, *given).returncode == 0
    assert (out(store), store.open_uploads()) == ({"large.bin": LARGE}, [])
    seen("S3: killed in mid-upload: no object, finished by a rerun, no upload left open")


def texts(folder, *left_out):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path not in left_out}


@pytest.mark.parametrize("way", ["file", "environment"])
@pytest.mark.parametrize("wrong", [False, True])
def test_no_secret_is_shown(filled, run_batch, command, tmp_path, way, wrong):
    secret = "canary-" + "x" * 33 if wrong else filled.server.secret_key
    filled.write_credentials(filled.server.endpoint_url, secret=secret)
    environment = {}
    if way == "environment":
        filled.options = {}
        environment = {"AWS_ACCESS_KEY_ID": filled.server.access_key, "AWS_SECRET_ACCESS_KEY": secret}
        environment |= {"AWS_ENDPOINT_URL": filled.server.endpoint_url}
    files = f"s3://{filled.bucket}/in/"
    if wrong:  # a listing would end the run before anything is downloaded and uploaded
        (tmp_path / "x.txt").write_text(f"{files}a.csv\n{(tmp_path / 'x.txt').as_uri()}\n")
        files = tmp_path / "x.txt"
    run = run_batch(files, *arguments(filled, "--debug", attempts=1), **environment)
    assert run.returncode == int(wrong), run.stderr
    shown = run.stdout + run.stderr + command("dpp", "status").stdout
    assert secret not in shown
    assert [path for path, text in texts(tmp_path, filled.credentials).items() if secret.encode() in text] == []


@pytest.mark.parametrize("way", ["listed", "named"])
def test_an_object_that_was_replaced_is_processed_again(store, faulty, manifest, run_batch, results, way):
    store.put(a=b"first", b=b"first")
    files = f"s3://{store.bucket}/" if way == "listed" else manifest([{"url": f"s3://{store.bucket}/{key}"} for key in "ab"])
    given = ["--options", json.dumps({"s3": store.options}), "--chunk-size", "4"]
    assert run_batch(files, *given).returncode == 0
    store.put(a=b"other")
    faulty.seen.clear()
    run = run_batch(files, *given)
    assert run.returncode == 0, run.stderr
    assert {name: row["cached"] for name, row in results().items()} == {"a": False, "b": True}
    assert any(request.startswith("HEAD") for request in faulty.seen) is (way == "named")
