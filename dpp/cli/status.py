"""``dpp status``: the batches of a workspace and their progress."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import click

from dpp.batch.folder import RunFolder, find_run, latest_runs, missing_batch
from dpp.cli.options import batch_argument, workspace_option
from dpp.cli.output import print_table
from dpp.errors import ConfigurationError
from dpp.monitor.state import RunFollower
from dpp.monitor.viewer import LogDisplay, TerminalDisplay, draws_on, follow
from dpp.report.summary import Summary, render


@click.command()
@batch_argument
@workspace_option
@click.option("--watch", is_flag=True, help="Show the progress of a run until it ends, then exit with its exit code.")
def status(batch: str, workspace: Path, watch: bool) -> None:
    """List the batches of a workspace, newest first.

    Each line describes the last run of a batch: its state, and how many files are ok, failed, and in total. With BATCH, list
    only batches whose names start with it. With --watch, follow the newest of them until its run ends.

    \b
    Examples:
      dpp status
      dpp status --workspace work
      dpp status --watch
    """
    if watch:
        sys.exit(_watch(find_run(workspace, batch)))
    runs = [run for run in latest_runs(workspace) if run.batch.startswith(batch)]
    if batch and not runs:
        raise ConfigurationError(missing_batch(workspace, batch))
    if not runs:
        click.echo(f"no batch was run in {workspace}", err=True)
        return
    columns = ("batch", "run", "state", "ok", "failed", "total", "started", "files")
    print_table(columns, [_run_row(run) for run in runs])


def _watch(run: RunFolder) -> int:
    """Show a run until it ends; return its exit code."""
    display = TerminalDisplay(sys.stderr, first=0.0) if draws_on(sys.stderr) else LogDisplay(functools.partial(click.echo, err=True))
    follow(RunFollower(run), display, lambda: not run.is_under_way())
    ended = run.summary()
    if ended is None:
        click.echo(f"run {run.number} of batch {run.batch} stopped before its end, and no process continues it", err=True)
    click.echo(render(ended or run.progress()))
    return run.exit_code(ended or run.progress())


def _run_row(run: RunFolder) -> tuple[object, ...]:
    ended = run.summary()
    summary = ended or run.progress()
    return (
        run.batch,
        run.number,
        _state(run, ended),
        summary.ok,
        summary.failed,
        summary.total,
        _minute(run.info.started),
        run.info.files,
    )


def _minute(moment: str) -> str:
    """Return a time in UTC, without seconds."""
    # With seconds, the table would not fit a terminal of 80 columns.
    return f"{moment[:16]}Z" if moment else ""


def _state(run: RunFolder, ended: Summary | None) -> str:
    if ended is not None:
        return ended.state
    return "running" if run.is_held() else "stopped"
