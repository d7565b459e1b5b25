"""Run a chain of pre-processors on a download, record its output, and reuse it later."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dpp.download.complete import Download
from dpp.errors import StageError
from dpp.models import FileData, own_copy
from dpp.plugins.builtin import content_digest
from dpp.plugins.results import to_json
from dpp.plugins.steps import ConfiguredStep
from dpp.workspace.atomic import publishing, read_json, write_json
from dpp.workspace.space import stops_run_if_full

INPUT = "input_sha256"


def prepare(steps: Sequence[ConfiguredStep], file: FileData, final: Path, download: Download) -> FileData:
    """Run a chain of pre-processors on a download, and publish the output of the last one as ``final``.

    Raises:
        StageError: A step did not return a file, or gave two members the same name.
        EnvironmentStop: The workspace cannot be written.
        Exception: Any exception that a step raises.
    """
    given = own_copy(file)
    # The outputs must still be there when a full disk is looked for.
    with publishing(final) as folder, stops_run_if_full(folder):
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
    """Return the stored output of a chain, if it is complete and was made from this download; else None."""
    record = read_json(_record_path(final))
    if not isinstance(record, dict) or record.get(INPUT) != download.sha256:
        return None
    path = final / record["local_path"] if record["local_path"] else download.path
    if not is_as_recorded(path, record):
        return None
    return FileData.model_validate({**file.model_dump(), **record["fields"], "local_path": path})


def is_as_recorded(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether the output of a chain has the kind (file or folder) and the size that its record states."""
    try:
        return [path.is_dir(), _measure_input(path)] == [record["folder"], record["extent"]]
    except OSError:
        return False


def is_exploded(file: FileData) -> bool:
    """Whether later steps process each file of the folder separately."""
    return file.exploded and file.local_path is not None and file.local_path.is_dir()


def members(file: FileData) -> dict[str, FileData]:
    """Return the regular files of an exploded folder by their paths in it, in the order of the paths; symbolic links are skipped.

    Each has its own ``id`` (the archive's id and the path), ``name`` and ``local_path``. ``size``, ``sha256`` and ``digests`` are
    None, as those of the download do not apply to it.
    """
    folder = file.local_path
    assert folder is not None
    paths = {path.relative_to(folder).as_posix(): path for path in _regular_files(folder)}
    return {name: _member(file, name, paths[name]) for name in sorted(paths)}


def _member(file: FileData, name: str, path: Path) -> FileData:
    return own_copy(file, id=f"{file.id}/{name}", name=path.name, local_path=path, exploded=False, size=None, sha256=None, digests=None)


@contextmanager
def naming(member: str) -> Iterator[None]:
    """Add the name of a member to an exception that is raised in the block; "" adds nothing."""
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
    """Run one pre-processor on a file and check what it returns."""
    folder.mkdir(parents=True)
    file.output_dir = folder
    made = step(file)
    if not isinstance(made, FileData):
        raise StageError(f"{step.name} returned {type(made).__name__}; expected a FileData", "no-file")
    if made.local_path is not None:
        made.local_path = Path(made.local_path)
    if made.local_path is None or not made.local_path.exists():
        raise StageError(f"{step.name} returned a file whose local_path does not exist: {made.local_path}", "no-file")
    made.output_dir = None
    made.processing_history = [*made.processing_history, step.label()]
    return made


def _each_member(step: ConfiguredStep, file: FileData, folder: Path) -> FileData:
    """Run one pre-processor on each file of a folder; return the folder of the outputs, which keeps the files' sub-folders."""
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
    """Move the output of a member into a folder; copy it if it lies outside our own folder."""
    assert made.local_path is not None
    target = to / made.local_path.name
    if os.path.lexists(target):
        raise StageError(f"two members would get the name {target.name}; unpack without explode, or rename them", "member-name")
    to.mkdir(parents=True, exist_ok=True)
    if made.local_path.is_relative_to(ours):
        made.local_path.rename(target)
    else:
        _copied(made.local_path, to)


def _gather(file: FileData, folder: Path, download: Download) -> None:
    """Keep the output of the last step in the folder, and remove everything else."""
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
    """Return the record that :func:`load_prepared` needs to reuse a pre-processed file."""
    path = file.local_path
    assert path is not None
    before = _json_fields(given, "local_path", "headers")
    after = _json_fields(file, "local_path", "headers", "error")
    return {
        INPUT: download.sha256,
        "local_path": None if path == download.path else str(path.relative_to(final)),
        "folder": path.is_dir(),
        "extent": _measure_input(path),
        "sha256": None if path == download.path else content_digest(path),
        "fields": {name: value for name, value in after.items() if before.get(name) != value or name not in before},
    }


def _json_fields(file: FileData, *excluded: str) -> dict[str, Any]:
    try:
        return {name: to_json(value, name) for name, value in file.model_dump(exclude=set(excluded)).items()}
    except (ValueError, RecursionError) as error:
        raise StageError(f"invalid field of the pre-processed file: {error}", "result") from error


def _record_path(final: Path) -> Path:
    return final.with_name(f"{final.name}.json")


def _measure_input(path: Path) -> list[int]:
    """Return the number of files and their size in bytes, for a file or a folder."""
    if not path.is_dir():
        return [1, path.stat().st_size]
    # Links are followed, as steps that read the files follow them too.
    sizes = [child.stat().st_size for child in path.rglob("*") if child.is_file()]
    return [len(sizes), sum(sizes)]
