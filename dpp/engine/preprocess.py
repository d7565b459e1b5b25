"""What a chain of pre-processors makes of a download: made, recorded, taken up again, and handed on file by file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dpp.download.downloader import Download
from dpp.errors import StageError
from dpp.models import FileData, own_copy
from dpp.plugins.builtin import content_digest
from dpp.plugins.steps import ConfiguredStep
from dpp.workspace.atomic import publishing, read_json, write_json

INPUT = "input_sha256"


def prepare(steps: Sequence[ConfiguredStep], file: FileData, final: Path, download: Download) -> FileData:
    """Send a download through a chain of pre-processors, and publish what it ends with under ``final``.

    Raises:
        StageError: A step returned no file, or made two members of one name.
        Exception: Whatever a step raises.
    """
    given = own_copy(file)
    with publishing(final) as folder:
        for number, step in enumerate(steps):
            work = _each_member if is_exploded(file) else _pre_processed
            file = work(step, file, folder / str(number))
        _gather(file, folder, download)
    assert file.local_path is not None
    if file.local_path != download.path:
        file.local_path = final / file.local_path.relative_to(folder)
    write_json(_record_path(final), _record(given, file, final, download))
    return file


def load_prepared(file: FileData, final: Path, download: Download) -> FileData | None:
    """Return what a chain made of a download earlier, if it is whole and was made from this very download."""
    record = read_json(_record_path(final))
    if not isinstance(record, dict) or record.get(INPUT) != download.sha256:
        return None
    path = final / record["local_path"] if record["local_path"] else download.path
    if not is_as_recorded(path, record):
        return None
    return FileData.model_validate({**file.model_dump(), **record["fields"], "local_path": path})


def is_as_recorded(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether what a chain made is a file or a folder, and as large, as its record says."""
    try:
        return [path.is_dir(), _measure_input(path)] == [record["folder"], record["extent"]]
    except OSError:
        return False


def is_exploded(file: FileData) -> bool:
    """Whether later steps take each file of a folder for a file of its own."""
    return file.exploded and file.local_path is not None and file.local_path.is_dir()


def members(file: FileData) -> dict[str, FileData]:
    """Return the regular files of an exploded folder by their paths in it, in the order of these.

    Each has an ``id`` that ends with its path, a ``name`` and a ``local_path`` of its own; size and digest, which are the
    download's, are not known. Symbolic links are left out.
    """
    folder = file.local_path
    assert folder is not None
    paths = {path.relative_to(folder).as_posix(): path for path in _regular_files(folder)}
    return {name: _member(file, name, paths[name]) for name in sorted(paths)}


def _member(file: FileData, name: str, path: Path) -> FileData:
    return own_copy(file, id=f"{file.id}/{name}", name=path.name, local_path=path, exploded=False, size=None, sha256=None)


@contextmanager
def naming(member: str) -> Iterator[None]:
    """Let an error say which member of a folder it is about, if any."""
    try:
        yield
    except Exception as error:
        if member:
            error.add_note(f"in {member}")
        raise


def _regular_files(folder: Path) -> Iterator[Path]:
    for path, _, names in os.walk(folder):
        yield from (child for name in names if not (child := Path(path, name)).is_symlink() and child.is_file())


def _pre_processed(step: ConfiguredStep, file: FileData, folder: Path) -> FileData:
    """Return what one pre-processor makes of a file."""
    folder.mkdir(parents=True)
    file.output_dir = folder
    made = step(file)
    if not isinstance(made, FileData):
        raise StageError(f"{step.name} returned {type(made).__name__} where a FileData was expected", "no-file")
    if made.local_path is not None:
        made.local_path = Path(made.local_path)
    if made.local_path is None or not made.local_path.exists():
        raise StageError(f"{step.name} returned a file whose local_path is not there: {made.local_path}", "no-file")
    made.output_dir = None
    made.processing_history = [*made.processing_history, step.label()]
    return made


def _each_member(step: ConfiguredStep, file: FileData, folder: Path) -> FileData:
    """Return the folder of what one pre-processor makes of each file of a folder; each stays beside its neighbours."""
    assert file.local_path is not None
    together, apart = folder / "together" / file.local_path.name, folder / "apart"
    together.mkdir(parents=True)
    for number, (name, member) in enumerate(members(file).items()):
        with naming(name):
            made = _pre_processed(step, member, apart / str(number))
            _move(made, together / Path(name).parent, folder.parent)
    shutil.rmtree(apart, ignore_errors=True)
    file.local_path = together
    file.processing_history = [*file.processing_history, step.label()]
    return file


def _move(made: FileData, to: Path, ours: Path) -> None:
    """Put what was made of a member into a folder; what lies outside our own folder is copied."""
    assert made.local_path is not None
    target = to / made.local_path.name
    if os.path.lexists(target):
        raise StageError(f"two members would become {target.name}; unpack without explode, or rename them", "member-name")
    to.mkdir(parents=True, exist_ok=True)
    if made.local_path.is_relative_to(ours):
        made.local_path.rename(target)
    else:
        _copied(made.local_path, to)


def _gather(file: FileData, folder: Path, download: Download) -> None:
    """Keep in the folder what the chain ended with, and nothing else."""
    path = file.local_path
    assert path is not None
    if path != download.path and not path.is_relative_to(folder):
        file.local_path = path = _copied(path, folder / "kept")
    for child in list(folder.iterdir()):
        if not path.is_relative_to(child):
            shutil.rmtree(child)


def _copied(path: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    target = folder / path.name
    return Path(shutil.copytree(path, target) if path.is_dir() else shutil.copy2(path, target))


def _record(given: FileData, file: FileData, final: Path, download: Download) -> dict[str, Any]:
    """Return what has to be known of a pre-processed file to take it up again."""
    path = file.local_path
    assert path is not None
    before = given.model_dump(mode="json", exclude={"local_path", "headers"})
    after = file.model_dump(mode="json", exclude={"local_path", "headers", "error"})
    return {
        INPUT: download.sha256,
        "local_path": None if path == download.path else str(path.relative_to(final)),
        "folder": path.is_dir(),
        "extent": _measure_input(path),
        "sha256": None if path == download.path else content_digest(path),
        "fields": {name: value for name, value in after.items() if before.get(name) != value or name not in before},
    }


def _record_path(final: Path) -> Path:
    return final.with_name(f"{final.name}.json")


def _measure_input(path: Path) -> list[int]:
    """Return how many files there are and their bytes, for a file or a folder, as steps read them: through links."""
    if not path.is_dir():
        return [1, path.stat().st_size]
    sizes = [child.stat().st_size for child in path.rglob("*") if child.is_file()]
    return [len(sizes), sum(sizes)]
