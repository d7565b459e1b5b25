"""The checked files of a batch on disk, as JSON Lines, and the offsets of its chunks.

A manifest is read once, as a stream. Only two hashes of 64 bits and one offset per file stay in memory: about a hundred
megabytes for a million files.
"""

from __future__ import annotations

import enum
import logging
import os
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import compress, count
from pathlib import Path
from typing import NamedTuple, Self

from dpp import names
from dpp.errors import SHOWN_PROBLEMS, InputError, ManifestError
from dpp.manifest.digests import UnreadDigests
from dpp.manifest.entries import Entry
from dpp.manifest.readers import BAD_ENTRY, Listed, as_text, bad_entry, check
from dpp.models import DIGESTS, FileData, key_of
from dpp.shards import Census
from dpp.workspace.atomic import stops_run

log = logging.getLogger(__name__)


class Chunk(NamedTuple):
    """Consecutive lines of a catalog: byte offset of the first line, and number of lines."""

    offset: int
    size: int


def write_catalog(
    path: Path,
    source: str,
    entries: Iterable[Entry],
    schemes: Collection[str],
    chunk_size: Callable[[int], int],
    *,
    skip_bad: bool = False,
    census: Census | None = None,
) -> list[Chunk]:
    """Check every entry of a manifest and write the files it lists, or those of a shard.

    Args:
        path: Path of the catalog; only its owner can read it, as URLs and headers may contain secrets.
        source: Name of the manifest in messages.
        entries: The entries as read.
        schemes: URL schemes that can be fetched.
        chunk_size: Returns the number of files per chunk, given the total.
        skip_bad: Whether an invalid entry becomes a file that fails, instead of raising ManifestError.
        census: Counter of the entries, which finds those of the shard; None if all files are written.

    Returns:
        The chunks, in the order of the manifest.

    Raises:
        ManifestError: Some entries are invalid; it lists all problems.
        InputError: There is not enough memory for all entries.
    """
    ids, unread, members = _Ids(), UnreadDigests(), bytearray()
    try:
        with _Writer(path) as writer:
            for listed in _admitted(source, _seen(entries, unread), set(schemes) - {BAD_ENTRY}, ids, census, skip_bad=skip_bad):
                writer.write(listed.text)
                members.append(listed.is_member)
    except MemoryError as error:
        # This frees the memory, which the code that handles the error needs.
        ids = _Ids()
        raise InputError(f"{source}: not enough memory for this many files; split the manifest into several") from error
    if ids.contested:
        writer = _with_other_ids(path, len(writer.offsets), ids)
    if census is not None:
        census.files = len(members)
        writer = _only(path, members)
    if ids.duplicates:
        log.warning("%s: dropped %d exact duplicates", source, ids.duplicates)
    if columns := unread.names():
        log.warning("%s: not compared, although it looks like digests: %s; dpp compares %s", source, ", ".join(columns), ", ".join(DIGESTS))
    return writer.chunks(chunk_size(len(writer.offsets)))


def read_catalog(path: Path, chunk: Chunk, numbers: Iterable[int] | None = None) -> Iterator[FileData]:
    """Yield the files of a chunk, or those with the given numbers in it: from 0, in ascending order."""
    with path.open("rb") as stream:
        stream.seek(chunk.offset)
        following = 0
        for number in range(chunk.size) if numbers is None else numbers:
            for _ in range(following, number):
                stream.readline()
            following = number + 1
            # Validation is faster than model_construct, which is pure Python.
            yield FileData.model_validate_json(stream.readline())


def _seen(entries: Iterable[Entry], unread: UnreadDigests) -> Iterator[Entry]:
    for entry in entries:
        unread.see(entry.fields or {})
        yield entry


class _Verdict(enum.Enum):
    NEW = enum.auto()
    DUPLICATE = enum.auto()
    CONFLICT = enum.auto()


class _Ids:
    """Distinguish new files from duplicates and conflicts, and make derived ids unique."""

    # If several URLs lead to one id, all of them get another id, from their URLs. So ids do not depend on the order of the
    # manifest, and a new line in it changes only the ids of files that it shares an id with.

    def __init__(self) -> None:
        self._given: dict[int, int] = {}
        self._derived: set[int] = set()
        self._without_id: set[int] = set()
        self.contested: set[str] = set()
        self.duplicates = 0

    def admit(self, file: FileData, content: int) -> _Verdict:
        verdict = self._given_id(file, content) if "id" in file.model_fields_set else self._derived_id(file, content)
        self.duplicates += verdict is _Verdict.DUPLICATE
        return verdict

    def _given_id(self, file: FileData, content: int) -> _Verdict:
        known = self._given.get(names.mark(file.id))
        if known is not None:
            return _Verdict.DUPLICATE if known == content else _Verdict.CONFLICT
        self._given[names.mark(file.id)] = content
        if names.mark(file.id) in self._derived:
            self.contested.add(file.id)
        return _Verdict.NEW

    def _derived_id(self, file: FileData, content: int) -> _Verdict:
        if content in self._without_id:
            return _Verdict.DUPLICATE
        self._without_id.add(content)
        plain = file.id
        self.make_unique(file)
        if file.id != plain and names.mark(plain) in self._derived:
            self.contested.add(plain)
        return _Verdict.NEW

    def make_unique(self, file: FileData) -> None:
        """Keep a file's derived id if it is unused; else derive one from its URL, or from all its fields."""
        free = next(found for found in _wanted_ids(file) if names.mark(found) not in self._given and names.mark(found) not in self._derived)
        if free != file.id:
            file.id = free
        self._derived.add(names.mark(free))


def _wanted_ids(file: FileData) -> Iterator[str]:
    yield file.id
    yield f"{file.id}-{names.digest(names.identity(file.url), digits=8)}"
    text = file.model_dump_json(exclude={"id"})
    yield from (f"{file.id}-{names.digest(text, str(number), digits=8)}" for number in count())


class _Admitted(NamedTuple):
    """A file's line for the catalog, and whether the file is in the shard."""

    text: str
    is_member: bool


def _admitted(
    source: str, entries: Iterable[Entry], schemes: Collection[str], ids: _Ids, census: Census | None, *, skip_bad: bool
) -> Iterator[_Admitted]:
    problems: list[str] = []
    total = 0
    for entry in entries:
        found = _admit(entry, check(entry, schemes), ids, census)
        if skip_bad and isinstance(found, list) and found:
            log.warning("%s: %s", source, "; ".join(found))
            found = _admit(entry, bad_entry(entry, found), ids, census)
        if isinstance(found, _Admitted):
            if not total:
                yield found
            continue
        total += len(found)
        problems += found[: SHOWN_PROBLEMS - len(problems)]
    if total:
        raise ManifestError(source, problems, total)


def _admit(entry: Entry, found: Listed | list[str], ids: _Ids, census: Census | None) -> _Admitted | list[str]:
    """Return a file that is added to the catalog, or the problems of its entry: an empty list for a duplicate."""
    if not isinstance(found, Listed):
        return found
    file, text = found
    derived = file.id
    # With the id that the entry alone gives it: one that other entries change would let a shard depend on them.
    is_member = census is None or census.takes(key_of(file))
    verdict = ids.admit(file, names.mark(text))
    if verdict is _Verdict.NEW:
        return _Admitted(text if file.id == derived else as_text(file), is_member)
    return [_conflict(entry, file)] if verdict is _Verdict.CONFLICT else []


def _conflict(entry: Entry, file: FileData) -> str:
    return f"{entry.where}: id {file.id!r} was used before with another URL or other fields; give each file its own id"


class _Writer:
    """Write files as lines, and record the offset of each line."""

    def __init__(self, path: Path) -> None:
        self.offsets = array("Q")
        self._path = path
        self._position = 0
        with stops_run(path):
            self._stream = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with stops_run(self._path):
            self._stream.close()

    def write(self, text: str) -> None:
        line = text.encode() + b"\n"
        with stops_run(self._path):
            self._stream.write(line)
        self.offsets.append(self._position)
        self._position += len(line)

    def chunks(self, size: int) -> list[Chunk]:
        total = len(self.offsets)
        return [Chunk(self.offsets[start], min(size, total - start)) for start in range(0, total, size)]


def _with_other_ids(path: Path, total: int, ids: _Ids) -> _Writer:
    """Give the first file of each contested id another id; the later ones have theirs already."""
    changed = path.with_suffix(".new")
    with _Writer(changed) as writer:
        for file in read_catalog(path, Chunk(0, total)):
            if file.id in ids.contested:
                ids.contested.discard(file.id)
                ids.make_unique(file)
            writer.write(as_text(file))
    changed.replace(path)
    return writer


def _only(path: Path, members: Sequence[int]) -> _Writer:
    """Keep the lines of a catalog whose files are in the shard."""
    # At the end, as the ids of the files depend on the whole manifest.
    kept = path.with_suffix(".new")
    with path.open(encoding="utf-8", newline="\n") as lines, _Writer(kept) as writer:
        for line in compress(lines, members):
            writer.write(line.removesuffix("\n"))
    kept.replace(path)
    return writer
