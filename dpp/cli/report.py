"""``dpp report``: the outcome of a batch."""

from __future__ import annotations

from pathlib import Path

import click

from dpp.batch.folder import RunFolder, find_run
from dpp.cli.options import batch_argument, format_option, output_option, run_option, workspace_option
from dpp.cli.output import print_json
from dpp.redact import one_line
from dpp.report.summary import PAGE, Summary, human_bytes


@click.command()
@batch_argument
@workspace_option
@run_option
@format_option(
    "text",
    "json",
    "jsonl",
    "html",
    help="Output format: text, json (the summary), jsonl (one line per file) or html (a page for a browser, as a file).",
)
@output_option(f"File for the page; it is replaced only when the page is complete.  [default: {PAGE} in the run's folder]")
def report(batch: str, workspace: Path, number: int | None, form: str, output: Path | None) -> None:
    """Report on the last run of BATCH, or of the newest batch.

    Reads only the workspace. BATCH is a batch name that dpp status lists, or a prefix of one.

    \b
    Examples:
      dpp report
      dpp report files --run 1
      dpp report --format jsonl
      dpp report --format html --output outcome.html
    """
    if output is not None and form != "html":
        raise click.UsageError("--output requires --format html; redirect other formats to a file: ... > FILE")
    run = find_run(workspace, batch, number)
    _write(run, form, output)
    run.check_results()


def _write(run: RunFolder, form: str, output: Path | None) -> None:
    if form == "html":
        page = output or run.folder / PAGE
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
        click.echo(_render_text(run, summary))


def _render_text(run: RunFolder, summary: Summary) -> str:
    from jinja2 import Environment, PackageLoader  # noqa: PLC0415 - the import takes 40 ms, and other commands do not need it

    environment = Environment(loader=PackageLoader("dpp"), trim_blocks=True, lstrip_blocks=True, autoescape=False, finalize=_one_line)  # noqa: S701 - plain text
    template = environment.get_template("report.txt.j2")
    failed = (outcome for outcome in run.results() if not outcome.ok)
    ended = run.summary() is not None
    text = template.render(summary=summary, info=run.info, failed=failed, size=human_bytes(summary.bytes), ended=ended)
    return text.rstrip()


def _one_line(value: object) -> object:
    return one_line(value) if isinstance(value, str) else value
