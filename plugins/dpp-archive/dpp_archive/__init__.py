"""Unpack compressed files and archives: a pre-processor for dpp that trusts nothing it unpacks."""

from __future__ import annotations

from dpp import BasePreProcessor, hookimpl

from dpp_archive.decompress import Decompress

__all__ = ["Decompress", "dpp_pre_processors"]


@hookimpl
def dpp_pre_processors() -> list[type[BasePreProcessor]]:
    """Offer the pre-processor."""
    return [Decompress]
