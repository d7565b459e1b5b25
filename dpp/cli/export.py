"""``dpp export``: the results of a run for other programs."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import click

from dpp.batch.merged import MergedRuns
from dpp.cli.options import output_option, run_option, workspace_option
from dpp.cli.runs import choose, runs_argument
from dpp.errors import BatchFailed
from dpp.redact import one_line, printable_json
from dpp.report.export import FORMATS, guess_format, lines_of, table_of, write_table
from dpp.workspace.atomic import writing


@click.command()
@runs_argument
@workspace_option
@run_option
@click.option("--only", type=click.Choice(["ok", "failed"]), help="Export only files with this status.  [default: all]")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Output format.  [default: from the suffix of --output, or csv]")
@output_option("File to write; it is replaced only when the output is complete.  [default: standard output]")
@click.option("--no-flatten", is_flag=True, help="Write a result that is an object as one column of JSON.")
@click.option("--raw", is_flag=True, help="CSV: do not put ' before text that a spreadsheet may take for a formula.")
def export(
    places: tuple[str, ...],
    workspace: Path,
    number: int | None,
    only: Literal["ok", "failed"] | None,
    form: str | None,
    output: Path | None,
    no_flatten: bool,
    raw: bool,
) -> None:
    """Write the results of a run as CSV, JSON Lines or Parquet.

    Writes one row per file and one column per field, from the last run of BATCH or of the newest batch. BATCH is a batch name
    that dpp status lists, or a prefix of one.

    With one or more FOLDERs (of runs, batches or workspaces, or patterns such as 'work/*'), writes the results of the shards of
    one batch (dpp run --shard). A shard without a run is named, with exit code 1.

    The command reads the run's results.jsonl three times: for the columns, for the rows, and to check that none is missing. If
    the run has not ended, it writes the results recorded so far. Parquet requires pyarrow: pip install 'dpp[parquet]'.

    \b
    Examples:
      dpp export > results.csv
      dpp export --only failed --format jsonl
      dpp export --run 1 --output results.csv
    """
    run = choose(places, workspace, number).run
    form = form or guess_format(output)
    if form == "parquet" and output is None and sys.stdout.isatty():
        raise click.UsageError("Parquet is a binary format and is not written to a terminal; write it to a file with --output")
    with run.settled_results() as results:
        table = table_of(results, only, flat=not no_flatten)
        if output is None and sys.stdout.isatty():
            shown = printable_json if form == "jsonl" else one_line
            for line in lines_of(form, table, raw=raw):
                click.echo(shown(line.rstrip("\r\n")))
        else:
            with writing(output) if output else nullcontext(sys.stdout.buffer) as stream:
                write_table(form, table, stream, raw=raw)
    run.check_results()
    if isinstance(run, MergedRuns) and (missing := run.merged_summary.missing_shards):
        raise BatchFailed(f"these are not all results: there is no run of shard {', '.join(missing)}")
