"""Unpack generated files in separate folders, and compare what is left afterwards."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from dpp import FileData, StageError

from dpp_archive import Decompress


def listing(folder: Path) -> dict[str, bytes | None]:
    """Return the content of every file below a folder, and None for everything else, by relative path."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    return {name: path.read_bytes() if path.is_file() and not path.is_symlink() else None for name, path in found.items()}


class Bench:
    """Create a folder with only ``in`` and ``out`` for each file that is unpacked."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._numbers = itertools.count()

    def file(self, data: bytes, name: str) -> FileData:
        folder = self._root / str(next(self._numbers))
        (folder / "in").mkdir(parents=True)
        (folder / "out").mkdir()
        path = folder / "in" / name
        path.write_bytes(data)
        return FileData(url="file:///a", local_path=path, output_dir=folder / "out")

    def unpack(self, data: bytes, name: str, **options: object) -> FileData:
        return Decompress(**options).pre_process(self.file(data, name))

    def content(self, data: bytes, name: str, **options: object) -> dict[str, bytes | None]:
        """Return the unpacked content of a file, by path below output_dir."""
        file = self.file(data, name)
        Decompress(**options).pre_process(file)
        return listing(file.output_dir)

    def refusal(self, data: bytes, name: str, **options: object) -> StageError:
        """Return the error of a file that is rejected, and check that nothing was written."""
        file = self.file(data, name)
        with pytest.raises(StageError) as caught:
            Decompress(**options).pre_process(file)
        assert listing(file.output_dir.parent) == {"in": None, f"in/{name}": data, "out": None}
        return caught.value

    def attempt(self, data: bytes, name: str, **options: object) -> dict[str, bytes | None] | str:
        """Return the unpacked content of a file, or the class of its error."""
        file = self.file(data, name)
        try:
            Decompress(**options).pre_process(file)
        except StageError as error:
            return error.error_class
        return listing(file.output_dir)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a bench in the test's own folder."""
    return Bench(tmp_path / "bench")
