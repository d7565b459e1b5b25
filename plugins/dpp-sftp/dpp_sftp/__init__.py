"""A source and a fetcher for dpp that list and download ``sftp:`` URLs with asyncssh."""

# Importing asyncssh takes 0.1 s, so the modules that need it are imported when the first connection is opened.

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dpp import BaseFetcher, Settings, hookimpl

from dpp_sftp.fetcher import SftpFetcher
from dpp_sftp.options import SftpOptions
from dpp_sftp.source import entries

__all__ = ["SftpFetcher", "SftpOptions", "dpp_fetchers", "dpp_source_schemes", "dpp_sources"]


@hookimpl
def dpp_fetchers() -> Mapping[str, type[BaseFetcher]]:
    """Return the fetcher for ``sftp``."""
    return {"sftp": SftpFetcher}


@hookimpl
def dpp_source_schemes() -> tuple[str, ...]:
    """Return the URL scheme that ``dpp_sources`` accepts."""
    return ("sftp",)


@hookimpl
def dpp_sources(files: str, settings: Settings) -> Iterable[Mapping[str, Any]] | None:
    """Return the files of the folder in an ``sftp:`` URL, or None for other schemes."""
    return entries(files, settings) if files.lower().startswith("sftp:") else None
