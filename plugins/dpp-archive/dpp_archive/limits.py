"""Limits of one archive, checked while it is unpacked."""

from __future__ import annotations

from dpp import StageError

# Small files with repeated content compress by more than any useful ratio; 16 MiB do no harm
RATIO_FLOOR = 16 * 1024 * 1024


class Budget:
    """Count the bytes and members of one archive against its limits.

    Args:
        packed_size: Size of the archive, in bytes.
        max_bytes: Maximum unpacked size, in bytes.
        max_ratio: Maximum ratio of unpacked to packed size; up to 16 MiB are always allowed.
        max_members: Maximum number of files and folders.
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
            StageError: They exceed a limit.
        """
        self._bytes += count
        if self._bytes > self._max_bytes:
            raise _too_much(f"to more than {self._max_bytes} bytes", "max_bytes")
        if self._bytes > self._most_by_ratio:
            raise _too_much(f"to more than {self._max_ratio:g} times its own size", "max_ratio")

    def count_member(self) -> None:
        """Count a file or a folder before it is created.

        Raises:
            StageError: It exceeds the limit.
        """
        self._members += 1
        self.check_members(self._members)

    def check_members(self, count: int) -> None:
        """Reject an archive that lists too many members.

        Raises:
            StageError: The count exceeds the limit.
        """
        if count > self._max_members:
            raise _too_much(f"to more than {self._max_members} files and folders", "max_members")


def _too_much(what: str, option: str) -> StageError:
    return StageError(f"the file would unpack {what}; if you trust it, raise {option} of decompress", "archive-limit")
