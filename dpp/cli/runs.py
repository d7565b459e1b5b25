"""The run whose results a command reads, or the runs of shards that it merges."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
from click.core import ParameterSource

from dpp.batch.folder import RunFolder, find_run, latest_runs
from dpp.batch.merged import MergedRuns, find_runs
from dpp.cli.completion import BATCHES
from dpp.redact import one_line

Command = TypeVar("Command", bound=Callable[..., Any])


class Chosen(NamedTuple):
    """The run that is read, or several, and whether folders name it and not a batch."""

    run: RunFolder | MergedRuns
    by_folder: bool


runs_argument = click.argument("places", nargs=-1, metavar="[BATCH | FOLDER...]", shell_complete=BATCHES)


def choose(places: Sequence[str], workspace: Path, number: int | None) -> Chosen:
    """Return the run of a batch in the workspace, or the runs in folders, merged if they are those of shards.

    Args:
        places: Name of a batch or a prefix of it, nothing for the newest batch, or folders and patterns of folders.
        workspace: The workspace in which a batch is looked for.
        number: Number of the run; None for the last one.

    Raises:
        ConfigurationError: There is no such run, or the runs are not those of shards of one batch.
        click.UsageError: An option is of no use with folders.
    """
    if not _are_folders(places, workspace):
        return Chosen(find_run(workspace, "".join(places), number), by_folder=False)
    given = click.get_current_context().get_parameter_source("workspace")
    if number is not None or given is ParameterSource.COMMANDLINE:
        raise click.UsageError("--workspace and --run are for a batch, not for folders; give the folders of the runs instead")
    runs, empty = find_runs(places)
    for place in empty:
        click.echo(f"no run in {one_line(place)}", err=True)
    whole = len(runs) == 1 and not runs[0].info.shard
    return Chosen(runs[0] if whole else MergedRuns(runs), by_folder=True)


def _are_folders(places: Sequence[str], workspace: Path) -> bool:
    if len(places) != 1:
        return len(places) > 1
    if os.sep in places[0] or glob.has_magic(places[0]):
        return True
    return Path(places[0]).is_dir() and not any(run.batch.startswith(places[0]) for run in latest_runs(workspace))
