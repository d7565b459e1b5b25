"""The pre-processor and its options."""

from __future__ import annotations

from pathlib import Path

from dpp import BasePreProcessor, FileData, StageError
from pydantic import ByteSize, Field

from dpp_archive.formats import HEAD, SMALLEST, Promise, detect, promised, suffix
from dpp_archive.limits import Budget
from dpp_archive.unpack import mismatch, too_short, unpack

KEPT = (
    *("docx", "docm", "dotx", "xlsx", "xlsm", "xlsb", "xltx", "pptx", "pptm", "ppsx", "vsdx"),
    *("odt", "ods", "odp", "odg", "pages", "numbers", "key", "epub", "kmz", "3mf", "xps", "oxps", "npz"),
    *("jar", "war", "ear", "aar", "apk", "aab", "ipa", "xpi", "whl", "nupkg", "vsix"),
    *("bam", "svgz", "rds", "rdata", "gem", "crate", "ova"),
)


class Decompress(BasePreProcessor):
    """Unpack a file: what is compressed becomes a file, an archive becomes a folder, anything else stays as it is."""

    name = "decompress"
    version = "1"
    blames_input = frozenset({f"archive-{word}" for word in ("corrupt", "limit", "mismatch", "truncated", "unsafe")})

    required: bool = False
    """Fail a file that is not unpacked."""
    check_suffix: bool = True
    """Fail a file whose suffix is that of a compressed file or an archive, but whose content is not."""
    explode: bool = False
    """Pass each file of an archive to the later steps as a file of its own."""
    keep: tuple[str, ...] = KEPT
    """Suffixes of archives that stay packed."""
    max_bytes: ByteSize = Field(ByteSize(100 * 1024**3), gt=0)
    """Maximum bytes that a file unpacks to, such as ``100GiB``."""
    max_ratio: float = Field(1000, ge=1, allow_inf_nan=False)
    """Maximum ratio of unpacked to packed bytes; 16 MiB are always allowed."""
    max_members: int = Field(100_000, ge=1)
    """Maximum files and folders per archive."""

    def pre_process(self, file: FileData) -> FileData:
        """Return the file with ``local_path`` and ``name`` of what it was unpacked to."""
        path, into = file.local_path, file.output_dir
        assert path is not None
        assert into is not None
        promise = promised(path.name) if self.check_suffix else None
        kind = self._kind(path, promise)
        if kind is None:
            return self._left_alone(file)
        budget = Budget(path.stat().st_size, self.max_bytes, self.max_ratio, self.max_members)
        file.local_path = unpack(path, kind, into, budget, promise)
        file.name = file.local_path.name
        file.exploded = self.explode
        return file

    def _kind(self, path: Path, promise: Promise | None) -> str | None:
        """Return which format a file is, or None where it is to be left alone."""
        if path.is_dir() or suffix(path.name) in {kept.lower().lstrip(".") for kept in self.keep}:
            return None
        with path.open("rb") as source:
            head = source.read(HEAD)
        kind = detect(head)
        if kind or promise is None:
            return kind
        size = path.stat().st_size
        if size < SMALLEST[promise.kind]:
            raise too_short(size, promise.kind)
        if promise.kind != "tar":  # which begins with zeros where it has no members; its reader will tell
            raise mismatch(promise.kind)
        return "tar"

    def _left_alone(self, file: FileData) -> FileData:
        if self.required:
            reason = "it is neither compressed nor an archive, or its suffix is in keep; leave it out of the batch or set required to false"
            raise StageError(reason, "archive-required")
        return file
