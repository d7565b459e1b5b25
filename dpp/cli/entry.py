"""The entry point of every command line of dpp: it turns an error into one message and an exit code."""

from __future__ import annotations

import sys

import click

from dpp.errors import INTERRUPTED, DppError
from dpp.logs import mark_reported
from dpp.redact import as_entry


def enter(command: click.Command, name: str, arguments: list[str] | None) -> None:
    """Run a command, and exit with the code of the error if it fails."""
    try:
        command.main(args=arguments, prog_name=name, standalone_mode=False)
    except DppError as error:
        # A process of the run may have logged the same error before: it is shown once.
        if not mark_reported(error):
            click.echo(as_entry(f"Error: {error}"), err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of the output, such as head, has closed it.
        sys.exit(1)
