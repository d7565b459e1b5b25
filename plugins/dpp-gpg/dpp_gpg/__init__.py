"""Decrypt files and verify detached signatures with GnuPG: pre-processors for dpp."""

from __future__ import annotations

from dpp import BasePreProcessor, hookimpl

from dpp_gpg.decrypt import GpgDecrypt
from dpp_gpg.verify import GpgVerify

__all__ = ["GpgDecrypt", "GpgVerify", "dpp_pre_processors"]


@hookimpl
def dpp_pre_processors() -> list[type[BasePreProcessor]]:
    """Offer both pre-processors."""
    return [GpgDecrypt, GpgVerify]
