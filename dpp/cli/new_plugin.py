"""``dpp new-plugin``: the package of a plugin to begin with."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from dpp.plugins.scaffold import PLUGIN_KINDS, write_plugin


@click.command("new-plugin")
@click.argument("name")
@click.option("--kind", type=click.Choice(PLUGIN_KINDS), default="processor", show_default=True, help="What the plugin does.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder to write; must not be there yet.  [default: dpp-NAME]")
def new_plugin(name: str, kind: str, output: Path | None) -> None:
    """Write the package of a plugin called NAME, with tests.

    NAME is how batches ask for it, such as word-tally; a fetcher's or a source's is its URL scheme.

    \b
    Examples:
      dpp new-plugin word-tally
      dpp new-plugin archive-store --kind fetcher --output plugins/dpp-archive-store
    """
    folder = os.path.relpath(write_plugin(name, kind, output))
    click.echo(f"wrote {folder}, a {kind}. Install it and run its tests:")
    click.echo(f"  pip install -e {shlex.quote(f'{folder}[test]')}\n  pytest {shlex.quote(folder)}")
