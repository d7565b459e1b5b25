"""Files of a batch, and real schedulers and workers on loopback."""

from __future__ import annotations

import pytest

from dask_programs import Dask


@pytest.fixture
def files(tmp_path, manifest):
    """Return a function that writes files and returns the path of their manifest."""

    def write(count=20, **fields):
        folder = tmp_path / "files"
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.txt").write_text(f"{number}\n")
        return manifest([{"url": f"file://{folder}/{number}.txt", "id": str(number), **fields} for number in range(count)])

    return write


@pytest.fixture
def dask(tmp_path):
    """Start schedulers and workers; all are stopped at the end of the test."""
    with Dask(tmp_path) as running:
        yield running
