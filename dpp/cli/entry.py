"""How every command line of dpp ends: an error in one message, and the exit code of what happened."""

from __future__ import annotations

import sys

import click

from dpp.errors import INTERRUPTED, DppError
from dpp.logs import mark_reported


def enter(command: click.Command, name: str, arguments: list[str] | None) -> None:
    """Run a command, and exit."""
    try:
        command.main(args=arguments, prog_name=name, standalone_mode=False)
    except DppError as error:
        if not mark_reported(error):
            click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(1)
