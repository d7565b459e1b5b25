"""Prepare files for a step, and compare folders before and after it."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from dpp.models import FileData
from dpp.names import safe_name


def file_data(path: Path | str, **fields: Any) -> FileData:
    """Return a file as a step gets it after its download.

    Args:
        path: Path of the file.
        fields: Other fields of the manifest; ``url`` defaults to the ``file:`` URL of the path.

    Returns:
        The file with ``local_path``, its ``size`` in bytes and its ``sha256``.
    """
    path = Path(path).absolute()
    body = path.read_bytes()
    facts = {"url": path.as_uri(), "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    return FileData.model_validate({**facts, **fields, "local_path": path})


class Bench:
    """Create files as a step gets them: the downloads in one folder, and an empty output folder for each.

    Args:
        folder: Folder for all of them; created if it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.inputs = folder / "inputs"
        self._outputs = folder / "outputs"
        for made in (self.inputs, self._outputs):
            made.mkdir(parents=True, exist_ok=True)

    def file(self, name: str, body: bytes, **fields: Any) -> FileData:
        """Return a file with this name and content, prepared for a step."""
        path = self.inputs / safe_name(name)
        path.write_bytes(body)
        return self.again(file_data(path, **fields))

    def again(self, file: FileData) -> FileData:
        """Return the file with a new empty output folder."""
        return file.model_copy(update={"output_dir": Path(tempfile.mkdtemp(dir=self._outputs))})


def contents(folder: Path) -> dict[str, str]:
    """Return the content of a folder: for each path, the SHA-256 of a file, the target of a link, or ``/`` for a folder."""
    return {str(path.relative_to(folder)): _describe_content(path) for path in sorted(folder.rglob("*"))}


def _describe_content(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "/"
