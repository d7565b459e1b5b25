"""``dpp status``: the batches of a workspace and how far they are."""

from __future__ import annotations

from pathlib import Path

import click

from dpp.batch import latest_runs
from dpp.cli.options import workspace_option
from dpp.cli.output import print_table
from dpp.report import Summary
from dpp.run import Run


@click.command()
@workspace_option
def status(workspace: Path) -> None:
    """List the batches of a workspace, the newest first, each with its last run.

    \b
    Examples:
      dpp status
      dpp status --workspace /data/batch
    """
    runs = latest_runs(workspace)
    if not runs:
        click.echo(f"no batch was run in {workspace}", err=True)
        return
    columns = ("batch", "run", "state", "ok", "failed", "total", "started", "files")
    print_table(columns, [_row(run) for run in runs])


def _row(run: Run) -> tuple[object, ...]:
    ended = run.summary()
    summary = ended or run.progress()
    asked = run.asked()
    return (
        run.batch,
        run.number,
        _state(run, ended),
        summary.ok,
        summary.failed,
        summary.total,
        asked.get("started", ""),
        asked.get("files", ""),
    )


def _state(run: Run, ended: Summary | None) -> str:
    if ended is not None:
        return "ok" if ended.complete else "failed" if not ended.missing else "stopped"
    return "running" if run.is_held() else "stopped"
