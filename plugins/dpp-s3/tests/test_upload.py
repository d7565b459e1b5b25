"""Uploads of files."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import threading

import pytest
from dpp import ConfigurationError, Failure, FileData, Settings, StageError
from dpp.plugins.registry import load_plugins
from pydantic import ValidationError

from dpp_s3 import S3Upload

MIB = 1024 * 1024
LARGE = os.urandom(MIB) * 11  # three parts: two of 5 MiB and a last one of 1 MiB


@pytest.fixture
def upload(store):
    """Return a function that returns an upload step for the bucket."""
    return lambda **options: S3Upload(
        **{"bucket": store.bucket, "multipart_bytes": 5 * MIB, "retry_wait": 0.01, **store.options, **options}
    )


@pytest.fixture
def made(tmp_path):
    """Return a function that creates a file as the earlier stages do."""

    def make(body, name="a.csv", **fields):
        path = tmp_path / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        return FileData(url="https://example.org/q", local_path=path, **fields)

    return make


@pytest.mark.parametrize("body", [b"", b"a,b\n", LARGE])
def test_a_file_is_uploaded(store, upload, made, body):
    upload(key="data/{ext}/{provider}/{name}").post_process({}, made(body, "ü b.CSV", provider="acme"))
    assert store.objects() == {"data/csv/acme/ü b.CSV": body}
    assert store.open_uploads() == []


def test_a_destination_is_bucket_and_folder_in_one(store, upload, made):
    for destination in (f"s3://{store.bucket}/some%20data", f"s3://{store.bucket}/some%20data/", f"s3://{store.bucket}"):
        upload(bucket=None, destination=destination).post_process({}, made(b"x"))
    assert store.objects() == {"some data/a.csv": b"x", "a.csv": b"x"}


def test_every_file_of_a_folder_is_uploaded(store, upload, made):
    made(b"1", "one.csv")
    file = made(b"2", "sub/two.csv")
    file.local_path = file.local_path.parents[1]
    upload(key="{ext}/{name}").post_process({}, file)
    assert store.objects() == {"csv/made/one.csv": b"1", "csv/made/sub/two.csv": b"2"}


def test_the_only_file_of_a_folder_needs_no_folder(store, upload, made):
    file = made(b"1")
    file.local_path = file.local_path.parent
    upload().post_process({}, file)
    assert store.objects() == {"a.csv": b"1"}


def test_two_files_of_a_folder_that_get_one_key_are_refused_before_anything_is_sent(store, upload, made):
    made(b"1", "one.csv")
    file = made(b"2", "two.csv")
    file.local_path = file.local_path.parent
    with pytest.raises(StageError, match=r"'made/one.csv' and 'made/two.csv' would both get the key 'csv'"):
        upload(key="{ext}").post_process({}, file)
    assert store.objects() == {}


def test_sha256_is_that_of_what_is_uploaded(store, upload, made):
    upload(key="{sha256}").post_process({}, made(LARGE, sha256="0" * 64))
    assert list(store.objects()) == [hashlib.sha256(LARGE).hexdigest()]


def test_a_failed_file_is_not_uploaded(store, upload, made):
    file = made(b"x", error=Failure(stage="process", error_class="x", message="x"))
    upload().post_process(None, file)
    assert store.objects() == {}


def test_a_result_of_null_is_no_failure(store, upload, made):
    upload().post_process(None, made(b"x"))
    assert store.objects() == {"a.csv": b"x"}


@pytest.mark.parametrize("body", [b"x", LARGE])
@pytest.mark.parametrize("if_exists", ["skip", "overwrite", "fail"])
def test_twice_is_as_good_as_once(store, upload, made, body, if_exists):
    for _ in range(2):
        upload(if_exists=if_exists).post_process({}, made(body))
    assert store.objects() == {"a.csv": body}


@pytest.mark.parametrize("there", [b"old!", b"new!", LARGE])
def test_another_content_is_left_and_told(store, upload, made, caplog, there):
    store.put(**{"a.csv": there})
    with caplog.at_level(logging.WARNING, "dpp.s3"):
        upload().post_process({}, made(b"nice"))
    assert store.objects() == {"a.csv": there}
    assert f"s3://{store.bucket}/a.csv exists already with other content" in caplog.text


def test_another_content_is_overwritten_if_asked(store, upload, made):
    store.put(**{"a.csv": b"old!"})
    upload(if_exists="overwrite").post_process({}, made(b"nice"))
    assert store.objects() == {"a.csv": b"nice"}


def test_another_content_is_a_failure_if_asked(store, upload, made):
    store.put(**{"a.csv": b"old!"})
    with pytest.raises(StageError, match=r"exists already with other content \(4 bytes, a\.csv has 4\)") as caught:
        upload(if_exists="fail").post_process({}, made(b"nice"))
    assert (caught.value.error_class, store.objects()) == ("exists", {"a.csv": b"old!"})


@pytest.mark.fault(32)
def test_what_a_dead_run_left_is_removed_and_nothing_else(store, upload, made):
    for key in ("a.csv", "a.csv.gz", "a.csv"):
        store.client.create_multipart_upload(Bucket=store.bucket, Key=key)
    upload().post_process({}, made(LARGE))
    assert (store.open_uploads(), list(store.objects())) == (["a.csv.gz"], ["a.csv"])


@pytest.mark.fault(32)
@pytest.mark.parametrize("fault", [("error", 503, "SlowDown"), ("drop",), ("lose_answer",)])
@pytest.mark.parametrize(
    ("request_", "body"),
    [("PUT /a.csv", b"x"), ("HEAD /a.csv", b"x"), ("PUT partNumber=2", LARGE), ("POST uploads", LARGE), ("POST uploadId", LARGE)],
)
def test_what_can_get_better_is_tried_again(store, faulty, faults, upload, made, request_, body, fault):
    name, *arguments = fault
    fault = getattr(faults, name)(*arguments) if arguments else getattr(faults, name)
    faulty.fail(request_, fault, fault)
    upload().post_process({}, made(body))
    assert store.objects() == {"a.csv": body}
    assert store.open_uploads() == []


@pytest.mark.fault(32)
@pytest.mark.parametrize("fault", [("error", 503, "SlowDown"), ("error", 403, "AccessDenied"), ("drop",)])
@pytest.mark.parametrize("request_", ["PUT partNumber=2", "POST uploads", "POST uploadId"])
def test_an_upload_that_fails_leaves_nothing(store, faulty, faults, upload, made, request_, fault):
    name, *arguments = fault
    fault = getattr(faults, name)(*arguments) if arguments else getattr(faults, name)
    faulty.fail(request_, fault, fault)
    with pytest.raises(StageError, match=f"cannot upload s3://{store.bucket}/a.csv: "):
        upload(attempts=2 if "403" not in str(arguments) else 1).post_process({}, made(LARGE))
    assert (store.objects(), store.open_uploads()) == ({}, [])


@pytest.mark.fault(32)
@pytest.mark.parametrize("request_", ["PUT partNumber=1", "PUT partNumber=3", "POST uploadId"])
def test_an_upload_that_is_interrupted_leaves_nothing(store, faulty, faults, upload, made, request_):
    main = threading.main_thread().ident

    def interrupt(handler, body):
        signal.pthread_kill(main, signal.SIGINT)
        handler.server.interrupted.wait(20)
        handler.close_connection = True

    interrupted = faulty.server.interrupted = threading.Event()
    faulty.fail(request_, interrupt)
    with pytest.raises(KeyboardInterrupt):
        upload().post_process({}, made(LARGE))
    interrupted.set()
    assert (store.objects(), store.open_uploads()) == ({}, [])


@pytest.mark.parametrize(("request_", "body"), [("PUT /a.csv", b"nice"), ("PUT partNumber=2", LARGE)])
def test_what_was_damaged_on_its_way_is_sent_again(store, faulty, faults, upload, made, request_, body):
    faulty.fail(request_, faults.corrupt)
    upload().post_process({}, made(body))
    assert store.objects() == {"a.csv": body}


@pytest.mark.parametrize(("request_", "body"), [("PUT /a.csv", b"nice"), ("PUT partNumber=2", LARGE)])
def test_what_is_damaged_each_time_leaves_nothing(store, faulty, faults, upload, made, request_, body):
    faulty.fail(request_, *[faults.corrupt] * 2)
    with pytest.raises(StageError, match="the data was damaged during the upload") as caught:
        upload(attempts=2).post_process({}, made(body))
    assert (caught.value.error_class, store.objects(), store.open_uploads()) == ("checksum", {}, [])


def test_an_object_that_appears_in_between_is_not_overwritten(store, faulty, faults, upload, made):
    def put_first(handler, body):
        store.put(**{"a.csv": b"of another"})
        faults.forward(handler, body)

    faulty.fail("PUT /a.csv", put_first)
    with pytest.raises(StageError, match="exists already with other content"):
        upload().post_process({}, made(b"nice"))
    assert store.objects() == {"a.csv": b"of another"}


def test_a_server_without_conditions_gets_none(store, faulty, faults, upload, made):
    faulty.fail("PUT /a.csv", faults.error(501, "NotImplemented"))
    upload().post_process({}, made(b"nice"))
    assert store.objects() == {"a.csv": b"nice"}


def test_who_may_only_write_can_overwrite(store, faulty, faults, upload, made):
    faulty.fail("HEAD /a.csv", faults.error(403, "AccessDenied"))
    faulty.fail("GET uploads", faults.error(403, "AccessDenied"))
    upload(if_exists="overwrite").post_process({}, made(LARGE))
    assert store.objects() == {"a.csv": LARGE}


def test_a_missing_bucket_is_named(upload, made):
    with pytest.raises(StageError, match=r"cannot upload s3://no-such-bucket/a\.csv: there is no such bucket") as caught:
        upload(bucket="no-such-bucket").post_process({}, made(b"x"))
    assert caught.value.error_class == "bucket"


def test_a_file_that_has_gone_is_named(upload, made):
    file = made(b"x")
    file.local_path.unlink()
    with pytest.raises(StageError, match=r"cannot read .*a\.csv: No such file"):
        upload().post_process({}, file)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "give either bucket or destination"),
        ({"bucket": "b", "destination": "s3://b/"}, "give either bucket or destination"),
        ({"bucket": "a/b"}, "is not a valid bucket name"),
        ({"destination": "/data"}, "destination should be a URL"),
        ({"destination": "s3://b/?limit=1"}, "destination must not have parameters"),
        ({"bucket": "b", "key": "{name"}, "expected a template"),
        ({"bucket": "b", "key": "{url}"}, "the field {url} is not allowed"),
        ({"bucket": "b", "key": "constant"}, "the template has no field"),
        ({"bucket": "b", "if_exists": "perhaps"}, "if_exists"),
        ({"bucket": "b", "multipart_bytes": 1}, "multipart_bytes"),
        ({"bucket": "b", "secret": "x"}, "secret"),
        ({"bucket": "b", "credentials_file": "/missing.json"}, "credentials_file /missing.json cannot be read"),
        ({"bucket": "b", "endpoint_url": "https://user:canary@host/"}, "expected a URL without user"),
        ({"bucket": "b", "endpoint_url": "host:9000"}, "expected a URL such as"),
    ],
)
def test_wrong_options_are_refused(options, problem):
    settings = Settings(post_processors=["s3-upload"], options={"s3-upload": options} if options else {})
    with pytest.raises(ConfigurationError, match=problem) as caught:
        load_plugins().steps(settings)
    assert "canary" not in str(caught.value)


def test_the_cache_key_has_the_place_and_no_secret(store, moto):
    def fingerprint(**options):
        settings = Settings(post_processors=["s3-upload"], options={"s3-upload": {"bucket": "b", **options}})
        step = load_plugins().steps(settings).post_processors[0]
        assert moto.server.secret_key not in str(step.identity())
        return step.identity()["options"]

    assert fingerprint(**moto.options) == {"bucket": "b", "endpoint_url": moto.server.endpoint_url}
    assert fingerprint(key="{id}", profile="acme", attempts=9) == {"bucket": "b", "key": "{id}", "profile": "acme"}
    moto.write_credentials(moto.server.endpoint_url, secret="another")
    assert fingerprint(**moto.options) == fingerprint(endpoint_url=moto.server.endpoint_url)


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", '{"token": "t"}', '{"token": "t", "secret": ""}', '{"token": 1, "secret": {"canary": 1}}']
)
def test_a_broken_credentials_file_is_told_without_showing_it(tmp_path, body):
    (tmp_path / "c.json").write_text(body)
    with pytest.raises(ValidationError, match=r'expected {"token": ..., "secret": ...}') as caught:
        S3Upload(bucket="b", credentials_file=tmp_path / "c.json")
    assert "canary" not in str(caught.value)
