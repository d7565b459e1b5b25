"""Read the lines of a manifest, each of limited length, and look at the first one before a format is chosen."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import IO, Self

from dpp.manifest.json_stream import LONGEST

PIECE = 64 * 1024
_ENDS = ("\n", "\r")
# What str.strip() removes, and characters without a width, which editors and web pages leave around text.
BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u200b\u200c\u200d\u2060\ufeff"


class TooLongError(Exception):
    """Report a row that is longer than the limit for an entry."""


class Lines:
    """Iterate over the lines of a manifest, with their line ends, and count them; a row of lines has at most 1 MiB.

    Args:
        stream: The manifest.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.number = 0
        self._stream = stream
        self._ahead = ""
        self._room = LONGEST

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line, self._ahead = self._ahead, ""
        if not line.endswith(_ENDS):
            line += self._stream.readline(self._room + 1 - len(line))
        if not line:
            raise StopIteration
        self.number += 1
        self._room -= len(line)
        if self._room < 0:
            raise TooLongError
        return line

    def first(self, is_comment: Callable[[str], bool]) -> str:
        """Return the first line with content, at most 64 KiB of it, which stays to be read; "" if there is none.

        Args:
            is_comment: Whether a line is a comment; such lines and blank lines before the first are skipped.
        """
        while piece := self._ahead or self._stream.readline(PIECE):
            whole = piece.endswith(_ENDS)
            if piece.strip(BLANKS) and not (whole and is_comment(piece)):
                self._ahead = piece
                return piece
            self._ahead = ""
            self.number += whole
        return ""

    def rows(self) -> Iterator[str]:
        """Yield the lines that are not blank, each of which is a row."""
        for line in self:
            self.end_row()
            if line.strip():
                yield line

    def end_row(self) -> None:
        """Record that a row has ended."""
        # Only rows of CSV can have several lines.
        self._room = LONGEST

    def rest(self) -> Iterator[str]:
        """Yield the rest of the text, in pieces."""
        return itertools.chain([self._ahead], iter(functools.partial(self._stream.read, PIECE), ""))
