"""``dpp clean``: remove data that is no longer needed."""

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
@click.option("--downloads", is_flag=True, help="Remove downloads of files that are ok.")
@click.option("--pre-processed", is_flag=True, help="Remove pre-processed files of files that are ok.")
@click.option("--parts", is_flag=True, help="Remove partial downloads, which a run would continue.")
@click.option("--temporary", is_flag=True, help="Remove temporary files of processes that no longer exist.")
@click.option("--results", is_flag=True, help="Remove batches replaced by a newer version of a step, and targets that no batch uses.")
@click.option("--keep-runs", type=click.IntRange(min=1), help="Remove older runs; keep this many of each batch.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, without removing it.")
def clean(workspace: Path, keep_runs: int | None, dry_run: bool, **chosen: bool) -> None:
    """Remove data that is no longer needed.

    Without a choice, only show what could be removed. The last run of each batch and the reports of its files are kept, so a file that is
    ok is not run again; only --results removes batches that were replaced. No batch of the workspace may run at the same time.

    \b
    Examples:
      dpp clean
      dpp clean --downloads --pre-processed --dry-run
      dpp clean --parts --temporary --keep-runs 3
    """
    kinds = [kind for kind in CLEANABLE if chosen.get(kind) or (kind == "runs" and keep_runs)]
    dry = dry_run or not kinds
    cleaner = Cleaner(workspace, keep_runs or 1)
    # Without removing anything, no lock is needed: a batch may run at the same time.
    with nullcontext() if dry else cleaner.exclusive():
        totals = _cleaned(cleaner, kinds or list(CLEANABLE), dry=dry)
    print_table(("kind", "files", "bytes", "what"), [(kind, *counts, CLEANABLE[kind]) for kind, counts in totals.items()])
    total = human_bytes(sum(size for _, size in totals.values()))
    click.echo(f"{'could be freed' if dry else 'freed'}: {total}")
    if not kinds:
        options = ", ".join("--keep-runs 1" if kind == "runs" else f"--{kind.replace('_', '-')}" for kind in CLEANABLE)
        click.echo(f"nothing was freed; choose from {options}")


def _cleaned(cleaner: Cleaner, kinds: list[str], *, dry: bool) -> dict[str, tuple[int, int]]:
    """Remove items of these kinds, or only count them; return the number of files and bytes by kind."""
    totals = dict.fromkeys(kinds, (0, 0))
    # A list, as removing items changes the folders that the search walks through.
    for item in list(cleaner.items(kinds)):
        if dry or cleaner.free(item):
            files, size = totals[item.kind]
            totals[item.kind] = (files + item.files, size + item.bytes)
    return totals
