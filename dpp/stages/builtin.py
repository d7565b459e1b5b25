"""What dpp brings along, offered through the same hooks as any plugin's classes."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from typing import Any

from dpp.hookspecs import hookimpl
from dpp.models import FileData
from dpp.stages.http_requests import RequestsFetcher
from dpp.stages.local import LocalFetcher
from dpp.steps import BaseFetcher, BaseProcessor

OCTET_STREAM = "application/octet-stream"


class Checksum(BaseProcessor):
    """Tell a file's size in bytes, its digest and its media type.

    The media type is guessed from the name, as Python's ``mimetypes`` does it (RFC 6838 names).
    """

    name = "checksum"
    version = "1"

    algorithm: str = "sha256"

    def process(self, file: FileData) -> dict[str, Any]:
        """Return ``size``, the digest under its algorithm's name, and ``media_type``."""
        assert file.local_path is not None
        with file.local_path.open("rb") as stream:
            digest = hashlib.file_digest(stream, self.algorithm).hexdigest()
        media_type, _ = mimetypes.guess_type(file.local_path.name)
        return {"size": file.local_path.stat().st_size, self.algorithm: digest, "media_type": media_type or OCTET_STREAM}


@hookimpl(trylast=True)
def dpp_processors() -> list[type[BaseProcessor]]:
    """Offer the default processor."""
    return [Checksum]


@hookimpl(trylast=True)
def dpp_fetchers() -> Mapping[str, type[BaseFetcher]]:
    """Offer http and https with requests, and files of this machine."""
    return {"http": RequestsFetcher, "https": RequestsFetcher, "file": LocalFetcher}
