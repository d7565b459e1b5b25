"""The pre-processor: which files it unpacks and skips, the names of its results, and its options."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from dpp import FileData
from pydantic import ValidationError

import dpp_archive
from dpp_archive import Decompress
from dpp_archive.decompress import KEPT
from dpp_archive.formats import promised, unpacked_name

PROJECT = Path(__file__).parents[1]


def tar(content: bytes = b"x") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        member = tarfile.TarInfo("m.txt")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def zipped(name: str = "m.txt") -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, b"x")
    return made.getvalue()


@pytest.mark.parametrize(
    ("name", "file", "folder"),
    [
        ("a.csv.gz", "a.csv", "a.csv"),
        ("A.CSV.GZ", "A.CSV", "A.CSV"),
        ("a.tar.gz", "a.tar", "a"),
        ("a.tgz", "a", "a"),
        ("a.TAR.zst", "a.TAR", "a"),
        ("a.tar", "a", "a"),
        ("a.zip", "a", "a"),
        ("a.b.zip", "a.b", "a.b"),
        ("a", "a", "a"),
        ("a.csv", "a.csv", "a.csv"),
        ("gz", "gz", "gz"),
        (".gz", ".gz", ".gz"),
        ("..gz", "..gz", "..gz"),
        (". .zip", ". .zip", ". .zip"),
        (".tar.gz", ".tar", ".tar.gz"),
        ("a.gz.gz", "a.gz", "a.gz"),
    ],
)
def test_names(name, file, folder):
    assert (unpacked_name(name, folder=False), unpacked_name(name, folder=True)) == (file, folder)


@pytest.mark.parametrize(
    ("name", "promise"),
    [("a.gz", ("gz", False)), ("a.tar.XZ", ("xz", True)), ("a.tbz2", ("bz2", True)), ("a.tar", ("tar", True)), ("a.zip", ("zip", False))],
)
def test_promises(name, promise):
    assert promised(name) == promise
    assert promised(f"{name}.txt") is None


def test_a_file_keeps_its_id_and_gets_the_new_name(bench):
    file = bench.file(gzip.compress(b"x"), "a.csv.gz")
    file.id = "7"
    made = Decompress().pre_process(file)
    assert (made.id, made.name, made.local_path) == ("7", "a.csv", file.output_dir / "a.csv")


@pytest.mark.parametrize(("data", "name"), [(tar(), "a.tar"), (gzip.compress(tar(), mtime=0), "a.tgz"), (zipped(), "a.zip"), (tar(), "a")])
def test_an_archive_becomes_a_folder_however_few_members_it_has(bench, data, name):
    made = bench.unpack(data, name)
    assert made.name == "a"
    assert [(path.name, path.read_bytes()) for path in made.local_path.iterdir()] == [("m.txt", b"x")]


@pytest.mark.fault(31)
def test_archives_inside_stay_as_they_are(bench):
    inner = gzip.compress(tar())
    assert bench.content(gzip.compress(tar(inner)), "a.tgz")["a/m.txt"] == inner
    assert bench.content(gzip.compress(inner), "a.tar.gz.gz") == {"a.tar.gz": inner}
    assert bench.content(gzip.compress(zipped()), "a.zip.gz") == {"a.zip": zipped()}


@pytest.mark.parametrize(
    "data", [b"", b"a,b\n", b"%PDF-1.7\n", bytes(2000), os.urandom(600), b"PK is short for Phil Katz", b"BZh9 is no bzip2"]
)
def test_anything_else_passes_unless_that_is_not_wanted(bench, data):
    file = bench.unpack(data, "a.dat")
    assert (file.local_path.name, file.local_path.parent.name) == ("a.dat", "in")
    assert bench.refusal(data, "a.dat", required=True).error_class == "archive-required"


def test_a_folder_passes(tmp_path):
    file = FileData(url="file:///a.zip", local_path=tmp_path, output_dir=tmp_path)
    assert Decompress().pre_process(file).local_path == tmp_path


@pytest.mark.parametrize("name", ["a.gz", "a.bz2", "a.xz", "a.zst", "a.tar", "a.tar.gz", "a.tgz", "a.zip"])
def test_a_name_that_promises_what_is_not_there_is_a_failure_unless_that_is_wanted(bench, name):
    page = b"<!DOCTYPE html>" + b"x" * 2000
    assert bench.refusal(page, name).error_class == "archive-mismatch"
    assert bench.refusal(b"", name).error_class == "archive-truncated"
    assert bench.unpack(page, name, check_suffix=False).local_path.name == name


def test_a_tar_that_is_promised_has_to_be_inside(bench):
    assert bench.refusal(gzip.compress(b"x" * 2000), "a.tar.gz").error_class == "archive-mismatch"
    assert bench.refusal(gzip.compress(b"x"), "a.tgz").error_class == "archive-truncated"
    assert bench.content(gzip.compress(b"x"), "a.tar.gz", check_suffix=False) == {"a.tar": b"x"}


def test_documents_that_are_zips_inside_are_left_alone(bench):
    assert bench.unpack(zipped("[Content_Types].xml"), "a.XLSX").local_path.name == "a.XLSX"
    assert bench.refusal(zipped(), "a.xlsx", required=True).error_class == "archive-required"
    assert bench.content(zipped(), "a.xlsx", keep=[]) == {"a.xlsx": None, "a.xlsx/m.txt": b"x"}
    assert bench.unpack(gzip.compress(b"x"), "a.gz", keep=[".GZ"]).local_path.name == "a.gz"


@pytest.mark.parametrize(
    "options",
    [
        {"max_bytes": 0},
        {"max_bytes": "much"},
        {"max_ratio": 0},
        {"max_ratio": "nan"},
        {"max_ratio": "inf"},
        {"max_members": 0},
        {"required": "perhaps"},
        {"explode": "perhaps"},
    ],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError):
        Decompress(**options)


def test_options_come_as_text_too():
    step = Decompress(max_bytes="1.5GiB", max_ratio="100", max_members="7")
    assert (step.max_bytes, step.max_ratio, step.max_members) == (1_610_612_736, 100.0, 7)


def test_the_hook_and_the_entry_point_offer_the_pre_processor():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["dpp"] == {"archive": dpp_archive.__name__}
    assert [(cls.name, cls.version) for cls in dpp_archive.dpp_pre_processors()] == [("decompress", "2")]


def test_the_readme_lists_every_option_and_error_class():
    readme = (PROJECT / "README.md").read_text()
    sources = "".join(path.read_text() for path in PROJECT.glob("dpp_archive/*.py"))
    classes = {
        f"archive-{word}"
        for word in ("truncated", "corrupt", "unsafe", "limit", "encrypted", "names", "unsupported", "mismatch", "required")
    }
    assert ", ".join(f"`{kept}`" for kept in KEPT) in " ".join(readme.split())
    assert [name for name in Decompress.model_fields if name != "debug" and f"| `{name}` |" not in readme] == []
    assert [name for name in classes if f"| `{name}` |" not in readme or f'"{name}"' not in sources] == []
