"""Tests of local sources, of the query of a source's URL, and of the files that a destination has already."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dpp import ConfigurationError, FetchError, SourceQuery
from dpp.manifest.sources import Existing, LocalFiles, local_entries, local_path


@pytest.fixture
def folder(tmp_path):
    for name in ("b.csv", "a.csv", "sub/c.csv", "sub/d.txt", ".hidden.csv"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "in"


def ids(entries) -> list[str]:
    return [entry["id"] for entry in entries]


def test_files_come_in_order_page_by_page(folder):
    files = list(LocalFiles(folder).list_files())
    assert [(file.id, file.name, file.size) for file in files] == [
        ("a.csv", "a.csv", 5),
        ("b.csv", "b.csv", 5),
        ("sub/c.csv", "c.csv", 9),
        ("sub/d.txt", "d.txt", 9),
    ]
    assert [file.id for file in LocalFiles(folder).list_files(offset=1, limit=2)] == ["b.csv", "sub/c.csv"]
    assert local_path(files[2].url).read_text() == "sub/c.csv"


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ConfigurationError, match=r"cannot list .*: No such file or directory"):
        list(LocalFiles(tmp_path / "nowhere").list_files())


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["a.csv", "b.csv"]),
        ("?recursive=true&pattern=*.csv", ["a.csv", "b.csv", "sub/c.csv"]),
        ("?recursive=1&pattern=a*&pattern=*.txt", ["a.csv", "sub/d.txt"]),
        ("?recursive=true&offset=1&limit=1", ["b.csv"]),
        ("?recursive=true&pattern=sub/*.csv", ["sub/c.csv"]),
    ],
)
def test_the_query_of_a_url_says_which_files(folder, query, expected):
    assert ids(local_entries(folder.as_uri() + "/" + query)) == expected


class AgedQuery(SourceQuery):
    min_age: float = 0.0
    owner: tuple[str, ...] = ()


def test_a_query_can_have_more_parameters():
    asked = AgedQuery.read("x://me:secret@host/in/?pattern=*.gpg&pattern=a%26b%2B+*&recursive=True&min_age=1.5&offset=2&owner=me")
    assert asked == AgedQuery(pattern=("*.gpg", "a&b++*"), recursive=True, min_age=1.5, offset=2, owner=("me",))


def test_a_url_without_a_query_asks_for_all():
    assert SourceQuery.read("x://host/in/") == SourceQuery()
    assert list(SourceQuery(offset=1, limit=2).page("abcd")) == ["b", "c"]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("patern=x", "unknown option 'patern'; the parameters are pattern, recursive, offset, limit, min_age, owner"),
        ("pattern=", "pattern has no value"),
        ("limit", "limit has no value"),
        ("limit=1&limit=2", "limit is given twice"),
        ("limit=-1", "limit: should be greater than or equal to 0, got -1"),
        ("offset=x", "offset: should be a whole number"),
        ("offset=\u00b2", "offset: should be a whole number"),
        ("min_age=soon", "min_age: should be a number"),
        ("recursive=perhaps", "recursive: should be true or false"),
        ("recursive=perhaps&limit=x", "recursive: should be true or false; limit: should be a whole number"),
        ("pattern=%ff", "pattern is not percent-encoded UTF-8"),
        ("s3cret@host/&limit=1", "the query is not of the form name=value"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused_without_showing_it(query, problem):
    with pytest.raises(ConfigurationError, match=problem) as caught:
        AgedQuery.read(f"x://me:s3cret@host/in/?{query}&owner=s3cret")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.csv", "a.csv", True),
        ("*.csv", "in/a.csv", True),
        ("in/*.csv", "in/a.csv", True),
        ("in/*.csv", "out/a.csv", False),
        ("*.CSV", "a.csv", False),
        ("[ab].csv", "a.csv", True),
    ],
)
def test_a_pattern_with_a_slash_is_for_the_path(pattern, path, matches):
    assert SourceQuery(pattern=(pattern,)).matches(path) is matches


def test_a_folder_and_a_pattern_are_sources_and_nothing_else_is(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert ids(local_entries(str(folder))) == ["a.csv", "b.csv", "sub/c.csv", "sub/d.txt"]
    assert ids(local_entries("**/*.csv")) == ["a.csv", "b.csv", "sub/c.csv"]
    assert ids(local_entries("*.nothing")) == []
    assert [local_entries(files) for files in ("a.csv", "x.json", "https://h/", (folder / "a.csv").as_uri())] == [None] * 4


def test_a_file_with_an_asterisk_in_its_name_is_a_manifest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a*.json").write_text("[]")
    assert local_entries("a*.json") is None


def test_a_url_of_another_machine_is_refused():
    with pytest.raises(FetchError, match="for files on this machine"):
        local_entries("file://other.example/folder/")


THERE = [
    {"url": "s3://b/data/csv/acme/a.csv", "id": "csv/acme/a.csv"},
    {"url": "s3://b/data/box/x"},
    {"url": "s3://b/x", "id": "box/one/y"},
]


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("a.csv", True),
        ("a.csv.gz.gpg", True),
        ("a.csv.zst", True),
        ("a.txt", False),
        ("b.csv.gz", False),
        # The member of the unpacked archive may be a.csv.
        ("a.tar.gz", True),
        ("a.gz", False),
        ("box.zip.pgp", True),
        ("box.gz", False),
        ("csv", False),
    ],
)
def test_a_file_is_there_by_its_name_or_by_what_becomes_of_it(name, there):
    existing = Existing(THERE)
    assert existing.has({"url": f"sftp://h/{name}"}) is there
    assert existing.has({"url": "sftp://h/other", "name": name}) is (there and "." in name)
    assert existing.skipped == there + (there and "." in name)


def test_what_has_no_url_is_nowhere():
    assert not Existing(THERE).has({"id": 5})


def test_files_that_are_there_are_left_out(folder, tmp_path, run_batch, results):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.csv").write_text("there")
    run = run_batch(folder, "--skip-existing", "out")
    assert run.returncode == 0, run.stderr
    assert "3 of 3 ok, 0 failed, 1 skipped (already at the destination)" in run.stderr
    assert sorted(results()) == ["a.csv", "sub/c.csv", "sub/d.txt"]
    assert json.loads(next(tmp_path.glob("dpp-workspace/batches/*/runs/1/summary.json")).read_text())["skipped"] == 1


def test_a_place_that_nobody_lists_is_refused(folder, run_batch):
    run = run_batch(folder, "--skip-existing", "nowhere://me:pw@h/")
    assert (run.returncode, "skip_existing: nowhere://***@h/ is not a folder, and no plugin can list it" in run.stderr) == (2, True)


HEADER = "from dpp import BasePreProcessor, StageError, hookimpl\n"
TWICE = """
class Twice(BasePreProcessor):
    name = "twice"
    blames_input = frozenset({"odd"})
    def pre_process(self, file):
        text = file.local_path.read_text()
        if text == "bad":
            raise StageError("is odd", "odd")
        if text == "worse":
            raise StageError("is not even odd", "other")
        file.local_path = file.output_dir / file.name
        file.local_path.write_text(text * 2)
        return file

@hookimpl
def dpp_pre_processors():
    return [Twice]
"""


@pytest.fixture
def twice(install):
    install("one", TWICE)


def cached(workspace) -> list[str]:
    return sorted(path.name for kind in ("downloads", "pre_processed") for path in (workspace / kind).rglob("*") if path.is_file())


# Size 1 gives each file its own tasks, size 3 makes a chunk.
@pytest.mark.parametrize("size", ["1", "3"])
def test_cleanup_leaves_reports_and_what_has_failed(site, manifest, run_batch, tmp_path, twice, size):
    entries = [{"url": site.add(f"/{name}.txt", text)} for name, text in (("a", "x"), ("b", "y"), ("c", "worse"))]
    entries.append({"url": entries[0]["url"], "id": "again"})
    options = ("--pre-processors", "twice", "--cleanup", "--chunk-size", size, "--workers", 2)
    assert run_batch(manifest(entries), *options).returncode == 1
    assert cached(tmp_path / "dpp-workspace") == ["c.txt", "c.txt.dpp.json"]
    site.forget()
    site.add("/c.txt", "worse")
    assert run_batch(manifest(entries), *options).returncode == 1
    assert not site.counts()


def test_cleanup_of_a_later_run_removes_what_the_first_one_kept(site, manifest, run_batch, tmp_path, twice):
    path = manifest([{"url": site.add("/a.txt", "x")}])
    run_batch(path, "--pre-processors", "twice")
    assert len(cached(tmp_path / "dpp-workspace")) == 4
    assert run_batch(path, "--pre-processors", "twice", "--cleanup").returncode == 0
    assert cached(tmp_path / "dpp-workspace") == []


@pytest.mark.parametrize("size", ["1", "3"])
def test_what_a_step_blames_on_its_input_is_fetched_anew(site, manifest, run_batch, twice, size):
    path = manifest([{"url": site.add("/a.txt", "bad")}, {"url": site.add("/b.txt", "worse")}])
    options = ("--pre-processors", "twice", "--chunk-size", size)
    assert run_batch(path, *options).returncode == 1
    site.forget()
    site.add("/a.txt", "mended")
    site.add("/b.txt", "mended")
    # The download of b was not the reason for its failure, so it is used again.
    assert run_batch(path, *options).returncode == 1
    assert site.counts() == {"/a.txt": 1}


def test_a_batch_with_a_name_has_its_settings_in_luigi_cfg(folder, tmp_path, command, results):
    (tmp_path / "luigi.cfg").write_text('[batch:acme]\nfiles=in\nworkspace=there\noptions={"checksum": {"algorithm": "md5"}}\nworkers=2\n')
    assert command("dpp", "run", "--batch", "acme").returncode == 0
    assert "md5" in results("there")["a.csv"]["result"]
    again = command("luigi", "--module", "dpp", "RunBatch", "--batch-name", "acme", "--workspace", "elsewhere")
    assert again.returncode == 0, again.stderr
    assert next((tmp_path / "elsewhere/batches").iterdir()).name.startswith("acme-")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("[batch:other]\nfiles=in", "luigi.cfg has no section [batch:acme]; choose from other"),
        ("[batch:acme]\nfils=in", "unknown setting 'fils'; did you mean 'files'?"),
    ],
)
def test_a_batch_that_is_not_in_luigi_cfg_or_is_wrong_there_is_said(tmp_path, command, section, message):
    (tmp_path / "luigi.cfg").write_text(section)
    for arguments in (("dpp", "run", "--batch", "acme"), ("luigi", "--module", "dpp", "RunBatch", "--batch-name", "acme")):
        run = command(*arguments)
        assert run.returncode == 2
        assert message in run.stderr


@pytest.mark.parametrize("files", ["/proc/self", "/dev", "file:///sys/kernel", "/proc/self/*"])
def test_a_folder_of_the_system_is_refused(files):
    with pytest.raises(ConfigurationError, match=r"belongs to the system \(/dev, /proc, /sys\), so it is no source"):
        local_entries(files)


def test_the_folders_of_the_workspace_are_refused_or_skipped(folder, monkeypatch):
    (folder / "ws/downloads/aa").mkdir(parents=True)
    (folder / "ws/downloads/aa/x.csv").touch()
    monkeypatch.chdir(folder)
    listed = ["a.csv", "b.csv", "sub/c.csv", "sub/d.txt"]
    assert [ids(local_entries(files, folder / "ws")) for files in (str(folder), "**/*.*")] == [listed, listed]
    for files in (f"{folder}/ws/downloads", f"{folder.as_uri()}/ws/downloads/", "ws/downloads/*/*"):
        with pytest.raises(ConfigurationError, match="is in the workspace, so it is no source"):
            local_entries(files, folder / "ws")
