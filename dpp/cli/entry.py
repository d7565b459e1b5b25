"""The entry point of every command line of dpp: it turns an error into one message and an exit code."""

from __future__ import annotations

import io
import sys

import click

from dpp.engine.confine import no_core_dumps
from dpp.errors import INTERRUPTED, BatchFailed, DppError, EnvironmentStop
from dpp.logs import mark_reported
from dpp.redact import as_entry, redact_text
from dpp.streams import lost_output, tolerate_write_errors
from dpp.workspace.machine import stop_for


def enter(command: click.Command, name: str, arguments: list[str] | None) -> None:
    """Run a command, and exit with the code of the error if it fails."""
    tolerate_write_errors()
    no_core_dumps()
    try:
        command.main(args=arguments, prog_name=name, standalone_mode=False)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except DppError as error:
        code = _report(error)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        click.echo(redact_text(shown.getvalue()), nl=False, err=True)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = INTERRUPTED
    except OSError as error:
        code = _report(stop_for(error))
    # Whether files failed is recorded; that the output is incomplete is known only here.
    if code in (0, BatchFailed.exit_code) and (reason := lost_output()):
        click.echo(f"Error: cannot write to standard output: {reason}", err=True)
        code = EnvironmentStop.exit_code
    sys.exit(code)


def _report(error: DppError) -> int:
    """Show an error, and return its exit code."""
    # A process of the run may have logged the same error before: it is shown once.
    if not mark_reported(error):
        click.echo(as_entry(redact_text(f"Error: {error}")), err=True)
    return error.exit_code
