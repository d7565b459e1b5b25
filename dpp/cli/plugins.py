"""``dpp plugins``: list the installed plugins, describe them, and show why some are not used."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click

from dpp.cli.completion import OFFERED
from dpp.cli.options import format_option
from dpp.cli.output import print_json, print_table, print_text
from dpp.errors import ConfigurationError
from dpp.names import suggestion
from dpp.plugins.describe import options_of, purpose
from dpp.plugins.registry import BUILT_IN, Offer, Origin, registry
from dpp.redact import printable


@click.command()
@click.argument("name", default="", shell_complete=OFFERED)
@format_option("text", "json", help="Output format: text, or json (with the options of every plugin).")
def plugins(name: str, form: str) -> None:
    """List plugins, and why some are not used.

    With NAME, describe that step or fetcher and its options. Set options with --options, or in section [NAME] of luigi.cfg.

    \b
    Examples:
      dpp plugins
      dpp plugins checksum
      DPP_DISABLE_PLUGINS=linecount dpp plugins --format json
    """
    found = registry()
    offers = [offer for offer in found.offers if name in ("", offer.name)]
    if not offers:
        raise ConfigurationError(f"no plugin provides {name!r}; {suggestion(name, (offer.name for offer in found.offers))}")
    offering = {offer.origin for offer in found.offers}
    others = [] if name else [origin for origin in found.origins if origin not in offering]
    if form == "json":
        print_json(json.dumps([*map(_offer_details, offers), *map(_unused, others)], indent=2))
    elif name:
        _print_manual(offers)
    else:
        columns = ("name", "kind", "version", "distribution", "state")
        print_table(columns, ([row[column] for column in columns] for row in (*map(_offer_facts, offers), *map(_unused, others))))


def _offer_facts(offer: Offer) -> dict[str, object]:
    version = getattr(offer.cls, "version", "")
    return {"name": offer.name, "kind": offer.kind, "version": version, "distribution": offer.origin.distribution, "state": _state(offer)}


def _state(offer: Offer) -> str:
    """Return whether an offer is used: a plugin's fetcher takes the place of the built-in one of its scheme."""
    others = (other.origin.distribution for other in registry().offers if (other.kind, other.name) == ("fetcher", offer.name))
    other = next((name for name in others if name != BUILT_IN), "") if offer.origin.distribution == BUILT_IN else ""
    return f"replaced by {other}" if other and offer.kind == "fetcher" else "enabled"


def _unused(origin: Origin) -> dict[str, object]:
    state = f"{origin.state}: {origin.reason}" if origin.reason else origin.state
    return {"name": origin.plugin, "kind": "plugin", "version": "", "distribution": origin.distribution, "state": state}


def _offer_details(offer: Offer) -> dict[str, object]:
    return _offer_facts(offer) | {"purpose": purpose(offer.cls), "options": [option._asdict() for option in options_of(offer.cls)]}


def _print_manual(offers: Iterable[Offer]) -> None:
    for offer in offers:
        version = f" {offer.cls.version}" if getattr(offer.cls, "version", "") else ""
        click.echo(f"{offer.kind} {offer.name}{version}, {offer.origin.distribution}\n")
        print_text(printable(purpose(offer.cls)))
        click.echo()
        if options := options_of(offer.cls):
            shown = ((one.name, one.type, "required" if one.required else json.dumps(one.default), one.description) for one in options)
            print_table(("option", "type", "default", "meaning"), shown)
        else:
            click.echo("no options")
