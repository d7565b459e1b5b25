"""Shards of a batch: disjoint parts of a manifest that machines run without a shared disk, and how they are told apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from dpp import names

EXAMPLE = "NUMBER/COUNT, such as 3/8 for the third of 8 shards"
_SHARD = re.compile(r"0*(\d{1,6})/0*(\d{1,6})", re.ASCII)
_SUM_BITS = (1 << 64) - 1


@dataclass(frozen=True)
class Shard:
    """One of several parts of a batch.

    Attributes:
        number: Number of the shard, from 1.
        count: Number of shards.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the shard that a text such as ``3/8`` names.

        Raises:
            ValueError: The text names no shard.
        """
        match = _SHARD.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"should be {EXAMPLE}, got {text!r}")
        shard = cls(int(match[1]), int(match[2]))
        if not 1 <= shard.number <= shard.count:
            raise ValueError(f"should be {EXAMPLE}; shards are numbered from 1 (add 1 to an array index that starts at 0), got {text!r}")
        return shard

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def has(self, key: str) -> bool:
        """Whether a file is in the shard, given its key."""
        return _number_of(key) % self.count == self.number - 1


class Census:
    """Count the entries of a manifest, find those of a shard, and compute a digest of all, which tells manifests apart.

    The digest does not depend on the order of the entries, nor on the path of the manifest, which machines have in different places.

    Args:
        shard: The shard.

    Attributes:
        files: Number of files in all shards, without duplicates.
        skipped: Number of files of the shard that are skipped, as the destination has them.
    """

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._entries = 0
        self._sum = 0
        self.files = 0
        self.skipped = 0

    def takes(self, key: str) -> bool:
        """Count an entry; return whether it is in the shard.

        Args:
            key: Key of its file, made from the entry alone: it must not depend on which other entries there are.
        """
        self._entries += 1
        self._sum += _number_of(key)
        return self._shard.has(key)

    def skip(self, key: str) -> None:
        """Count an entry that is skipped, as the destination has its file."""
        self.skipped += self.takes(key)

    def digest(self) -> str:
        """Return the digest of the entries counted so far."""
        return names.digest(str(self._entries), str(self._sum & _SUM_BITS))


def _number_of(key: str) -> int:
    # A key ends with digits of a SHA-256, which are evenly distributed.
    return int(key[-names.KEY_DIGITS :], 16)
