"""``dpp clean``: free what is not needed any more."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from dpp.cli.options import workspace_option
from dpp.cli.output import print_table
from dpp.maintenance.clean import CLEANABLE, Cleaner
from dpp.report.summary import human_bytes


@click.command()
@workspace_option
@click.option("--downloads", is_flag=True, help="Downloads of files that are ok.")
@click.option("--pre-processed", is_flag=True, help="What pre-processors made of files that are ok.")
@click.option("--parts", is_flag=True, help="Partial downloads, which a run would continue.")
@click.option("--temporary", is_flag=True, help="Temporary files of processes that are no more.")
@click.option("--results", is_flag=True, help="Batches that a newer version of a step replaced, and targets that no batch uses.")
@click.option("--keep-runs", type=click.IntRange(min=1), help="Runs of each batch but this many, the newest.")
@click.option("--dry-run", is_flag=True, help="Show what would be freed, and free nothing.")
def clean(workspace: Path, keep_runs: int | None, dry_run: bool, **chosen: bool) -> None:
    """Free what is chosen, or show what could be freed.

    The last run of each other batch, and the reports of its files, always stay: a file that is ok is not run again. No batch
    of the workspace may be run meanwhile.

    \b
    Examples:
      dpp clean
      dpp clean --downloads --pre-processed --dry-run
      dpp clean --parts --temporary --keep-runs 3
    """
    kinds = [kind for kind in CLEANABLE if chosen.get(kind) or (kind == "runs" and keep_runs)]
    dry = dry_run or not kinds
    cleaner = Cleaner(workspace, keep_runs or 1)
    with nullcontext() if dry else cleaner.alone():
        totals = _cleaned(cleaner, kinds or list(CLEANABLE), dry=dry)
    print_table(("kind", "files", "bytes", "what"), [(kind, *counts, CLEANABLE[kind]) for kind, counts in totals.items()])
    total = human_bytes(sum(size for _, size in totals.values()))
    click.echo(f"{'could be freed' if dry else 'freed'}: {total}")
    if not kinds:
        options = ", ".join("--keep-runs 1" if kind == "runs" else f"--{kind.replace('_', '-')}" for kind in CLEANABLE)
        click.echo(f"nothing was freed; choose: {options}")


def _cleaned(cleaner: Cleaner, kinds: list[str], *, dry: bool) -> dict[str, tuple[int, int]]:
    """Free what there is of these kinds, or only count it; return files and bytes of each kind."""
    totals = dict.fromkeys(kinds, (0, 0))
    for item in list(cleaner.items(kinds)):
        if dry or cleaner.free(item):
            files, size = totals[item.kind]
            totals[item.kind] = (files + item.files, size + item.bytes)
    return totals
