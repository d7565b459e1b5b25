"""``dpp report``: what became of a batch."""

from __future__ import annotations

from pathlib import Path

import click

from dpp.batch.folder import RunFolder, find_run
from dpp.cli.options import batch_argument, format_option, output_option, run_option, workspace_option
from dpp.redact import printable
from dpp.report.summary import PAGE, Summary, human_bytes


@click.command()
@batch_argument
@workspace_option
@run_option
@format_option(
    "text", "json", "jsonl", "html", help="json: the summary; jsonl: a line a file; html: a page for a browser, written to a file."
)
@output_option(f"File to write the page to, as a whole or not at all.  [default: {PAGE} in the run's folder]")
def report(batch: str, workspace: Path, number: int | None, form: str, output: Path | None) -> None:
    """Report on the last run of BATCH, or of the newest batch.

    Reads what the run wrote to the workspace. BATCH is a name that dpp status lists, or the beginning of one.

    \b
    Examples:
      dpp report
      dpp report files --run 1
      dpp report --format jsonl
      dpp report --format html --output outcome.html
    """
    if output is not None and form != "html":
        raise click.UsageError("--output is the file of a page: give --format html as well, or redirect what is printed")
    run = find_run(workspace, batch, number)
    if form == "html":
        page = output or run.folder / PAGE
        run.write_page(page)
        click.echo(f"wrote {page}")
        return
    if form == "jsonl":
        for outcome in run.results():
            click.echo(outcome.model_dump_json())
        return
    summary = run.summary() or run.progress()
    click.echo(summary.model_dump_json(indent=2) if form == "json" else _render_text(run, summary))


def _render_text(run: RunFolder, summary: Summary) -> str:
    from jinja2 import Environment, PackageLoader  # noqa: PLC0415 - takes 40 ms, which other commands and completion do without

    environment = Environment(loader=PackageLoader("dpp"), trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701 - plain text
    template = environment.get_template("report.txt.j2")
    failed = (outcome for outcome in run.results() if not outcome.ok)
    ended = run.summary() is not None
    text = template.render(summary=summary, info=run.info, failed=failed, size=human_bytes(summary.bytes), ended=ended)
    return printable(text.rstrip())
