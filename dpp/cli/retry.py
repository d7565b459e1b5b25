"""``dpp retry``: run the failed files of a batch again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from dpp.batch.folder import find_run
from dpp.cli.completion import CLASSES, FAILED_STAGES
from dpp.cli.options import GroupedCommand, batch_argument, options_for, words_option, workers_option, workspace_option
from dpp.plugins.registry import STEP_SETTINGS
from dpp.report.summary import Summary, render, retry_command
from dpp.selection import Selection
from dpp.settings import Settings
from dpp.tasks.batch import start_batch
from dpp.tasks.retry import Failures, failures_of, repeat

_CHANGEABLE = [name for name in Settings.model_fields if name not in {*STEP_SETTINGS, "workspace", "shard", "simulate_downloads"}]


@click.command(cls=GroupedCommand)
@batch_argument
@workspace_option
@workers_option
@words_option("--class", "classes", "Retry only failures of these error classes, such as timeout,http-5xx.", CLASSES)
@words_option("--stage", "stages", "Retry only failures in these stages, such as download or process.", FAILED_STAGES)
@words_option("--host", "hosts", "Retry only files from these hosts.")
@click.option("--all", "everything", is_flag=True, help="Also retry files that the server does not have (404, 410).")
@options_for(_CHANGEABLE)
def retry(
    batch: str,
    workspace: Path,
    workers: int | None,
    classes: tuple[str, ...],
    stages: tuple[str, ...],
    hosts: tuple[str, ...],
    everything: bool,
    **given: Any,
) -> None:
    """Retry the failed files of BATCH, or of the newest batch.

    Other files keep their outcomes. Files that failed with 404 or 410 are retried only with --all or --class. Settings come from
    the last run; options given here take precedence.

    \b
    Examples:
      dpp retry
      dpp retry files --class timeout,http-5xx --read-timeout 300
      dpp retry --stage process --workers 4
    """
    selection = Selection(classes=classes, stages=stages, hosts=tuple(host.lower() for host in hosts), everything=everything)
    run = find_run(workspace, batch)
    failures = failures_of(run, selection)
    summary = run.summary()
    if summary is not None and failures.outcomes >= summary.total and not failures.picked:
        click.echo(_nothing(summary, failures))
        sys.exit(1 if failures.total else 0)
    task = repeat(run, {name: value for name, value in given.items() if value is not None})
    click.echo(f"batch {run.batch}: retrying {failures.picked} of {failures.total} failed files", err=True)
    summary, code = start_batch(workers=workers or 0, selection=selection, **task.param_kwargs)
    if not task.settings().json_lines:
        click.echo(render(summary))
    sys.exit(code)


def _nothing(summary: Summary, failures: Failures) -> str:
    """Return the reason why no file is retried, and the command that retries the failures."""
    if not failures.total:
        return f"nothing to retry: every file of batch {summary.batch} is ok"
    counts = ", ".join(f"{count} x {error_class}" for error_class, count in failures.by_class.most_common())
    return f"nothing to retry in batch {summary.batch}: no failure was selected ({counts}); to retry them: {retry_command(summary)}"
