"""How much one archive may become, counted while it is unpacked."""

from __future__ import annotations

from dpp import StageError

RATIO_FLOOR = 16 * 1024 * 1024


class Budget:
    """What is left of the limits of one archive.

    Args:
        packed_size: Size of the archive in bytes.
        max_bytes: Bytes that it may unpack to.
        max_ratio: How many times its own size it may unpack to; the first 16 MiB pass in any case.
        max_members: Files and folders that it may unpack to.
    """

    def __init__(self, packed_size: int, max_bytes: int, max_ratio: float, max_members: int) -> None:
        self._max_bytes = max_bytes
        self._max_ratio = max_ratio
        self._max_members = max_members
        self._most_by_ratio = max(RATIO_FLOOR, packed_size * max_ratio)
        self._bytes = self._members = 0

    def spend(self, count: int) -> None:
        """Count bytes before they are written.

        Raises:
            StageError: They would be too many.
        """
        self._bytes += count
        if self._bytes > self._max_bytes:
            raise _too_much(f"to more than {self._max_bytes} bytes", "max_bytes")
        if self._bytes > self._most_by_ratio:
            raise _too_much(f"to more than {self._max_ratio:g} times its own size", "max_ratio")

    def count_member(self) -> None:
        """Count a file or a folder before it is made.

        Raises:
            StageError: It would be one too many.
        """
        self._members += 1
        self.check_members(self._members)

    def check_members(self, count: int) -> None:
        """Refuse an archive that says by itself that it has too many members."""
        if count > self._max_members:
            raise _too_much(f"to more than {self._max_members} files and folders", "max_members")


def _too_much(what: str, option: str) -> StageError:
    return StageError(f"it would unpack {what}; if that is to be trusted, raise {option} of decompress", "archive-limit")
