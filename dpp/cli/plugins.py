"""``dpp plugins``: what is installed, and why something is not used."""

from __future__ import annotations

import click

from dpp.cli.output import print_table
from dpp.plugins import Origin, registry


@click.command()
def plugins() -> None:
    """List plugins, and why some are not used.

    \b
    Switch one off for a run:
      DPP_DISABLE_PLUGINS=linecount dpp run files.json
    """
    found = registry()
    rows = [(offer.name, offer.kind, getattr(offer.cls, "version", ""), offer.origin.distribution, "enabled") for offer in found.offers]
    offering = {offer.origin for offer in found.offers}
    rows += [(origin.plugin, "plugin", "", origin.distribution, _state(origin)) for origin in found.origins if origin not in offering]
    print_table(("name", "kind", "version", "distribution", "state"), rows)


def _state(origin: Origin) -> str:
    return f"{origin.state}: {origin.reason}" if origin.reason else origin.state
