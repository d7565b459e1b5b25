"""``dpp why``: the history of a file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from dpp.batch.folder import RunFolder, find_run
from dpp.cli.completion import BATCHES
from dpp.cli.options import format_option, run_option, workspace_option
from dpp.cli.output import print_json, print_table
from dpp.errors import DppError
from dpp.maintenance.history import FileHistory, StageRecord, file_history, find_outcome
from dpp.redact import one_line
from dpp.tasks.retry import repeat

_DIGITS = 12


@click.command()
@click.argument("file_id", metavar="ID")
@workspace_option
@click.option("--batch", default="", shell_complete=BATCHES, help="Batch, or a prefix of its name.  [default: the newest]")
@run_option
@format_option("text", "json", help="Output format: text, or json (with complete digests).")
def why(file_id: str, workspace: Path, batch: str, number: int | None, form: str) -> None:
    """Show what each stage did to a file.

    Also shows whether a run would process the file again, and why. ID is the id of the file in reports.

    \b
    Examples:
      dpp why group
      dpp why group --batch files --format json
    """
    run = find_run(workspace, batch, number)
    found = file_history(run, find_outcome(run, file_id))
    if form == "json":
        print_json(found.model_dump_json(indent=2))
        return
    click.echo("\n".join(map(one_line, _outcome_lines(found, _other_steps(run)))))
    click.echo()
    print_table(("stage", "step", "version", "options", "input", "output", "seconds", "state", "target"), map(_stage_row, found.stages))


def _outcome_lines(found: FileHistory, other_steps: str) -> list[str]:
    outcome = found.outcome
    failure = f"{outcome.status} in {outcome.stage}: {outcome.error_class}: {outcome.message}"
    facts = {
        "file": f"{outcome.id}  {outcome.url}",
        "batch": f"{found.batch}{', outcome from run ' + (outcome.run or '') if outcome.cached else ''}",
        "outcome": outcome.status if outcome.ok else failure,
        "at": datetime.fromtimestamp(outcome.at, UTC).isoformat(timespec="seconds"),
        "attempts": str(outcome.attempts),
        "size": f"{outcome.bytes} bytes" if outcome.bytes is not None else "unknown",
        "again": f"{'yes' if found.again else 'no'}: {found.why}",
        "steps": other_steps or "same as in that run",
    }
    return [f"{name:<9}{text}" for name, text in facts.items()]


def _other_steps(run: RunFolder) -> str:
    """Return the reason why the run cannot be repeated; "" if it can."""
    try:
        repeat(run, {})
    except DppError as error:
        return str(error)
    return ""


def _stage_row(record: StageRecord) -> tuple[str, ...]:
    seconds = "" if record.seconds is None else f"{record.seconds:.3f}"
    step, version, options = (",".join(one[fact] or "-" for one in record.steps) for fact in ("name", "version", "options"))
    return (
        record.stage,
        step,
        version,
        options,
        (record.input or "")[:_DIGITS],
        (record.output or "")[:_DIGITS],
        seconds,
        record.state,
        record.path,
    )
