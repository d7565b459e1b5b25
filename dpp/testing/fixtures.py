"""pytest fixtures: manifests, batches run from the command line, their results, and files for a step."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpp.models import FileData
from dpp.settings import CACHE_VARIABLE, WORKSPACE_VARIABLE
from dpp.testing.files import Bench

RunCommand = Callable[..., subprocess.CompletedProcess[str]]
SECONDS = 300
WORKSPACES = (WORKSPACE_VARIABLE, CACHE_VARIABLE)


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes entries as a JSON manifest: ``manifest([{"url": ...}], name="x.json") -> Path``."""

    def write(entries: list[dict[str, Any]], name: str = "x.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(entries))
        return path

    return write


@pytest.fixture
def command(tmp_path: Path) -> RunCommand:
    """Return a function that runs a console script of this environment in ``tmp_path``.

    ``command(name, *arguments, timeout=300, VARIABLE="value") -> subprocess.CompletedProcess``; ``timeout`` is in seconds.
    """

    def run(name: str, *arguments: object, timeout: float = SECONDS, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - the command of the test
            [_script(name), *map(str, arguments)],
            cwd=tmp_path,
            env={**{name: value for name, value in os.environ.items() if name not in WORKSPACES}, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


def _script(name: str) -> str:
    """Return the path of a console script, next to this Python as in a virtual environment, or on the PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.fail(f"command {name} not found in this environment; install it with: pip install dpp")
    return found


@pytest.fixture
def run_batch(command: RunCommand) -> RunCommand:
    """Return a function that runs ``luigi --module dpp RunBatch --files FILES ...`` in ``tmp_path``."""
    return lambda files, *arguments, **environment: command(
        "luigi", "--module", "dpp", "RunBatch", "--files", files, *arguments, **environment
    )


@pytest.fixture
def results(tmp_path: Path) -> Callable[..., dict[str, dict[str, Any]]]:
    """Return a function that returns the rows of the last run's ``results.jsonl`` by id: ``results(workspace="dpp-workspace")``."""

    def read(workspace: str = "dpp-workspace") -> dict[str, dict[str, Any]]:
        folders = sorted((tmp_path / workspace).glob("batches/*/runs/*/"), key=lambda folder: int(folder.name))
        lines = (folders[-1] / "results.jsonl").read_text().splitlines()
        return {row["id"]: row for row in map(json.loads, lines)}

    return read


@pytest.fixture
def ready_file(tmp_path: Path) -> Callable[..., FileData]:
    """Return a function that prepares a file for a step: ``ready_file(name, body, **fields) -> FileData``.

    The file at ``local_path`` contains the body, bytes or text; ``output_dir`` is a new empty folder.
    """
    bench = Bench(tmp_path / "ready")

    def make(name: str, body: bytes | str, **fields: Any) -> FileData:
        return bench.file(name, body.encode() if isinstance(body, str) else body, **fields)

    return make
