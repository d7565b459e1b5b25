"""A fetcher for dpp that downloads ``http`` and ``https`` URLs with libcurl, in place of dpp's own fetcher."""

from __future__ import annotations

from collections.abc import Mapping

from dpp import BaseFetcher, hookimpl

from dpp_curl.fetcher import CurlFetcher

__all__ = ["CurlFetcher", "dpp_fetchers"]


@hookimpl
def dpp_fetchers() -> Mapping[str, type[BaseFetcher]]:
    """Return the fetcher for ``http`` and ``https``."""
    return {"http": CurlFetcher, "https": CurlFetcher}
