"""Tests of partial downloads: which are continued, discarded and published."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
from dpp import EnvironmentStop, FileData, StageError
from dpp.download.partial import WORTH_CONTINUING, PartFile
from dpp.workspace.layout import DownloadPaths

URL = "http://host/a.bin"
BIG = WORTH_CONTINUING


@pytest.fixture
def paths(tmp_path):
    return DownloadPaths(str(tmp_path), "a.bin")


def opened(paths, url=URL):
    part = PartFile(paths)
    part.open_for(url)
    return part


def left_behind(paths, data=b"abc", **facts):
    """Leave a part as a killed run does: without suspend."""
    part = opened(paths)
    part.begin(0, **{"etag": '"v1"', "total": BIG, **facts})
    part.write(data)
    part.close()


def names_in(paths):
    return sorted(os.listdir(paths.folder))


def test_a_part_is_published_with_digest_and_facts_and_nothing_else_is_left(paths):
    part = opened(paths)
    part.begin(0, total=6, etag='"v1"', content_type="text/csv", last_modified=None)
    part.write(b"abc")
    part.write(b"def")
    sidecar = part.publish(FileData(url="http://me:pw@host/a.bin?sig=1"))
    assert sidecar == {
        "mtime_ns": Path(paths.body).stat().st_mtime_ns,
        "url": "http://***@host/a.bin?***",
        "size": 6,
        "sha256": hashlib.sha256(b"abcdef").hexdigest(),
        "etag": '"v1"',
        "content_type": "text/csv",
        "media_type": "text/csv",
    }
    assert json.loads(Path(paths.sidecar).read_text()) == sidecar
    assert Path(paths.body).read_bytes() == b"abcdef"
    assert names_in(paths) == ["a.bin", "a.bin.dpp.json"]


def test_a_part_of_a_killed_run_is_continued_and_digested_as_a_whole(paths):
    left_behind(paths)
    part = opened(paths)
    assert (part.offset, part.etag) == (3, '"v1"')
    part.begin(3, total=6, etag='"v1"')
    part.write(b"def")
    assert part.publish(FileData(url=URL))["sha256"] == hashlib.sha256(b"abcdef").hexdigest()
    assert names_in(paths) == ["a.bin", "a.bin.dpp.json"]


def test_what_lies_behind_the_offset_is_cut_off(paths):
    left_behind(paths, b"abcdef")
    part = opened(paths)
    part.begin(2, total=3, etag='"v1"')
    part.write(b"X")
    part.publish(FileData(url=URL))
    assert Path(paths.body).read_bytes() == b"abX"


def test_a_new_password_does_not_make_it_another_source(paths):
    left_behind(paths)
    assert opened(paths, "http://me:new@host/a.bin#x").offset == 3


@pytest.mark.parametrize("url", ["http://other/a.bin", "http://host/a.bin?v=2", "https://host/a.bin"])
def test_a_part_of_another_source_is_not_continued(paths, url):
    left_behind(paths)
    assert opened(paths, url).offset == 0


@pytest.mark.parametrize("facts", [None, "", "{", "[1]", "7", "null", '{"etag": "\\"v1\\""}'])
def test_garbage_without_proper_facts_is_never_taken(paths, facts):
    Path(paths.part).write_bytes(b"garbage")
    if facts is not None:
        Path(paths.part_facts).write_text(facts)
    part = opened(paths)
    assert part.offset == 0
    part.begin(0)
    part.write(b"new")
    part.publish(FileData(url=URL))
    assert Path(paths.body).read_bytes() == b"new"
    assert names_in(paths) == ["a.bin", "a.bin.dpp.json"]


def test_facts_without_a_part_are_nothing_to_continue_from(paths):
    left_behind(paths)
    Path(paths.part).unlink()
    assert opened(paths).offset == 0


@pytest.mark.parametrize("facts", [{"etag": None}, {"etag": '"v2"', "total": 3}])
def test_facts_of_earlier_bytes_do_not_survive_beside_new_ones(paths, facts):
    left_behind(paths, b"old")
    left_behind(paths, b"new, and killed again", **facts)
    assert opened(paths).offset == 0


def test_facts_of_a_small_part_are_written_only_when_it_is_left(paths):
    part = opened(paths)
    part.begin(0, total=BIG - 1, etag='"v1"')
    part.write(b"abc")
    assert names_in(paths) == ["a.bin.part"]
    part.suspend()
    assert opened(paths).offset == 3


def test_a_small_part_that_took_the_place_of_another_is_left_with_its_own_facts(paths):
    left_behind(paths, b"old")
    part = opened(paths)
    part.begin(0, total=10, etag='"v2"')
    part.write(b"newer")
    part.suspend()
    assert (opened(paths).offset, opened(paths).etag) == (5, '"v2"')


@pytest.mark.parametrize("total", [BIG, None])
def test_facts_of_a_large_part_are_written_at_once(paths, total):
    left_behind(paths, total=total)
    assert names_in(paths) == ["a.bin.part", "a.bin.part.dpp.json"]


def test_a_part_that_cannot_be_continued_is_not_left(paths):
    part = opened(paths)
    part.begin(0, total=BIG)
    part.write(b"abc")
    part.suspend()
    assert names_in(paths) == []


def test_a_suspended_part_can_be_suspended_again(paths):
    left_behind(paths)
    opened(paths).suspend()
    assert opened(paths).offset == 3


@pytest.mark.parametrize(
    ("total", "expected", "error_class"),
    [
        (4, {}, "truncated"),
        (2, {}, "truncated"),
        (None, {"size": 4}, "size"),
        (3, {"size": 2}, "size"),
        (3, {"sha256": "0" * 64}, "checksum"),
    ],
)
def test_what_is_not_as_expected_is_not_published_and_not_kept(paths, total, expected, error_class):
    part = opened(paths)
    part.begin(0, total=total, etag='"v1"')
    part.write(b"abc")
    with pytest.raises(StageError) as caught:
        part.publish(FileData(url=URL, **expected))
    assert caught.value.error_class == error_class
    assert names_in(paths) == []


def test_what_the_manifest_expects_is_published(paths):
    part = opened(paths)
    part.begin()
    part.write(b"abc")
    part.publish(FileData(url=URL, size=3, sha256=hashlib.sha256(b"abc").hexdigest().upper()))
    assert Path(paths.body).read_bytes() == b"abc"


def test_a_publish_takes_the_place_of_an_older_file(paths):
    Path(paths.body).write_bytes(b"older and longer")
    Path(paths.sidecar).write_text('{"size": 16}')
    part = opened(paths)
    part.begin()
    part.write(b"abc")
    part.publish(FileData(url=URL))
    assert (Path(paths.body).read_bytes(), json.loads(Path(paths.sidecar).read_text())["size"]) == (b"abc", 3)


def test_a_large_part_is_digested_block_by_block(paths):
    data = os.urandom(2 * 1024 * 1024 + 1)
    left_behind(paths, data)
    part = opened(paths)
    part.begin(len(data), total=len(data) + 1, etag='"v1"')
    part.write(b"!")
    assert part.publish(FileData(url=URL))["sha256"] == hashlib.sha256(data + b"!").hexdigest()


def test_nothing_is_written_or_published_before_it_is_begun(paths):
    for use in (lambda: opened(paths).write(b"x"), lambda: opened(paths).publish(FileData(url=URL))):
        with pytest.raises(AssertionError, match="begin"):
            use()


def test_a_folder_in_the_way_stops_the_run(paths):
    Path(paths.part).mkdir()
    with pytest.raises(EnvironmentStop, match=r"a\.bin\.part"):
        opened(paths).begin()


def test_a_full_disk_stops_the_run(paths, monkeypatch):
    part = opened(paths)
    part.begin()

    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(EnvironmentStop, match="the disk is full"):
        part.write(b"abc")
    monkeypatch.undo()
    part.suspend()
    assert names_in(paths) == []


def test_more_bytes_than_allowed_fail_and_leave_nothing(paths):
    part = PartFile(paths, max_bytes=5)
    part.begin(0)
    with pytest.raises(StageError, match=r"expected at most 5 bytes \(max_bytes, .*, got at least 6") as caught:
        part.write(b"abcdef")
    assert caught.value.error_class == "too-large"
    assert names_in(paths) == []


def test_an_announced_size_beyond_the_limit_fails_before_anything_is_written(paths):
    with pytest.raises(StageError, match="at most 5 bytes"):
        PartFile(paths, max_bytes=5).begin(0, total=6)


def test_a_size_in_the_manifest_beyond_the_limit_fails_before_anything_is_written(paths):
    part = PartFile(paths, 6, max_bytes=5)
    with pytest.raises(StageError, match="at most 5 bytes"):
        part.begin(0)
