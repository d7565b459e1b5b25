"""A part in memory, which takes note of what a fetcher does against its contract."""

from __future__ import annotations

from typing import Any

from dpp.errors import StageError


class AttemptStopped(StageError):
    """End an attempt from within the part, as a disk that is full or a file that grows too long does."""

    def __init__(self) -> None:
        super().__init__("the test ends the download here", "stopped")


class MemoryPart:
    """A part of a download that lies in memory; see :class:`dpp.Part`.

    Args:
        data: The bytes that an earlier attempt left.
        etag: Their strong entity tag, if known.
        stops_after: Bytes after which ``write`` raises.

    Attributes:
        data: All bytes, those of the earlier attempt too.
        etag: What the last ``begin`` said of them.
        total: Size of the whole file in bytes, as the last ``begin`` said.
        began_at: Offset that ``begin`` was called with; None where it was not called.
        received: Bytes that were written in this attempt.
        problems: What was done against the contract, a sentence each.
    """

    def __init__(self, data: bytes = b"", etag: str | None = None, stops_after: int | None = None) -> None:
        self.waited = 0.0
        self.data = bytearray(data)
        self.etag = etag
        self.total: int | None = None
        self.began_at: int | None = None
        self.received = 0
        self.problems: list[str] = []
        self._stops_after = stops_after

    @property
    def offset(self) -> int:
        """How many bytes are there to continue from: 0 without an entity tag."""
        return len(self.data) if self.etag else 0

    def begin(self, offset: int = 0, *, total: int | None = None, etag: str | None = None, **facts: Any) -> None:
        """Start writing at an offset."""
        if self.began_at is not None:
            self.problems.append("begin() was called twice in one attempt")
        if offset not in (0, self.offset):
            self.problems.append(f"begin() was called with offset {offset}, expected 0 or {self.offset}")
        if etag is not None and not _is_strong(etag):
            self.problems.append(f"begin() was called with {etag!r}, which is no strong entity tag in quotes (RFC 9110, section 8.8.3)")
        del self.data[offset:]
        self.began_at, self.total, self.etag = offset, total, etag

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
