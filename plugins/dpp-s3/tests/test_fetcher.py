"""Downloads of objects."""

from __future__ import annotations

import pytest
from dpp import FetchError, FileData, Settings
from dpp.download.downloader import Downloader
from dpp.workspace.layout import Workspace

from dpp_s3 import S3Fetcher

BODY = bytes(range(256)) * 1024  # 256 KiB, large enough for a partial download to be resumed


@pytest.fixture
def fetch(store, tmp_path):
    """Return a function that downloads a key of the bucket; each call is a new run."""

    def run(key, attempts=1, **fields):
        fetcher = S3Fetcher(Settings(attempts=attempts, retry_wait=0.01, read_timeout=60, options={"s3": store.options}))
        downloader = Downloader(fetcher.settings, Workspace(tmp_path), {"s3": fetcher})
        try:
            return downloader.get(FileData(url=f"s3://{store.bucket}/{key}", **fields), lambda: None).path.read_bytes()
        finally:
            fetcher.close()

    return run


@pytest.mark.parametrize("body", [b"", b"a,b\n", BODY])
def test_an_object_is_fetched(store, fetch, body):
    store.put(**{"data/ü b#?%+.csv": body})
    assert fetch("data/%C3%BC%20b%23%3F%25%2B.csv") == body


@pytest.mark.fault(32)
def test_a_broken_body_is_continued_where_it_broke(store, faulty, fetch, faults):
    store.put(a=BODY)
    faulty.fail("GET /a", faults.cut_after(100_000))
    assert fetch("a", attempts=2) == BODY
    assert faulty.ranges == [None, "bytes=100000-"]


def test_a_later_run_continues_a_part(store, faulty, fetch, faults):
    store.put(a=BODY)
    faulty.fail("GET /a", faults.cut_after(100_000))
    with pytest.raises(FetchError, match=r"cannot fetch .*: the connection broke before the body was complete") as caught:
        fetch("a")
    assert (caught.value.error_class, caught.value.retryable) == ("truncated", True)
    assert fetch("a") == BODY
    assert faulty.ranges == [None, "bytes=100000-"]


def test_a_part_of_an_object_that_has_changed_is_thrown_away(store, faulty, fetch, faults):
    store.put(a=BODY)
    faulty.fail("GET /a", faults.cut_after(100_000))
    with pytest.raises(FetchError):
        fetch("a")
    store.put(a=BODY[::-1])
    assert fetch("a") == BODY[::-1]
    assert faulty.ranges == [None, "bytes=100000-", None]


def test_a_body_that_is_not_what_its_entity_tag_says_is_fetched_anew(store, faulty, fetch, faults):
    store.put(a=BODY)
    faulty.fail("GET /a", faults.corrupt_answer)
    assert fetch("a", attempts=2) == BODY
    assert faulty.ranges == [None, None]


def test_a_body_that_stays_wrong_is_a_failure(store, faulty, fetch, faults, tmp_path):
    store.put(a=BODY)
    faulty.fail("GET /a", faults.corrupt_answer)
    with pytest.raises(FetchError, match=r"expected MD5|does not match the object's checksum"):
        fetch("a")
    assert not list(tmp_path.glob("downloads/*/*/*"))


@pytest.mark.parametrize(
    ("key", "error_class"),
    [("missing", "not-found"), ("", "protocol"), ("a?version=1", "protocol"), ("a#b", "protocol"), ("%ff", "protocol")],
)
def test_what_is_not_there_is_not_asked_for_again(fetch, key, error_class):
    with pytest.raises(FetchError) as caught:
        fetch(key, attempts=2)
    assert (caught.value.error_class, caught.value.retryable) == (error_class, False)


def test_a_missing_bucket_is_named(store, fetch):
    store.bucket = "no-such-bucket"
    with pytest.raises(FetchError, match="cannot fetch s3://no-such-bucket/a: there is no such bucket") as caught:
        fetch("a")
    assert caught.value.error_class == "bucket"


@pytest.mark.fault(32)
def test_wrong_credentials_are_a_matter_of_permission(store, fetch):
    store.write_credentials(store.server.endpoint_url, secret="canary")
    with pytest.raises(FetchError, match="the secret key is wrong") as caught:
        fetch("a")
    assert (caught.value.error_class, caught.value.http_status) == ("permission", 403)
    assert "canary" not in str(caught.value)


def test_no_credentials_at_all_are_asked_for(store, fetch):
    store.options = {"endpoint_url": store.server.endpoint_url}
    with pytest.raises(FetchError, match="no usable credentials; set credentials_file"):
        fetch("a")


@pytest.mark.fault(32)
@pytest.mark.parametrize(
    ("fault", "error_class"),
    [
        (("error", 503, "SlowDown"), "http-503"),
        (("error", 500, "InternalError"), "http-500"),
        (("error", 429, "TooManyRequests"), "http-429"),
        (("error", 400, "RequestTimeout"), "timeout"),
        (("drop",), "connection"),
    ],
)
def test_what_can_get_better_is_tried_again(store, faulty, fetch, faults, fault, error_class):
    store.put(a=b"x")
    name, *arguments = fault
    fault = getattr(faults, name)(*arguments) if arguments else getattr(faults, name)
    faulty.fail("GET /a", fault, fault)
    with pytest.raises(FetchError) as caught:
        fetch("a")
    assert (caught.value.error_class, caught.value.retryable) == (error_class, True)
    assert fetch("a", attempts=2) == b"x"


@pytest.mark.fault(32)
def test_a_server_that_asks_to_wait_is_obeyed(store, faulty, fetch, faults):
    faulty.fail("GET /a", faults.error(503, "SlowDown", Retry_After="7"))
    with pytest.raises(FetchError) as caught:
        fetch("a")
    assert caught.value.retry_after == 7
    assert "hidden words" not in str(caught.value)


def test_a_server_that_is_not_there_is_a_connection_error(store, fetch):
    store.write_credentials("http://127.0.0.1:1")
    with pytest.raises(FetchError, match="the connection was refused or broke") as caught:
        fetch("a")
    assert (caught.value.error_class, caught.value.retryable) == ("connection", True)


def test_what_is_no_s3_server_is_told(site, store, fetch):
    store.write_credentials(site.url)
    site.add(f"/{store.bucket}/a", "<html>")
    assert fetch("a") == b"<html>"  # any 200 response is accepted as an object
    with pytest.raises(FetchError, match="there is no such object"):
        fetch("b")


def test_a_version_is_fetched(moto, tmp_path):
    moto.client.put_bucket_versioning(Bucket=moto.bucket, VersioningConfiguration={"Status": "Enabled"})
    version = moto.client.put_object(Bucket=moto.bucket, Key="a", Body=b"old")["VersionId"]
    moto.put(a=b"new")
    fetcher = S3Fetcher(Settings(options={"s3": moto.options}))
    file = FileData(url=f"s3://{moto.bucket}/a?versionId={version}")
    path = Downloader(fetcher.settings, Workspace(tmp_path), {"s3": fetcher}).get(file, lambda: None).path
    fetcher.close()
    assert path.read_bytes() == b"old"
