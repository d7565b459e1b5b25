"""Tests of attempts, waits, mirrors, and of downloads that several files share."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path

import pytest
from dpp import BaseFetcher, EnvironmentStop, FetchError, FileData, Settings, StageError, media
from dpp.download import downloader as module
from dpp.download.complete import load_download
from dpp.download.downloader import Downloader
from dpp.download.http_fetcher import RequestsFetcher
from dpp.workspace.layout import Workspace

from http_site import cut, serve_file, status

BODY = b"content of a file"
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def make(tmp_path):
    """Return a function that makes a downloader, which records its attempts and waits and does not wait."""
    made = []

    def downloader(fetcher=None, **settings):
        settings = Settings(**settings)
        fetcher = fetcher or RequestsFetcher(settings)
        made.append(fetcher)
        waits = []
        one = Downloader(settings, Workspace(tmp_path / "ws"), {"http": fetcher, "x": fetcher}, waits.append)
        one.waits, one.attempts = waits, []
        one.fetch = lambda url, **fields: one.get(FileData(url=url, **fields), lambda: one.attempts.append(url))
        return one

    yield downloader
    for fetcher in made:
        fetcher.close()


def left():
    return sorted(path.name for path in Path("ws").rglob("*") if path.is_file())


def test_a_download_that_is_there_is_not_fetched_again(site, make):
    url = site.add("/a", BODY)
    first = make().fetch(url)
    assert make().fetch(url) == first
    assert (first.path.read_bytes(), first.size, first.sha256) == (BODY, len(BODY), SHA256)
    assert site.counts() == {"/a": 1}


@pytest.mark.parametrize(
    "damage",
    [
        lambda body, sidecar: body.write_bytes(b""),
        lambda body, sidecar: body.write_bytes(BODY[:-1]),
        lambda body, sidecar: body.unlink(),
        lambda body, sidecar: sidecar.unlink(),
        lambda body, sidecar: sidecar.write_text('{"size": 1'),
        lambda body, sidecar: sidecar.write_text("[]"),
        lambda body, sidecar: sidecar.write_text("{}"),
        lambda body, sidecar: sidecar.write_text('{"size": null, "sha256": "a"}'),
        lambda body, sidecar: sidecar.write_text(json.dumps({"size": len(BODY), "sha256": None})),
    ],
)
def test_a_download_that_was_damaged_is_fetched_again(site, make, damage):
    url = site.add("/a", BODY)
    path = make().fetch(url).path
    damage(path, path.with_name("a.dpp.json"))
    assert make().fetch(url).path.read_bytes() == BODY
    assert site.counts() == {"/a": 2}
    assert left() == ["a", "a.dpp.json"]


@pytest.mark.parametrize(("expected", "error_class"), [({"size": 5}, "size"), ({"sha256": "0" * 64}, "checksum")])
def test_another_expectation_of_the_manifest_makes_it_fetched_again(site, make, expected, error_class):
    url = site.add("/a", BODY)
    make().fetch(url)
    with pytest.raises(StageError) as caught:
        make().fetch(url, **expected)
    assert (caught.value.error_class, site.counts()["/a"]) == (error_class, 2)


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha224", "sha384", "sha512"])
def test_each_digest_of_the_manifest_is_verified_and_recorded(site, make, algorithm):
    url = site.add("/a", BODY)
    digest = hashlib.new(algorithm, BODY).hexdigest()
    got = make().fetch(url, digests={algorithm: digest})
    assert json.loads(got.path.with_name("a.dpp.json").read_text())["digests"] == {algorithm: digest} == got.digests
    with pytest.raises(StageError, match=f"expected {algorithm} 0+ \\(manifest\\), got {digest}") as caught:
        make().fetch(site.add("/b", BODY), digests={algorithm: "0" * len(digest)})
    assert caught.value.error_class == "checksum"


def test_only_digests_that_are_asked_for_are_computed(site, make):
    got = make().fetch(site.add("/a", BODY))
    assert "digests" not in json.loads(got.path.with_name("a.dpp.json").read_text())


def test_a_download_is_compared_with_a_digest_that_it_was_not_verified_with(site, make):
    url = site.add("/a", BODY)
    sidecar = make().fetch(url).path.with_name("a.dpp.json")
    right = {"md5": hashlib.md5(BODY, usedforsecurity=False).hexdigest()}
    make().fetch(url, digests=right)
    assert site.counts() == {"/a": 1}
    assert json.loads(sidecar.read_text())["digests"] == right
    with pytest.raises(StageError, match=r"expected md5 0+ "):
        make().fetch(url, digests={"md5": "0" * 32})
    assert site.counts() == {"/a": 2}


def test_a_part_that_is_continued_has_the_digests_of_all_its_bytes(site, make):
    body = BODY * 10_000
    md5 = hashlib.md5(body, usedforsecurity=False).hexdigest()
    site.script("/a", cut(body, 100_000, etag=f'"{md5}"'), serve_file)
    make().fetch(site.add("/a", body), digests={"md5": md5})
    assert [headers.get("range") for headers in site.headers("/a")] == [None, "bytes=100000-"]


def test_what_the_manifest_expects_is_taken_from_the_sidecar(site, make, tmp_path):
    url = site.add("/a", BODY)
    make().fetch(url)
    file = FileData(url=url, size=len(BODY), sha256=SHA256)
    assert load_download(Workspace(tmp_path / "ws").download(file), file).size == len(BODY)


def test_a_wrong_digest_is_no_file_and_not_tried_again(site, make):
    downloader = make()
    with pytest.raises(StageError, match=rf"expected sha256 {'0' * 64} \(manifest\), got {SHA256}"):
        downloader.fetch(site.add("/a", BODY), sha256="0" * 64)
    assert (len(downloader.attempts), downloader.waits, left()) == (1, [], [])


@pytest.mark.parametrize("attempts", [1, 3, 5])
def test_attempts_are_bounded(site, make, attempts):
    downloader = make(attempts=attempts)
    with pytest.raises(FetchError) as caught:
        downloader.fetch(site.script("/a", status(503)))
    assert (caught.value.error_class, caught.value.http_status) == ("http-503", 503)
    assert (len(downloader.attempts), len(downloader.waits), site.counts()["/a"]) == (attempts, attempts - 1, attempts)


def test_three_attempts_are_the_default(site, make):
    downloader = make()
    downloader.fetch(site.script("/a", cut(BODY, 3, None), cut(BODY, 3, None), status(200, BODY)))
    assert len(downloader.attempts) == 3


class Failing(BaseFetcher):
    """Return a fetcher that raises a retryable error, or the given one."""

    error = FetchError("down", "connection", retryable=True)

    def fetch(self, url, file, part):
        raise self.error


def waits_of(downloader):
    with pytest.raises(FetchError):
        downloader.fetch("x:/a")
    return downloader.waits


def test_waits_double_with_jitter_up_to_a_limit(make):
    runs = [waits_of(make(Failing(None), attempts=6, retry_wait=1, retry_wait_max=5)) for _ in range(200)]
    for number, limit in enumerate([1, 2, 4, 5, 5]):
        waits = [run[number] for run in runs]
        assert 0 <= min(waits) < limit * 0.2
        assert limit * 0.8 < max(waits) <= limit


@pytest.mark.fault(7)
@pytest.mark.parametrize(
    ("header", "lowest", "highest"),
    [("7", 7, 7), ("0", 0, 0), ("86400", 60, 60), ("junk", 0, 0.5), ("-1", 0, 0.5), (formatdate(0, usegmt=True), 0, 0)],
)
def test_retry_after_is_obeyed_up_to_a_cap(site, make, header, lowest, highest):
    downloader = make()
    downloader.fetch(site.script("/a", status(429, Retry_After=header), status(200, BODY)))
    assert lowest <= downloader.waits[0] <= highest


@pytest.mark.fault(7)
def test_retry_after_as_a_date_is_obeyed(site, make):
    downloader, began = make(), time.time()
    later = int(began) + 50
    downloader.fetch(site.script("/a", status(503, Retry_After=formatdate(later, usegmt=True)), status(200, BODY)))
    assert later - time.time() <= downloader.waits[0] <= later - began


@pytest.mark.fault(7)
def test_the_cap_of_retry_after_is_a_setting(site, make):
    downloader = make(retry_after_max=2)
    downloader.fetch(site.script("/a", status(503, Retry_After="3"), status(200, BODY)))
    assert downloader.waits == [2]


@pytest.mark.parametrize("error", [ValueError("a bug"), StageError("no", "own"), FetchError("no", "own"), KeyboardInterrupt()])
def test_an_error_that_cannot_get_better_ends_it_at_once(make, error):
    fetcher = Failing(None)
    fetcher.error = error
    downloader = make(fetcher)
    with pytest.raises(type(error)) as caught:
        downloader.fetch("x:/a")
    assert caught.value is error
    assert (len(downloader.attempts), left()) == (1, [])


def test_mirrors_are_tried_in_order_each_with_its_own_attempts(site, make):
    downloader = make(attempts=2)
    urls = [site.script("/a", status(503)), site.script("/b", status(404)), site.add("/c", BODY), site.add("/d", BODY)]
    got = downloader.fetch(urls[0], urls=urls[1:])
    assert (got.path.read_bytes(), got.path.name) == (BODY, "a")
    assert downloader.attempts == [urls[0]] * 4
    assert [path for path, _ in site.requests] == ["/a", "/a", "/b", "/c"]


def test_a_mirror_takes_over_from_a_source_with_another_content(site, make):
    site.add("/a", "changed")
    got = make().fetch(site.url + "/a", urls=[site.add("/b", BODY)], sha256=SHA256)
    assert got.path.read_bytes() == BODY
    assert left() == ["a", "a.dpp.json"]


def test_the_part_of_one_source_is_not_continued_from_another(site, make):
    site.script("/a", cut(b"x" * 100_000, 5))
    site.script("/b", status(200, BODY, ETag='"v1"'))
    assert make(attempts=1).fetch(site.url + "/a", urls=[site.url + "/b"]).path.read_bytes() == BODY
    assert "range" not in site.headers("/b")[0]


def test_the_error_of_the_last_mirror_is_the_files_own(site, make, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(FetchError) as caught:
        make().fetch(site.script("/a?k=secret", status(410)), urls=[site.script("/b", status(403))])
    assert caught.value.http_status == 403
    assert "the server responded with 410; trying the next mirror" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("ids", [("one", "two"), ("one", "one")])
def test_one_url_is_downloaded_once_whatever_it_is_called(site, make, ids):
    url = site.add("/a", BODY)
    downloader = make()
    assert downloader.fetch(url, id=ids[0]) == downloader.fetch(url, id=ids[1])
    assert site.counts() == {"/a": 1}


def test_one_url_under_two_names_is_downloaded_once(site, make):
    url = site.add("/a", BODY)
    downloader = make()
    first, second = downloader.fetch(url, name="one"), downloader.fetch(url, name="two")
    assert (first.path.name, second.path.name, second.path.read_bytes()) == ("one", "two", BODY)
    assert site.counts() == {"/a": 1}
    assert left() == ["one", "one.dpp.json", "two", "two.dpp.json"]


def test_a_damaged_download_under_another_name_is_not_shared(site, make):
    url = site.add("/a", BODY)
    downloader = make()
    downloader.fetch(url, name="one").path.write_bytes(b"")
    assert downloader.fetch(url, name="two").path.read_bytes() == BODY
    assert site.counts() == {"/a": 2}


def test_one_url_is_downloaded_once_by_threads_that_ask_at_once(site, make):
    together = threading.Barrier(8)
    url = site.add("/a", bytes(1_000_000))
    downloaders = [make() for _ in range(8)]

    def fetch(downloader):
        together.wait(60)
        return downloader.fetch(url)

    with ThreadPoolExecutor(8) as threads:
        got = list(threads.map(fetch, downloaders))
    assert len(set(got)) == 1
    assert site.counts() == {"/a": 1}


def test_a_failed_download_does_not_keep_others_from_it(site, make):
    url = site.script("/a", status(404), status(200, BODY))
    with pytest.raises(FetchError):
        make().fetch(url)
    assert make().fetch(url).path.read_bytes() == BODY


@pytest.mark.fault(21)
@pytest.mark.parametrize("facts", [None, "{}", "[]", '{"source": "x", "etag": "\\"v1\\""}'])
def test_a_stale_part_is_never_taken(site, make, tmp_path, facts):
    url = site.add("/a", BODY)
    paths = Workspace(tmp_path / "ws").download(FileData(url=url))
    Path(paths.folder).mkdir(parents=True)
    Path(paths.part).write_bytes(b"garbage")
    if facts:
        Path(paths.part_facts).write_text(facts)
    assert make().fetch(url).path.read_bytes() == BODY
    assert "range" not in site.headers("/a")[0]
    assert left() == ["a", "a.dpp.json"]


def test_a_part_of_an_earlier_run_is_continued_although_the_source_was_cut_many_times(site, make):
    url = site.script("/a", cut(BODY, 4))
    with pytest.raises(FetchError):
        make(attempts=1).fetch(url)
    for start in range(4, len(BODY) - 1):
        head = {"ETag": '"v1"', "Content_Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}", "Content_Length": len(BODY) - start}
        site.script("/a", lambda handler, start=start, head=head: cut_reply(handler, BODY[start : start + 1], head))
        with pytest.raises(FetchError):
            make(attempts=1).fetch(url)
    start = len(BODY) - 1
    site.script("/a", status(206, BODY[start:], ETag='"v1"', Content_Range=f"bytes {start}-{start}/{len(BODY)}"))
    assert make(attempts=1).fetch(url).sha256 == SHA256


def cut_reply(handler, body, headers):
    handler.close_connection = True
    handler.send(206, body, **headers)


def test_simulated_downloads_need_no_server_and_wait_a_little(make):
    downloader = make(simulate_downloads=True)
    got = downloader.fetch("http://127.0.0.1:9/a.txt", size=1, sha256="0" * 64)
    assert got.path.read_text() == "simulated download of a\n"
    assert got.size == len("simulated download of a\n")
    assert len(downloader.attempts) == 1
    assert 1 <= downloader.waits[0] <= 3


def test_simulated_downloads_do_not_wait_where_the_environment_says_so(make, monkeypatch):
    monkeypatch.setenv(module.NO_SLEEP_VARIABLE, "1")
    downloader = make(simulate_downloads=True)
    downloader.fetch("http://127.0.0.1:9/a.txt")
    assert downloader.waits == []


class Versioned(BaseFetcher):
    """A fetcher of sources whose versions a test sets by URL; an exception is raised."""

    def __init__(self, **versions):
        super().__init__(Settings())
        self.versions = {f"http://{name}/": version for name, version in versions.items()}
        self.asked = []

    def fetch(self, url, file, part):
        if self.versions[url] is None:
            raise FetchError("gone", "not-found")
        part.begin(source_version=self.versions[url])
        part.write(self.versions[url].encode())

    def source_version(self, url, file):
        self.asked.append(url)
        if isinstance(self.versions[url], Exception):
            raise self.versions[url]
        return self.versions[url]


def test_a_source_with_another_version_is_fetched_again(make):
    fetcher = Versioned(a="1")
    first = make(fetcher).fetch("http://a/")
    assert make(fetcher).fetch("http://a/") == first
    fetcher.versions["http://a/"] = "2"
    assert make(fetcher).fetch("http://a/").path.read_text() == "2"


def test_a_source_without_a_download_is_not_asked_for_its_version(make):
    fetcher = Versioned(a="1")
    make(fetcher).fetch("http://a/")
    assert fetcher.asked == []


def test_what_came_from_a_mirror_is_compared_with_the_mirror(make):
    fetcher = Versioned(a=None, b="1")
    first = make(fetcher).fetch("http://a/", urls=["http://b/"])
    assert make(fetcher).fetch("http://a/", urls=["http://b/"]) == first
    fetcher.versions["http://a/"] = "of the other"
    assert make(fetcher).fetch("http://a/", urls=["http://b/"]) == first
    fetcher.versions["http://b/"] = "2"
    assert make(fetcher).fetch("http://a/", urls=["http://b/"]).path.read_text() == "of the other"


@pytest.mark.parametrize(
    ("error", "times"), [(FetchError("down", "connection", retryable=True), 1), (FetchError("no", "permission"), 3), (ValueError("bug"), 3)]
)
def test_a_source_that_cannot_be_asked_counts_as_unchanged_with_one_warning(make, caplog, error, times):
    fetcher = Versioned(a="1")
    first = make(fetcher).fetch("http://a/")
    fetcher.versions["http://a/"] = error
    later = make(fetcher)
    assert [later.fetch("http://a/") for _ in range(3)] == [first] * 3
    assert len(fetcher.asked) == times
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "files of a have changed, so they count as unchanged" in warnings[0]


def test_the_environment_still_stops_the_run_while_a_version_is_asked_for(make):
    fetcher = Versioned(a="1")
    make(fetcher).fetch("http://a/")
    fetcher.versions["http://a/"] = EnvironmentStop("no more")
    with pytest.raises(EnvironmentStop):
        make(fetcher).fetch("http://a/")


def test_a_download_with_another_time_is_read_once_and_kept(site, make):
    url = site.add("/a", BODY)
    path = make().fetch(url).path
    os.utime(path, (1, 1))
    assert make().fetch(url).path == path
    assert json.loads(path.with_name("a.dpp.json").read_text())["mtime_ns"] == 1_000_000_000
    assert site.counts() == {"/a": 1}


def test_a_download_that_was_written_to_is_fetched_again(site, make):
    url = site.add("/a", BODY)
    make().fetch(url).path.write_bytes(BODY[::-1])
    assert make().fetch(url).path.read_bytes() == BODY
    assert site.counts() == {"/a": 2}


PAGE = b"<!DOCTYPE html><title>Sign in</title>"


def typed(body, content_type=None):
    """Return a response with a body and a Content-Type."""
    return lambda handler: handler.send(200, body, **({"Content_Type": content_type} if content_type else {}))


@pytest.mark.parametrize(
    ("body", "stated", "wanted", "fine"),
    [
        (b"x", "application/pdf; v=1", "application/pdf", True),
        (b"%PDF-", "application/octet-stream", "application/pdf", True),
        (b"%PDF-", None, "image/*,application/pdf", True),
        (PAGE, "text/html", "application/pdf", False),
        (PAGE, "application/pdf", "application/pdf", False),
        (b"x", None, "application/pdf", False),
    ],
)
def test_a_file_of_another_type_than_expected_fails_at_once(site, make, body, stated, wanted, fine):
    url = site.script("/a", *[typed(body, stated)] * 3)
    downloader = make(expect_type=wanted)
    if fine:
        assert media.fits(downloader.fetch(url).media_type, wanted)
        return
    with pytest.raises(StageError, match=r"expected .* \(expect_type\), got ") as caught:
        downloader.fetch(url)
    assert (caught.value.error_class, site.counts()["/a"], left()) == ("media-type", 1, [])


def test_the_manifest_wins_over_the_setting_and_a_mirror_may_have_the_right_type(site, make):
    url = site.script("/a", typed(PAGE, "text/html"))
    mirror = site.script("/b", typed(b"%PDF-", "application/pdf"))
    got = make(expect_type="text/csv").fetch(url, urls=[mirror], expect_type="application/pdf")
    assert (got.content_type, got.media_type) == ("application/pdf", "application/pdf")


def test_a_download_of_another_type_than_expected_is_fetched_again(site, make):
    url = site.script("/a", typed(PAGE, "text/html"), typed(b"%PDF-", "application/pdf"))
    make().fetch(url)
    assert make(expect_type="application/pdf").fetch(url).media_type == "application/pdf"


def test_the_first_bytes_of_a_continued_part_count(site, make):
    body = PAGE + b" " * 200_000
    site.script("/a", cut(body, 100_000), typed(body, "application/pdf"))
    assert make().fetch(f"{site.url}/a").media_type == "text/html"
