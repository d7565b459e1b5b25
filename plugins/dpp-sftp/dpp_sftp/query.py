"""The query of a source's URL, such as ``?pattern=*.gpg&min_age=10m``."""

from __future__ import annotations

import re
from typing import Any

from dpp import SourceQuery
from pydantic import Field, field_validator

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class FolderQuery(SourceQuery):
    """The query of an ``sftp:`` URL; see :class:`dpp.SourceQuery`.

    Attributes:
        min_age: Minimum seconds since the last change of a file.
        signatures: Whether entries include the detached signatures of their files.
    """

    min_age: float = Field(0.0, ge=0)
    signatures: bool = False

    @field_validator("min_age", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = _DURATION.fullmatch(value)
        if match is None:
            raise ValueError("should be a time in seconds, or with a unit such as 10m, 2h, 1d")
        return float(match[1]) * _SECONDS[match[2]]
