"""List and fetch ``sftp:`` URLs: a source and a fetcher for dpp, on asyncssh.

asyncssh takes a tenth of a second to import, so the modules that need it are imported when the first connection is made.
"""

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
    """Offer sftp."""
    return {"sftp": SftpFetcher}


@hookimpl
def dpp_source_schemes() -> tuple[str, ...]:
    """List sftp."""
    return ("sftp",)


@hookimpl
def dpp_sources(files: str, settings: Settings) -> Iterable[Mapping[str, Any]] | None:
    """List the folder that an ``sftp:`` URL names; None for anything else."""
    return entries(files, settings) if files.lower().startswith("sftp:") else None
