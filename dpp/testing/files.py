"""Files made ready for a step, and folders compared before and after."""

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
        path: The file to work on.
        fields: What else the manifest says of it; ``url`` is the path's own where none is given.

    Returns:
        The file with ``local_path``, and with the ``size`` in bytes and the ``sha256`` that the download has.
    """
    path = Path(path).absolute()
    body = path.read_bytes()
    facts = {"url": path.as_uri(), "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    return FileData.model_validate({**facts, **fields, "local_path": path})


class Bench:
    """Files laid out as a step finds them: downloads in one folder, an empty folder to write into for each.

    Args:
        folder: Where they lie; made where it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.inputs = folder / "inputs"
        self._outputs = folder / "outputs"
        for made in (self.inputs, self._outputs):
            made.mkdir(parents=True, exist_ok=True)

    def file(self, name: str, body: bytes, **fields: Any) -> FileData:
        """Return a file of this name and content, ready for a step."""
        path = self.inputs / safe_name(name)
        path.write_bytes(body)
        return self.again(file_data(path, **fields))

    def again(self, file: FileData) -> FileData:
        """Return the file with a new empty folder to write into."""
        return file.model_copy(update={"output_dir": Path(tempfile.mkdtemp(dir=self._outputs))})


def contents(folder: Path) -> dict[str, str]:
    """Return what lies below a folder: for each path, the digest of the file, where a link leads, or ``/`` for a folder."""
    return {str(path.relative_to(folder)): _describe_content(path) for path in sorted(folder.rglob("*"))}


def _describe_content(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "/"
