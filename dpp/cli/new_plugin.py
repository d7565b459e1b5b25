"""``dpp new-plugin``: write the package of a new plugin."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from dpp.plugins.scaffold import PLUGIN_KINDS, write_plugin


@click.command("new-plugin")
@click.argument("name")
@click.option("--kind", type=click.Choice(PLUGIN_KINDS), default="processor", show_default=True, help="Kind of plugin.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder to create; it must not exist yet.  [default: dpp-NAME]")
def new_plugin(name: str, kind: str, output: Path | None) -> None:
    """Write a working package for a plugin called NAME, with tests.

    NAME is the name that batches use, such as word-tally; for a fetcher or a source, it is the URL scheme.

    \b
    Examples:
      dpp new-plugin word-tally
      dpp new-plugin archive-store --kind fetcher --output plugins/dpp-archive-store
    """
    folder = os.path.relpath(write_plugin(name, kind, output))
    click.echo(f"wrote {folder}, a {kind}. Install it and run its tests:")
    click.echo(f"  pip install -e {shlex.quote(f'{folder}[test]')}\n  pytest {shlex.quote(folder)}")
