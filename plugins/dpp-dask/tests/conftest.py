"""Files of a batch, and real schedulers and workers on loopback."""

from __future__ import annotations

import pytest

from dask_programs import Dask

STEPS = '''
import os, time
from pathlib import Path
from dpp import BaseProcessor

class Together(BaseProcessor):
    """Wait until files of some chunks are processed at the same time."""

    chunks: int

    def process(self, file):
        folder = Path(file.local_path).parents[2] / "together"
        folder.mkdir(exist_ok=True)
        (folder / str(os.getpid())).touch()
        while len(os.listdir(folder)) < self.chunks:
            time.sleep(0.01)

class Gated(BaseProcessor):
    """Note each file, and wait for a file "go"."""

    folder: str

    def process(self, file):
        with open(f"{self.folder}/seen", "a") as stream:
            stream.write(f"{file.id}\\n")
        while not Path(self.folder, "go").exists():
            time.sleep(0.01)
'''


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


@pytest.fixture
def steps(tmp_path):
    """Write a module ``steps`` into the folder in which batches run."""
    (tmp_path / "steps.py").write_text(STEPS)
