"""Tests of downloads of ``file:`` URLs."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from dpp import FetchError, FileData, Settings
from dpp.download.downloader import Downloader
from dpp.download.local import LocalFetcher, local_path
from dpp.workspace.layout import Workspace


@pytest.fixture
def fetch(tmp_path):
    """Return a function that downloads a ``file:`` URL; ``fetch.waits`` has the waits between attempts in seconds."""

    def get(url, **fields):
        downloader = Downloader(Settings(), Workspace(tmp_path / "ws"), {"file": LocalFetcher(Settings())}, sleep=get.waits.append)
        return downloader.get(FileData(url=url, **fields), lambda: None)

    get.waits = []
    return get


def refused(fetch, url):
    with pytest.raises(FetchError) as caught:
        fetch(url)
    assert not [path for path in Path("ws").rglob("*") if path.is_file()]
    return caught.value.error_class


@contextmanager
def as_nobody():
    """Drop the rights of root for a while, as root may read any file."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("name", ["a.txt", "a b?c#d%e.txt", "ünï✓.csv", b"latin-\xe9.txt"])
def test_a_file_is_copied_whatever_its_name(fetch, tmp_path, name):
    source = tmp_path / os.fsdecode(name)
    source.write_bytes(b"content")
    got = fetch(source.as_uri(), sha256="ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73")
    assert (got.path.read_bytes(), got.size) == (b"content", 7)
    assert got.path != source


@pytest.mark.parametrize(
    "url", ["file:/a/b", "file:///a/b", "FILE:///a/b", "file://localhost/a/b", "file://LOCALHOST/a/b", "file:///a/b?q#f"]
)
def test_forms_of_a_local_url(url):
    assert local_path(url) == Path("/a/b")


@pytest.mark.parametrize("url", ["file://other/a", "file://localhost:80/a", "file://me@localhost/a", "file:a", "file:", "file:///a%00b"])
def test_urls_that_name_no_file_of_this_machine(fetch, url):
    assert refused(fetch, url) == "protocol"


def test_an_empty_file_is_a_file(fetch, tmp_path):
    (tmp_path / "empty").touch()
    assert fetch((tmp_path / "empty").as_uri()).size == 0


def test_a_symbolic_link_gives_what_it_leads_to(fetch, tmp_path):
    (tmp_path / "real").write_text("real")
    (tmp_path / "link").symlink_to("real")
    got = fetch((tmp_path / "link").as_uri())
    assert got.path.read_text() == "real"
    assert not got.path.is_symlink()


@pytest.mark.parametrize(
    ("make", "error_class"),
    [
        (lambda path: None, "not-found"),
        (lambda path: path.mkdir(), "not-a-file"),
        (os.mkfifo, "not-a-file"),
        (lambda path: path.symlink_to("/dev/zero"), "not-a-file"),
        (lambda path: path.symlink_to("nowhere"), "not-found"),
    ],
    ids=["missing", "folder", "fifo", "device", "dangling"],
)
def test_what_is_no_file_fails_at_once_and_leaves_nothing(fetch, tmp_path, make, error_class):
    make(tmp_path / "x")
    assert refused(fetch, (tmp_path / "x").as_uri()) == error_class
    assert fetch.waits == []


def linked(tmp_path, target):
    (tmp_path / "link").symlink_to(target)
    return tmp_path / "link"


@pytest.mark.parametrize(
    "make",
    [
        lambda _: Path("/proc/self/environ"),
        lambda _: Path("/sys/kernel/mm/transparent_hugepage/enabled"),
        lambda tmp_path: linked(tmp_path, "/proc/self/environ"),
        lambda tmp_path: linked(tmp_path, "/proc") / "version",
        lambda tmp_path: tmp_path / "../../../../../../proc/version",
    ],
    ids=["proc", "sys", "link", "folder", "dots"],
)
def test_a_file_of_the_system_is_refused(fetch, tmp_path, make):
    path = make(tmp_path)
    assert path.exists()
    assert refused(fetch, f"file://{path}") == "refused"
    assert fetch.waits == []


def test_a_file_of_the_workspace_is_refused_and_one_beside_its_folders_is_not(tmp_path):
    (tmp_path / "ws/downloads").mkdir(parents=True)
    for name in ("ws/downloads/a", "ws/b"):
        (tmp_path / name).write_text("content")
    fetcher = LocalFetcher(Settings(workspace=tmp_path / "ws"))
    downloader = Downloader(fetcher.settings, Workspace(tmp_path / "other"), {"file": fetcher})
    assert downloader.get(FileData(url=(tmp_path / "ws/b").as_uri()), lambda: None).size == 7
    with pytest.raises(FetchError, match="downloads/a is in the workspace, so it is no source"):
        downloader.get(FileData(url=(tmp_path / "ws/downloads/a").as_uri()), lambda: None)


def test_a_file_that_may_not_be_read_is_a_failure(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0)
    with as_nobody(), pytest.raises(FetchError) as caught:
        LocalFetcher(Settings()).fetch(secret.as_uri(), FileData(url=secret.as_uri()), None)
    assert (caught.value.error_class, caught.value.retryable) == ("permission", False)


def test_an_error_of_the_source_is_tried_again(fetch, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert refused(fetch, (tmp_path / "loop").as_uri()) == "read"
    assert len(fetch.waits) == 2


@pytest.mark.parametrize("text", [b"x" * 20, b"y" * 10, b""])
def test_a_file_that_is_written_while_it_is_copied_is_a_failure(tmp_path, text):
    source = tmp_path / "log"
    source.write_bytes(b"x" * 10)
    os.utime(source, (1, 1))

    class Growing(LocalFetcher):
        def fetch(self, url, file, part):
            begin = part.begin

            def begin_and_grow(*args, **facts):
                begin(*args, **facts)
                source.write_bytes(text)

            part.begin = begin_and_grow
            super().fetch(url, file, part)

    downloader = Downloader(Settings(attempts=1), Workspace(tmp_path / "ws"), {"file": Growing(Settings())})
    with pytest.raises(FetchError, match="log was changed while it was copied") as caught:
        downloader.get(FileData(url=source.as_uri()), lambda: None)
    assert (caught.value.error_class, caught.value.retryable) == ("changed", True)


@pytest.mark.parametrize(("text", "seconds"), [("new and longer", 1), ("other", 2)])
def test_a_file_that_was_rewritten_is_copied_again(fetch, tmp_path, text, seconds):
    source = tmp_path / "a"
    source.write_text("first")
    os.utime(source, (1, 1))
    fetch(source.as_uri())
    source.write_text(text)
    os.utime(source, (1, seconds))
    assert fetch(source.as_uri()).path.read_text() == text


def test_a_rewritten_file_is_new_under_each_of_its_names(fetch, tmp_path):
    source = tmp_path / "a"
    source.write_text("first")
    for name in "xy":
        fetch(source.as_uri(), name=name)
    source.write_text("second")
    assert [fetch(source.as_uri(), name=name).path.read_text() for name in "xy"] == ["second", "second"]


def test_a_file_that_is_gone_counts_as_unchanged(fetch, tmp_path):
    source = tmp_path / "a"
    source.write_text("first")
    first = fetch(source.as_uri())
    source.unlink()
    assert fetch(source.as_uri()) == first


def test_a_local_source_in_many_threads_is_copied_once(tmp_path):
    (tmp_path / "a").write_text("a")
    attempts = []
    downloader = Downloader(Settings(), Workspace(tmp_path / "ws"), {"file": LocalFetcher(Settings())})
    file = FileData(url=(tmp_path / "a").as_uri())
    threads = [threading.Thread(target=downloader.get, args=(file, lambda: attempts.append(1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(attempts) == 1


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.ETIMEDOUT, errno.EREMOTEIO], ids=errno.errorcode.get)
def test_a_source_whose_file_server_is_gone_is_tried_again(fetch, tmp_path, monkeypatch, number):
    def refusing_open(path, *arguments):
        if path == tmp_path / "a":
            raise OSError(number, os.strerror(number))
        return really_open(path, *arguments)

    (tmp_path / "a").write_text("a")
    really_open = os.open
    monkeypatch.setattr(os, "open", refusing_open)
    with pytest.raises(FetchError, match=f"cannot read {tmp_path}/a: {os.strerror(number)}") as caught:
        fetch((tmp_path / "a").as_uri())
    assert (caught.value.error_class, len(fetch.waits)) == ("read", Settings().attempts - 1)


def test_another_version_than_the_expected_one_is_refused(fetch, tmp_path):
    (tmp_path / "a.csv").write_text("new")
    url = (tmp_path / "a.csv").as_uri()
    with pytest.raises(
        FetchError, match=r"the source has version 3-\d+, the list names 3-17: it was replaced after it was listed"
    ) as caught:
        fetch(url, expect_version="3-17")
    assert (caught.value.error_class, fetch.waits) == ("changed", [])


def test_versions_of_one_url_are_kept_apart(fetch, tmp_path):
    path, found = tmp_path / "a.csv", []
    for text in ("old", "new"):
        path.write_text(text)
        os.utime(path, ns=(0, len(found)))
        found.append(fetch(path.as_uri(), expect_version=f"3-{len(found)}"))
    assert [download.path.read_text() for download in found] == ["old", "new"]
    assert fetch(path.as_uri(), expect_version="3-0").path == found[0].path
