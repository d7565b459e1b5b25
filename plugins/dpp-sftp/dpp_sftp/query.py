"""What the query of a source's URL asks for, such as ``?pattern=*.gpg&min_age=10m``."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Query(NamedTuple):
    """Which files of a folder are wanted.

    Attributes:
        pattern: Shell patterns, one of which a file has to match; all files where there is none.
        recursive: Whether folders below count too.
        min_age: Seconds that a file must not have been changed for.
        offset: How many files to leave out at the beginning.
        limit: Most files; None for all.
        signatures: Whether detached signatures go with their files.
    """

    pattern: Sequence[str] = ()
    recursive: bool = False
    min_age: float = 0.0
    offset: int = 0
    limit: int | None = None
    signatures: bool = False

    def matches(self, path: str) -> bool:
        """Whether a file's relative path is wanted: a pattern with a slash is for the path, any other for the name."""
        name = path.rpartition("/")[2]
        return not self.pattern or any(fnmatch.fnmatchcase(path if "/" in pattern else name, pattern) for pattern in self.pattern)


def parse(text: str) -> Query:
    """Return what a query asks for.

    Raises:
        ValueError: A parameter is unknown, comes twice, or has a value that makes no sense; all problems are named.
    """
    found: dict[str, Any] = {}
    problems = []
    for name, value in (_pair(pair) for pair in text.split("&") if pair):
        try:
            _add(found, name, value)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("; ".join(problems))
    return Query(**found)


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return unquote(name), unquote(value)  # a plus is a plus: patterns hold them


def _add(found: dict[str, Any], name: str, value: str) -> None:
    if name not in _READERS:
        raise ValueError(f"unknown parameter {name!r}; known are {', '.join(_READERS)}")
    if not value:
        raise ValueError(f"{name} has no value")
    if name == "pattern":
        found[name] = (*found.get(name, ()), value)
    elif name in found:
        raise ValueError(f"{name} is given twice")
    else:
        found[name] = _READERS[name](name, value)


def _flag(name: str, value: str) -> bool:
    if value.lower() not in _FLAGS:
        raise ValueError(f"{name} should be true or false")
    return _FLAGS[value.lower()]


def _count(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"{name} should be a whole number, 0 or more")
    return int(value)


def _duration(name: str, value: str) -> float:
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError(f"{name} should be a time in seconds, or such as 10m, 2h, 1d")
    return float(match[1]) * _SECONDS[match[2]]


_READERS: dict[str, Callable[[str, str], Any]] = {
    "pattern": lambda _, value: value,
    "recursive": _flag,
    "min_age": _duration,
    "offset": _count,
    "limit": _count,
    "signatures": _flag,
}
