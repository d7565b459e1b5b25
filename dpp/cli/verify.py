"""``dpp verify``: check a workspace against its own records."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dpp.batch.folder import find_run
from dpp.cli.completion import BATCHES
from dpp.cli.options import workspace_option
from dpp.maintenance.verify import Checker
from dpp.names import counted
from dpp.redact import one_line
from dpp.report.summary import human_bytes

SHOWN_LEFT_OVER = 20


@click.command()
@workspace_option
@click.option("--batch", default="", shell_complete=BATCHES, help="Check only this batch; a prefix of its name is enough.  [default: all]")
@click.option("--threads", type=click.IntRange(min=1), default=4, show_default=True, help="Number of files read at once.")
def verify(workspace: Path, batch: str, threads: int) -> None:
    """Check all files of a workspace against their records.

    Reads every download and pre-processed file and compares its SHA-256 digest. Changes nothing.

    \b
    Examples:
      dpp verify
      dpp verify --batch files --threads 8
    """
    if batch:
        find_run(workspace, batch)
    checker = Checker(workspace, batch, threads)
    found = 0
    for problem in checker.problems():
        found += 1
        click.echo(one_line(f"{problem.path}: {problem.text}; {problem.advice}"))
    for path in checker.left_over[:SHOWN_LEFT_OVER]:
        click.echo(one_line(f"left over: {path}"))
    if (more := len(checker.left_over) - SHOWN_LEFT_OVER) > 0:
        click.echo(f"left over: {more} more; the next run or dpp clean continues or removes them")
    click.echo(
        f"{found or 'no'} problem{'' if found == 1 else 's'} in {counted(checker.files, 'file')}; {human_bytes(checker.bytes)} hashed"
    )
    sys.exit(1 if found else 0)
