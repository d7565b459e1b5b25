"""``dpp report``: the outcome of a batch, or of the shards of one in several workspaces."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dpp.batch.folder import RunFolder
from dpp.batch.merged import MergedRuns
from dpp.cli.options import format_option, output_option, run_option, workspace_option
from dpp.cli.output import print_json
from dpp.cli.runs import choose, runs_argument
from dpp.redact import one_line
from dpp.report.summary import PAGE, Summary, human_bytes

BUFFERED = 100


@click.command()
@runs_argument
@workspace_option
@run_option
@format_option(
    "text",
    "json",
    "jsonl",
    "html",
    help="Output format: text, json (the summary), jsonl (one line per file) or html (a page for a browser, as a file).",
)
@output_option(
    f"File for the page; it is replaced only when the page is complete.  [default: {PAGE} in the run's folder; required for several runs]"
)
def report(places: tuple[str, ...], workspace: Path, number: int | None, form: str, output: Path | None) -> None:
    """Report on the last run of BATCH, or of the newest batch.

    Reads only the workspace. BATCH is a batch name that dpp status lists, or a prefix of one.

    With one or more FOLDERs (of runs, batches or workspaces, or patterns such as 'work/*'), merges the runs of the shards of
    one batch (dpp run --shard), and exits with the worst of their exit codes. A shard without a run is named, with exit code 1.

    \b
    Examples:
      dpp report
      dpp report files --run 1
      dpp report --format jsonl
      dpp report --format html --output outcome.html
      dpp report ./dpp-workspace
    """
    if output is not None and form != "html":
        raise click.UsageError("--output requires --format html; redirect other formats to a file: ... > FILE")
    run, by_folder = choose(places, workspace, number)
    _write(run, form, output)
    run.check_results()
    if by_folder:
        sys.exit(run.exit_code(run.summary() or run.progress()))


def _write(run: RunFolder | MergedRuns, form: str, output: Path | None) -> None:
    if form == "html":
        page = output or _default_page(run)
        run.write_page(page)
        click.echo(f"wrote {page}")
        return
    if form == "jsonl":
        for outcome in run.results():
            print_json(outcome.model_dump_json())
        return
    summary = run.summary() or run.progress()
    if form == "json":
        print_json(summary.model_dump_json(indent=2))
    else:
        _print_text(run, summary)


def _default_page(run: RunFolder | MergedRuns) -> Path:
    if isinstance(run, MergedRuns):
        raise click.UsageError("the page of several runs is in none of their folders; choose a file with --output FILE")
    return run.folder / PAGE


def _print_text(run: RunFolder | MergedRuns, summary: Summary) -> None:
    from jinja2 import Environment, PackageLoader  # noqa: PLC0415 - the import takes 40 ms, and other commands do not need it

    environment = Environment(loader=PackageLoader("dpp"), trim_blocks=True, lstrip_blocks=True, autoescape=False, finalize=_one_line)  # noqa: S701 - plain text
    template = environment.get_template("report.txt.j2")
    failed = (outcome for outcome in run.results() if not outcome.ok)
    ended = run.summary() is not None
    # In parts, as there may be any number of failures.
    text = template.stream(summary=summary, info=run.info, failed=failed, size=human_bytes(summary.bytes), ended=ended)
    text.enable_buffering(BUFFERED)
    for part in text:
        click.echo(part, nl=False)


def _one_line(value: object) -> object:
    return one_line(value) if isinstance(value, str) else value
