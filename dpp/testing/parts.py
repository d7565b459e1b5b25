"""A part in memory that records violations of a fetcher's contract."""

from __future__ import annotations

from typing import Any

from dpp.errors import StageError


class AttemptStopped(StageError):
    """The error with which ``MemoryPart.write`` ends a download, like that of a full disk or of a file that is too large."""

    def __init__(self) -> None:
        super().__init__("the test stopped the download", "stopped")


class MemoryPart:
    """A partial download in memory; see :class:`dpp.Part`.

    Args:
        data: The bytes of an earlier attempt.
        etag: Their strong entity tag, or None.
        stops_after: Number of bytes after which ``write`` raises :class:`AttemptStopped`, or None.

    Attributes:
        data: All bytes, those of the earlier attempt included.
        etag: Entity tag of the last ``begin``.
        total: Size of the complete file in bytes, from the last ``begin``.
        began_at: Offset of the last ``begin``, or None if it was not called.
        source_version: Version of the source, from the last ``begin``, or None.
        received: Number of bytes written in this attempt.
        problems: Violations of the contract, one sentence each.
    """

    def __init__(self, data: bytes = b"", etag: str | None = None, stops_after: int | None = None) -> None:
        self.waited = 0.0
        self.data = bytearray(data)
        self.etag = etag
        self.total: int | None = None
        self.source_version: str | None = None
        self.began_at: int | None = None
        self.received = 0
        self.problems: list[str] = []
        self._stops_after = stops_after

    @property
    def offset(self) -> int:
        """Number of bytes from which the download can be resumed; 0 without an entity tag."""
        return len(self.data) if self.etag else 0

    def begin(self, offset: int = 0, *, total: int | None = None, etag: str | None = None, **facts: Any) -> None:
        """Start writing at an offset."""
        if self.began_at is not None:
            self.problems.append("begin() was called twice in one attempt")
        if offset not in (0, self.offset):
            self.problems.append(f"begin() was called with offset {offset}, expected 0 or {self.offset}")
        if etag is not None and not _is_strong(etag):
            self.problems.append(f"begin() was called with {etag!r}, which is not a strong entity tag in quotes (RFC 9110, section 8.8.3)")
        del self.data[offset:]
        self.began_at, self.total, self.etag = offset, total, etag
        self.source_version = facts.get("source_version")

    def write(self, data: bytes) -> None:
        """Append bytes."""
        if self.began_at is None:
            self.problems.append("write() was called before begin()")
        room = len(data) if self._stops_after is None else max(0, self._stops_after - self.received)
        self.data += data[:room]
        self.received += min(room, len(data))
        if room < len(data):
            raise AttemptStopped


def _is_strong(etag: str) -> bool:
    return len(etag) > 1 and etag.startswith('"') and etag.endswith('"')
