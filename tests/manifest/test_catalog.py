"""Tests of the catalog: duplicates, conflicts, derived ids, and chunks."""

from __future__ import annotations

import logging
import stat

import pytest
from dpp import EnvironmentStop, FileData, ManifestError
from dpp.errors import SHOWN_PROBLEMS
from dpp.manifest.catalog import Chunk, read_catalog, write_catalog
from dpp.manifest.entries import listed
from dpp.names import digest, file_key, identity
from dpp.shards import Census, Shard
from hypothesis import example, given
from hypothesis import strategies as st

SCHEMES = {"https", "file"}


@pytest.fixture
def catalog(tmp_path):
    """Write a catalog of these entries, and read it back."""

    def make(entries, chunk_size: int = 1000) -> list[FileData]:
        path = tmp_path / "files.jsonl"
        chunks = write_catalog(path, "x.json", listed(entries), SCHEMES, lambda total: chunk_size)
        return [file for chunk in chunks for file in read_catalog(path, chunk)]

    return make


def marked(name: str, url: str) -> str:
    return f"{name}-{digest(identity(url), digits=8)}"


def test_files_come_back_as_they_went_in(catalog):
    entry = {
        "url": "https://me:pw@h/a?x=1",
        "id": 5,
        "name": "n",
        "size": 0,
        "headers": {"A": "b"},
        "urls": [],
        "schema": [1],
        "copy": None,
    }
    assert catalog([entry]) == [FileData.model_validate(entry)]


@pytest.mark.parametrize(("total", "size"), [(0, 3), (1, 3), (3, 3), (7, 3), (7, 1), (7, 100)])
def test_chunks_cover_all_files_in_order(tmp_path, total, size):
    entries = [{"url": f"https://h/{n}", "note": "ü🙂" * n} for n in range(total)]
    asked = []
    chunks = write_catalog(tmp_path / "c", "x", listed(entries), SCHEMES, lambda count: asked.append(count) or size)
    found = [[file.id for file in read_catalog(tmp_path / "c", chunk)] for chunk in chunks]
    assert found == [[str(n) for n in range(total)[start : start + size]] for start in range(0, total, size)]
    assert asked == [total]


def test_only_its_owner_may_read_it(tmp_path):
    write_catalog(tmp_path / "c", "x", listed([{"url": "https://me:pw@h/a"}]), SCHEMES, lambda total: 1)
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o600


def test_exact_duplicates_are_dropped_with_a_warning(catalog, caplog):
    with caplog.at_level(logging.WARNING, "dpp"):
        files = catalog(
            [{"url": "https://h/a"}, {"url": "https://h/a"}, {"url": "https://h/b", "id": 1}, {"id": "1", "url": "https://h/b"}]
        )
    assert [file.id for file in files] == ["a", "1"]
    assert caplog.messages == ["x.json: dropped 2 exact duplicates"]


def test_no_duplicates_no_warning(catalog, caplog):
    catalog([{"url": "https://h/a"}, {"url": "https://h/b"}])
    assert not caplog.messages


@pytest.mark.parametrize("other", [{"url": "https://h/b"}, {"url": "https://h/a", "size": 5}, {"url": "https://h/a", "tag": "x"}])
def test_one_given_id_for_two_files_is_an_error(catalog, other):
    with pytest.raises(ManifestError) as caught:
        catalog([{"url": "https://h/a", "id": "same"}, {"id": "same", **other}])
    assert caught.value.problems == ["entry 1: id 'same' was used before with another URL or other fields; give each file its own id"]


def test_problems_and_conflicts_are_reported_together_and_nothing_follows(catalog):
    entries = [{"url": "https://h/a", "id": 1}, {"url": "nope"}, {"url": "https://h/b", "id": 1}, {"id": 2}, {"url": "https://h/c"}]
    with pytest.raises(ManifestError) as caught:
        catalog(entries)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["entry 1", "entry 2", "entry 3"]
    assert caught.value.total == 3


def test_of_very_many_problems_only_the_first_are_kept(catalog):
    with pytest.raises(ManifestError) as caught:
        catalog([{}] * (SHOWN_PROBLEMS + 5))
    assert (len(caught.value.problems), caught.value.total) == (SHOWN_PROBLEMS, SHOWN_PROBLEMS + 5)
    assert str(caught.value).endswith("  and 5 more")


def test_derived_ids_are_made_unique(catalog):
    urls = [f"https://h/{n}/data.csv" for n in range(3)]
    files = catalog([{"url": url} for url in urls])
    assert [file.id for file in files] == [marked("data", url) for url in urls]
    assert {file.name for file in files} == {"data"}


def test_derived_ids_do_not_depend_on_the_order(catalog):
    entries = [{"url": f"https://h/{path}"} for path in ("1/data.csv", "other.csv", "2/data.csv", "3/data.csv")]
    there = {file.url: file.id for file in catalog(entries)}
    assert {file.url: file.id for file in catalog(entries[::-1])} == there
    assert there["https://h/other.csv"] == "other"


def test_one_url_with_other_fields_is_another_file(catalog):
    entries = [{"url": "https://h/a", "tag": tag} for tag in "xyzxyz"]
    files = catalog(entries)
    assert [file.tag for file in files] == ["x", "y", "z"]
    assert len({file.id for file in files}) == 3


@pytest.mark.parametrize("given_first", [True, False])
def test_a_given_id_is_kept_whether_a_derived_one_comes_before_or_after(catalog, given_first):
    entries = [{"url": "https://h/1/data"}, {"url": "https://h/2", "id": "data"}]
    found = {file.url: file.id for file in catalog(entries[::-1] if given_first else entries)}
    assert found == {"https://h/2": "data", "https://h/1/data": marked("data", "https://h/1/data")}


def test_a_given_id_may_look_like_one_that_was_made_unique(catalog):
    made = marked("data", "https://h/2/data")
    entries = [{"url": "https://h/1/data"}, {"url": "https://h/2/data"}, {"url": "https://h/3", "id": made}]
    for order in (entries, entries[::-1]):
        files = catalog(order)
        assert len({file.id for file in files}) == 3
        assert {file.url: file.id for file in files}["https://h/3"] == made


def test_a_duplicate_is_one_also_after_its_id_went_to_another_file(catalog):
    files = catalog(
        [{"url": "https://h/1/a"}, {"url": "https://h/2/a"}, {"url": "https://h/3", "id": "a"}, *[{"url": "https://h/1/a"}] * 2]
    )
    assert [file.url for file in files] == ["https://h/1/a", "https://h/2/a", "https://h/3"]
    assert len({file.id for file in files}) == 3


small = st.sampled_from(["https://h/a", "https://h/1/a", "https://g/a", "https://u:p@h/a", "https://h/A"])
ids = st.sampled_from(["a", "A", marked("a", "https://h/a"), marked("a", "https://h/1/a"), marked("a", "https://g/a")])
rows = st.fixed_dictionaries({"url": small}, optional={"id": ids, "tag": st.sampled_from("xy")})


@given(st.lists(rows, max_size=12))
@example([{"url": "https://h/a"}, {"url": "https://h/a", "tag": "x"}, {"url": "https://g/a", "id": "a"}])
@example([{"url": "https://h/a"}, {"url": "https://g/a", "id": "a"}, {"url": "https://h/a"}])
@example(
    [
        {"url": "https://h/a", "id": marked("a", "https://h/1/a")},
        {"url": "https://h/1/a"},
        {"url": "https://g/a"},
        {"url": "https://h/1/a", "tag": "x"},
    ]
)
def test_every_file_has_a_key_of_its_own_and_none_is_lost(catalog, entries):
    given_ids: dict[str, list] = {}
    for entry in entries:
        given_ids.setdefault(entry.get("id"), []).append(entry)
    clash = any(len({str(sorted(e.items())) for e in same}) > 1 for name, same in given_ids.items() if name)
    try:
        files = catalog(entries, chunk_size=3)
    except ManifestError:
        assert clash
        return
    assert not clash
    assert len(files) == len({str(sorted(entry.items())) for entry in entries})
    assert len({file_key(file.id, file.url) for file in files}) == len({file.id for file in files}) == len(files)
    assert {(e["id"], e["url"]) for e in entries if "id" in e} <= {(file.id, file.url) for file in files}


def test_the_same_manifest_has_the_same_ids_every_time(catalog):
    entries = [{"url": f"https://h/{n % 5}/a", "tag": n % 3} for n in range(30)] + [{"url": "https://h/x", "id": "a"}]
    assert [file.id for file in catalog(entries)] == [file.id for file in catalog(entries)]


def test_many_files_of_one_url_are_told_apart_quickly(catalog):
    assert len({file.id for file in catalog([{"url": "https://h/a", "n": n} for n in range(3000)])}) == 3000


def test_a_catalog_that_can_not_be_written_stops_the_run(tmp_path):
    with pytest.raises(EnvironmentStop, match="cannot write"):
        write_catalog(tmp_path / "missing" / "c", "x", iter(()), SCHEMES, lambda total: 1)


def test_a_full_disk_stops_the_run(tmp_path):
    (tmp_path / "c").symlink_to("/dev/full")
    with pytest.raises(EnvironmentStop, match="the disk is full"):
        write_catalog(tmp_path / "c", "x", listed([{"url": "https://h/a"}]), SCHEMES, lambda total: 1)


def test_an_empty_chunk_has_no_files(tmp_path):
    (tmp_path / "c").write_bytes(b"")
    assert list(read_catalog(tmp_path / "c", Chunk(0, 0))) == []


def test_single_files_of_a_chunk_are_read_by_their_number(tmp_path):
    entries = listed([{"url": f"https://h/{number}"} for number in range(7)])
    _, chunk, _ = write_catalog(tmp_path / "c", "x", entries, SCHEMES, lambda total: 3)
    assert [file.id for file in read_catalog(tmp_path / "c", chunk, [0, 2])] == ["3", "5"]
    assert list(read_catalog(tmp_path / "c", chunk, [])) == []


CONTESTED = [{"url": f"https://h{n}/same"} for n in range(20)]
MIXED = [*CONTESTED, {"url": "https://h/x", "id": "same"}, *({"url": f"https://h/{n}"} for n in range(60)), CONTESTED[3]]


def of_shards(path, entries, count, **more):
    """Return the files of each shard."""
    found = []
    for number in range(1, count + 1):
        census = Census(Shard(number, count))
        chunks = write_catalog(path, "x", listed(entries), SCHEMES, lambda total: 7, census=census, **more)
        found.append([file for chunk in chunks for file in read_catalog(path, chunk)])
        assert census.files == 81
    return found


def test_shards_together_have_the_files_of_the_whole_manifest_with_the_same_ids(catalog, tmp_path):
    whole = [file.id for file in catalog(MIXED)]
    shards = of_shards(tmp_path / "c", MIXED, 8)
    assert sorted(file.id for shard in shards for file in shard) == sorted(whole)
    assert [[name for name in whole if name in {file.id for file in shard}] for shard in shards] == [
        [file.id for file in shard] for shard in shards
    ]


def test_the_shard_of_a_file_does_not_depend_on_other_files(tmp_path):
    shards = of_shards(tmp_path / "c", MIXED, 8)
    [alone] = [n for n in range(8) if alone_in(tmp_path / "c", CONTESTED[5], n + 1)]
    assert CONTESTED[5]["url"] in [file.url for file in shards[alone]]


def alone_in(path, entry, number):
    return write_catalog(path, "x", listed([entry]), SCHEMES, lambda total: 1, census=Census(Shard(number, 8)))


def test_a_shard_may_have_no_file(tmp_path):
    assert sorted(len(alone_in(tmp_path / "c", {"url": "https://h/a"}, number)) for number in range(1, 9)) == [0] * 7 + [1]


def test_every_shard_reports_all_problems_of_the_manifest(tmp_path):
    with pytest.raises(ManifestError, match="no fetcher for gopher"):
        of_shards(tmp_path / "c", [{"url": "https://h/a"}, {"url": "gopher://h/b"}], 8)


def test_an_invalid_entry_that_is_skipped_is_in_one_shard(tmp_path):
    entries = [*({"url": f"https://h/{n}"} for n in range(80)), {"url": "gopher://h/b"}]
    found = of_shards(tmp_path / "c", entries, 8, skip_bad=True)
    assert sum(file.url.startswith("manifest:") for shard in found for file in shard) == 1
