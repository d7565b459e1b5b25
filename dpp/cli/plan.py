"""``dpp plan``: show what a run would do."""

from __future__ import annotations

from typing import Any

import click

from dpp.cli.completion import FILE_PATHS
from dpp.cli.options import GroupedCommand, batch_option, format_option, options_for
from dpp.cli.output import print_json, print_table
from dpp.maintenance.dry_run import DryRun, Group, PlanSummary, Prediction
from dpp.names import counted
from dpp.plugins.registry import registry
from dpp.redact import one_line
from dpp.report.summary import human_bytes
from dpp.settings import Settings
from dpp.tasks.batch import RunBatch

SHOWN_FILES = 20


@click.command(cls=GroupedCommand)
@click.argument("files", default="", shell_complete=FILE_PATHS)
@batch_option
@format_option("text", "json", "jsonl", help="Output format: text, json (totals) or jsonl (one line per file).")
@options_for(set(Settings.model_fields) - {"quiet", "json_lines"})
def plan(files: str, form: str, **given: Any) -> None:
    """Show what a run of FILES would do and why.

    FILES and settings are those of dpp run. No file is fetched: sizes come from the manifest and from partial downloads. Nothing
    is written to the workspace.

    \b
    Examples:
      dpp plan files.json
      dpp plan files.json --processor my_module:WordCount
      dpp plan urls.txt --format jsonl
    """
    settings: dict[str, Any] = {name: value for name, value in (("files", files or None), *given.items()) if value is not None}
    task = RunBatch(**settings)
    with DryRun(task.wanted_files(), task.settings(), registry(), task.batch_name) as made:
        if form == "jsonl":
            for prediction in made.predictions():
                print_json(prediction.model_dump_json())
        elif form == "json":
            for _ in made.predictions():
                pass
            print_json(made.summary().model_dump_json(indent=2))
        else:
            _print(made)


def _print(dry_run: DryRun) -> None:
    first: list[Prediction] = []
    for prediction in dry_run.predictions():
        if prediction.action != "nothing" and len(first) <= SHOWN_FILES:
            first.append(prediction)
    summary = dry_run.summary()
    skipped = f", {summary.skipped} skipped (already at the destination)" if summary.skipped else ""
    click.echo(f"batch {summary.batch}: {counted(summary.total, 'file')}{skipped}")
    print_table(
        ("files", "action", "why", "bytes"),
        [(one.files, one.action, one.reason, _size(one) if one.action == "download" else "") for one in summary.groups],
    )
    for one in first if len(first) <= SHOWN_FILES else ():
        click.echo(one_line(f"  {one.id}  {one.url}: {one.action}, {one.reason}"))
    click.echo(_space(summary))


def _size(group: Group | PlanSummary) -> str:
    known = human_bytes(group.bytes) if group.bytes or not group.unknown else ""
    unknown = f"{group.unknown} of unknown size" if group.unknown else ""
    return ", ".join(filter(None, (known, unknown)))


def _space(summary: PlanSummary) -> str:
    short = " (not enough)" if summary.bytes > summary.free else ""
    return f"to download: {_size(summary)}; free disk space: {human_bytes(summary.free)}{short}"
