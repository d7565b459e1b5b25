"""S3 for dpp: list a bucket, download its objects, and upload files to one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dpp import BaseFetcher, BasePostProcessor, Settings, hookimpl

from dpp_s3.fetcher import S3Fetcher
from dpp_s3.listing import S3Files, listed
from dpp_s3.upload import S3Upload

__all__ = ["S3Fetcher", "S3Files", "S3Upload", "dpp_fetchers", "dpp_post_processors", "dpp_source_schemes", "dpp_sources"]


@hookimpl
def dpp_fetchers() -> Mapping[str, type[BaseFetcher]]:
    """Return the fetcher for ``s3``."""
    return {"s3": S3Fetcher}


@hookimpl
def dpp_post_processors() -> list[type[BasePostProcessor]]:
    """Return the post-processor of this package."""
    return [S3Upload]


@hookimpl
def dpp_source_schemes() -> tuple[str, ...]:
    """Return the URL scheme that ``dpp_sources`` accepts."""
    return ("s3",)


@hookimpl
def dpp_sources(files: str, settings: Settings) -> Iterable[Mapping[str, Any]] | None:
    """Return the files of a URL such as ``s3://bucket/prefix?pattern=*.csv``, or None for other schemes."""
    return listed(files, settings) if files.lower().startswith("s3://") else None
