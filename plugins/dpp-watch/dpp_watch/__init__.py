"""The command ``dpp watch``: process the files of a folder in batches of dpp when they are complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpp import hookimpl

if TYPE_CHECKING:
    import click

__all__ = ["dpp_commands"]


@hookimpl
def dpp_commands() -> list[click.Command]:
    """Return the command of this package."""
    from dpp_watch.command import watch  # noqa: PLC0415 - Luigi loads this package, too, and needs neither the command nor click

    return [watch]
