"""Pre-processors for dpp that decrypt files and verify detached signatures with GnuPG."""

from __future__ import annotations

from dpp import BasePreProcessor, hookimpl

from dpp_gpg.decrypt import GpgDecrypt
from dpp_gpg.verify import GpgVerify

__all__ = ["GpgDecrypt", "GpgVerify", "dpp_pre_processors"]


@hookimpl
def dpp_pre_processors() -> list[type[BasePreProcessor]]:
    """Return the pre-processors of this package."""
    return [GpgDecrypt, GpgVerify]
