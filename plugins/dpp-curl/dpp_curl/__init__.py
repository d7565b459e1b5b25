"""Fetch http and https with libcurl: a faster fetcher for dpp.

Installed, it takes the place of dpp's own fetcher, which is made of requests; the rules of HTTP are the same
ones, from :mod:`dpp.http`.
"""

from __future__ import annotations

from collections.abc import Mapping

from dpp import BaseFetcher, hookimpl

from dpp_curl.fetcher import CurlFetcher

__all__ = ["CurlFetcher", "dpp_fetchers"]


@hookimpl
def dpp_fetchers() -> Mapping[str, type[BaseFetcher]]:
    """Offer http and https."""
    return {"http": CurlFetcher, "https": CurlFetcher}
