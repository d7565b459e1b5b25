"""The command ``dpp watch``."""

from __future__ import annotations

import hashlib
import math
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click
from dpp import ConfigurationError, Settings, runs

from dpp_watch.rules import Rules, is_folder

OWN = (
    "patterns",
    "ignored",
    "recursive",
    "ready",
    "settle",
    "marker",
    "collect",
    "max_files",
    "scan",
    "once",
    "changed",
    "give_up",
    "name",
    "status",
)
LONGEST = 7 * 24 * 3600.0


class Seconds(click.FloatRange):
    """A number of seconds, up to a week."""

    name = "seconds"

    def __init__(self, least: float = 0.0) -> None:
        super().__init__(least, LONGEST)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; refuse nan, which the check of the range accepts."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return number


@runs.batch_command("watch", {"What to watch": OWN})
@click.argument("folder")
@click.option(
    "--pattern", "patterns", multiple=True, help="Take only files whose name matches, such as '*.nc'. Can be given several times."
)
@click.option("--ignore", "ignored", multiple=True, help="Skip files and folders that match, besides .*, *.part, *.tmp and *.crdownload.")
@click.option("--recursive", is_flag=True, help="Take files in sub-folders, too.")
@click.option(
    "--ready", type=click.Choice(("closed", "settle", "marker")), default="settle", show_default=True, help="When a file is complete."
)
@click.option("--settle", type=Seconds(), default=2.0, show_default=True, help="Seconds without a change.")
@click.option("--marker", help="Name of a file's marker, with --ready marker.  [default: {name}.done]")
@click.option("--collect", type=Seconds(), default=5.0, show_default=True, help="Seconds in which further files join a batch.")
@click.option("--max-files", type=click.IntRange(min=1), default=1000, show_default=True, help="Maximum number of files per batch.")
@click.option("--scan", type=Seconds(0.1), default=60.0, show_default=True, help="Seconds between two scans of the folder.")
@click.option("--once", is_flag=True, help="Take what is ready, then end.")
@click.option(
    "--changed",
    type=click.Choice(("again", "ignore", "fail")),
    default="again",
    show_default=True,
    help="What to do with a file that is rewritten after it was taken.",
)
@click.option("--give-up", type=click.IntRange(min=1), default=3, show_default=True, help="Number of batches that try a file.")
@click.option("--name", default="", help="Name of the watcher.  [default: from the folder]")
@click.option("--status", is_flag=True, help="Show which files wait, and why; do not watch.")
def watch(folder: str, workers: int | None, once: bool, name: str, status: bool, **given: Any) -> None:
    """Process the files of FOLDER, as they arrive, in batches.

    FOLDER is a folder, or a source that is listed, such as sftp://host/folder/ or s3://bucket/prefix/. A file is taken once per
    version, when it is complete. Files that arrive within a few seconds are one batch, as of dpp run, with the settings given here
    or in luigi.cfg. Batches run one after another; --workers 1 processes files one by one.

    What was taken is in WORKSPACE/watch/NAME. A watcher that was stopped or killed continues where it was.

    \b
    Exit codes: 2 invalid input or configuration, 3 the environment stopped
    the watcher, 130 interrupted (143 by SIGTERM); with --once, 0 every file
    is ok, 1 some failed.

    \b
    Examples:
      dpp watch incoming --processor checksum
      dpp watch incoming --pattern '*.nc' --recursive --ready marker
      dpp watch incoming --once
      dpp watch incoming --status
    """
    own = {field.name for field in fields(Rules)}
    if once:
        given["collect"] = 0.0
    given = {key: value for key, value in given.items() if value is not None}
    if "marker" in given and given["ready"] != "marker":
        raise click.UsageError("--marker needs --ready marker")
    rules = Rules(**{key: value for key, value in given.items() if key in own})
    settings = {key: value for key, value in given.items() if key not in own}
    checked = runs.check_settings(**settings)
    place = _place(folder, checked)
    name = name or default_name(place)
    _check(place, name, checked)
    if status:
        from dpp_watch.status import show  # noqa: PLC0415 - only this command needs it

        show(place, _identity(place), name, rules, checked)
        return
    sys.exit(_watch(place, name, rules, checked, settings, workers or 0, once=once))


def _watch(place: str, name: str, rules: Rules, checked: Settings, settings: Mapping[str, Any], workers: int, *, once: bool) -> int:
    from dpp_watch.journal import Journal  # noqa: PLC0415 - each start of dpp loads this module
    from dpp_watch.places import opened  # noqa: PLC0415
    from dpp_watch.watcher import Watcher  # noqa: PLC0415

    with Journal(Path(os.path.abspath(checked.workspace)), name, _identity(place)) as journal:
        return Watcher(opened(place, rules, checked), rules, journal, settings, workers, once=once).run()


def _place(folder: str, settings: Settings) -> str:
    """Return the folder without links, or the URL of a source unchanged.

    Raises:
        InputError: There is no such folder, and no plugin lists such a source.
    """
    if Path(folder).is_dir():
        return os.path.realpath(folder)
    if ":" not in folder.partition("/")[0]:
        raise ConfigurationError(f"{folder} is not a folder; create it, or check the path")
    runs.check_source(folder, settings)
    return folder


def _identity(place: str) -> str:
    """Return a place without the password of its URL: a new password is no other place."""
    if is_folder(place):
        return place
    parts = urlsplit(place)
    if "@" not in parts.netloc:
        return place
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}@{host}"))


def default_name(place: str) -> str:
    """Return the name of a folder's watcher: the last part of its path, and a digest of it."""
    place = _identity(place)
    last = re.sub(r"[^a-z0-9._-]+", "-", place.partition("?")[0].rstrip("/").rpartition("/")[2].lower()).strip("-._")
    digest = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{last[:20] or 'folder'}-{digest[:6]}"


def _check(place: str, name: str, settings: Settings) -> None:
    """Check what can be wrong with the folder, the name and the workspace.

    Raises:
        ConfigurationError: The workspace is in the folder, the name is invalid, or a setting would leave files out.
    """
    if settings.shard:
        raise ConfigurationError("shard: a watcher takes all files of its folder; shard is for dpp run, so remove it")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,29}", name):
        raise ConfigurationError(f"--name {name!r}: expected up to 30 lower-case letters, digits, dots, dashes and underscores")
    workspace = os.path.realpath(settings.workspace)
    if is_folder(place) and Path(workspace).is_relative_to(place):
        raise ConfigurationError(
            f"the workspace {workspace} is in the watched folder {place}: its files would be taken; choose another with --workspace"
        )
