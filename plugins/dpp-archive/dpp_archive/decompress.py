"""The pre-processor ``decompress`` and its options."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

from dpp import BasePreProcessor, FileData, StageError
from pydantic import AfterValidator, ByteSize, Field

from dpp_archive.content import HEAD, UNKNOWN, UNSUPPORTED_SUFFIXES, described, detect, unsupported
from dpp_archive.folder import Rules, shown
from dpp_archive.formats import SMALLEST, Promise, promised, suffix
from dpp_archive.limits import Budget
from dpp_archive.names import check_encoding
from dpp_archive.unpack import Unpacked, mismatch, too_short, unpack
from dpp_archive.zips import has_end_record

log = logging.getLogger("dpp.archive")

# These are compressed inside, but people and programs handle each one as a single document or package
KEPT = (
    *("docx", "docm", "dotx", "xlsx", "xlsm", "xlsb", "xltx", "pptx", "pptm", "ppsx", "vsdx"),
    *("odt", "ods", "odp", "odg", "pages", "numbers", "key", "epub", "kmz", "3mf", "xps", "oxps", "npz"),
    *("jar", "war", "ear", "aar", "apk", "aab", "ipa", "xpi", "whl", "nupkg", "vsix"),
    *("bam", "svgz", "rds", "rdata", "gem", "crate", "ova"),
)


class Decompress(BasePreProcessor):
    """Unpack a compressed file to a file and an archive to a folder; leave any other file unchanged."""

    name = "decompress"
    version = "2"
    blames_input = frozenset({f"archive-{word}" for word in ("corrupt", "limit", "mismatch", "truncated", "unsafe")})

    required: bool = False
    """Whether a file fails if there is nothing to unpack."""
    check_suffix: bool = True
    """Whether a file fails if its suffix names a compressed format or an archive but its content does not match."""
    explode: bool = False
    """Whether each file of an archive is passed to the later steps separately."""
    keep: tuple[str, ...] = KEPT
    """Suffixes of archives that are not unpacked; a new list replaces the default."""
    name_encoding: Annotated[str, AfterValidator(check_encoding)] | None = None
    """Encoding of member names that are not marked as UTF-8, such as ``cp932`` or ``gbk``; by default it is guessed."""
    links: Literal["fail", "skip"] = "fail"
    """What is done with links in an archive: ``fail`` rejects the archive, ``skip`` unpacks the rest and reports how many were skipped."""
    max_bytes: ByteSize = Field(ByteSize(100 * 1024**3), gt=0)
    """Maximum unpacked size per file, in bytes or with a unit such as ``100GiB``."""
    max_ratio: float = Field(1000, ge=1, allow_inf_nan=False)
    """Maximum ratio of unpacked to packed size; up to 16 MiB are always allowed."""
    max_members: int = Field(100_000, ge=1)
    """Maximum number of files and folders per archive."""

    def pre_process(self, file: FileData) -> FileData:
        """Unpack the file into its ``output_dir`` and set ``local_path`` and ``name`` to the result."""
        path, into = file.local_path, file.output_dir
        assert path is not None
        assert into is not None
        promise = promised(path.name) if self.check_suffix else None
        kind = self._kind(path, promise)
        if kind is None:
            return self._unchanged(file)
        budget = Budget(path.stat().st_size, self.max_bytes, self.max_ratio, self.max_members)
        unpacked = unpack(path, kind, into, budget, promise, Rules(self.name_encoding, self.links == "skip"))
        _report(file, unpacked)
        file.local_path, file.name = unpacked.path, unpacked.path.name
        file.exploded = self.explode
        return file

    def _kind(self, path: Path, promise: Promise | None) -> str | None:
        """Return the format of a file, or None if it is not to be unpacked.

        Raises:
            StageError: Its format is one that cannot be unpacked, or not the one of its suffix.
        """
        kept = {name.lower().lstrip(".") for name in self.keep}
        if path.is_dir() or suffix(path.name) in kept:
            return None
        with path.open("rb") as source:
            head = source.read(HEAD)
        kind = detect(head)
        if kind is None and (packed := _unsupported(head, promise)):
            # Also for a name without suffix
            if packed in map(UNSUPPORTED_SUFFIXES.get, kept):
                return None
            raise _cannot_unpack(packed)
        if kind or promise is None:
            return kind
        size = path.stat().st_size
        if size < SMALLEST.get(promise.kind, 1):
            raise too_short(size, promise.kind, head)
        # A self-extracting zip, or the last part of a split one; the zip reader says which
        if promise.kind == "zip" and has_end_record(path):
            return "zip"
        # A tar without members has only zeros and so no magic number; the tar reader checks it
        if promise.kind != "tar":
            raise mismatch(promise.kind, head)
        return "tar"

    def _unchanged(self, file: FileData) -> FileData:
        if self.required:
            raise StageError(
                "the file is neither compressed nor an archive, or its suffix is listed in keep; "
                "remove it from the batch, or set required of decompress to false",
                "archive-required",
            )
        return file


def _unsupported(head: bytes, promise: Promise | None) -> str | None:
    """Return the format of a file that is packed in a way that cannot be unpacked, or None."""
    kind = unsupported(head)
    # Brotli has no magic number, and some formats have variants without one
    if kind is None and promise and promise.kind in UNSUPPORTED_SUFFIXES.values() and described(head) == UNKNOWN:
        return promise.kind
    return kind


def _cannot_unpack(kind: str) -> StageError:
    suffix_of_kind = next((suffix for suffix, named in UNSUPPORTED_SUFFIXES.items() if named == kind), "its suffix")
    return StageError(
        f"the file has the format {kind}, which decompress cannot unpack; unpack it in a step of your own, "
        f"or add {suffix_of_kind} to keep of decompress to leave such files packed",
        "archive-unsupported",
    )


def _report(file: FileData, unpacked: Unpacked) -> None:
    """Log warnings about an archive; the number of skipped links is also a field of the file, for later steps."""
    skipped = unpacked.skipped_links
    if skipped:
        log.warning("%s: links of the archive skipped: %d, the first is %s", file.id, len(skipped), shown(skipped[0]))
        assert file.model_extra is not None
        file.model_extra["skipped_links"] = len(skipped)
    for warning in unpacked.warnings:
        log.warning("%s: %s", file.id, warning)
