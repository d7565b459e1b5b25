"""Tests of manifests in Parquet, which pyarrow reads, and of its absence."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from dpp import InputError
from dpp.manifest.parquet import BATCH_ROWS
from dpp.manifest.readers import check, read

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

URL = "https://h/a.csv"


@pytest.fixture
def written(tmp_path):
    """Return a function that writes columns to a Parquet file."""

    def written(columns: dict, name: str = "x.parquet", **options) -> Path:
        parquet.write_table(arrow.table(columns), tmp_path / name, **options)
        return tmp_path / name

    return written


def test_rows_are_entries(written):
    path = written(
        {
            "URL": [URL, URL],
            "id": [1.0, None],
            "size": [7.0, None],
            "urls": [["https://g/a"], None],
            "headers": arrow.array([[("A", "b")], None], arrow.map_(arrow.string(), arrow.string())),
            "tag": ["\u00e9", None],
            "__index_level_0__": [0, 1],
        }
    )
    one, other = read(path)
    assert one == ("row 0", {"url": URL, "id": 1, "size": 7, "urls": ["https://g/a"], "headers": {"A": "b"}, "tag": "\u00e9"}, "")
    assert check(one, {"https"}).file.id == "1"
    assert check(other, {"https"}).file.id == "a"


def test_the_content_counts_and_not_the_suffix(written):
    assert [entry.fields for entry in read(written({"link": [URL]}, "x.csv"))] == [{"url": URL}]


def test_rows_of_several_batches_are_all_read(written):
    urls = [f"https://h/{number}" for number in range(3 * BATCH_ROWS + 1)]
    assert [entry.fields["url"] for entry in read(written({"url": urls}, row_group_size=BATCH_ROWS // 2))] == urls


def test_reading_starts_no_threads(written):
    before = len(os.listdir("/proc/self/task"))
    assert len(list(read(written({"url": [URL] * 5000})))) == 5000
    assert len(os.listdir("/proc/self/task")) == before


def test_a_table_without_a_url_is_a_problem(written):
    assert [entry.problem for entry in read(written({"id": [1]}))] == ["no column url in the header; found: id"]


@pytest.mark.parametrize("data", [b"PAR1" + bytes(40) + b"PAR1", b"PAR1"], ids=["zeros", "short"])
def test_damaged_parquet_is_reported(data, tmp_path):
    (tmp_path / "x.parquet").write_bytes(data)
    with pytest.raises(InputError, match=r"x\.parquet: is not valid Parquet: "):
        list(read(tmp_path / "x.parquet"))


def test_without_pyarrow_the_extra_is_named(written, monkeypatch):
    path = written({"url": [URL]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"x\.parquet: is Parquet, which requires pyarrow .*pip install 'dpp\[parquet\]'"):
        list(read(path))
