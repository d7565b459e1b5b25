"""A pre-processor for dpp that unpacks compressed files and untrusted archives."""

from __future__ import annotations

from dpp import BasePreProcessor, hookimpl

from dpp_archive.decompress import Decompress

__all__ = ["Decompress", "dpp_pre_processors"]


@hookimpl
def dpp_pre_processors() -> list[type[BasePreProcessor]]:
    """Return the pre-processor of this package."""
    return [Decompress]
