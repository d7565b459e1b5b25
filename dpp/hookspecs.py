"""The hooks that a plugin can implement, as pluggy specifications.

A plugin is a module with functions marked ``@hookimpl``, named in the entry point group ``dpp``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

from dpp.base import BaseFetcher, BasePostProcessor, BasePreProcessor, BaseProcessor
from dpp.settings import Settings

if TYPE_CHECKING:
    import click

    from dpp.models import Outcome

PROJECT = "dpp"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def dpp_pre_processors() -> Iterable[type[BasePreProcessor]] | None:
    """Return pre-processor classes; asked once when plugins are loaded. None offers nothing."""


@hookspec
def dpp_processors() -> Iterable[type[BaseProcessor]] | None:
    """Return processor classes; asked once when plugins are loaded. None offers nothing."""


@hookspec
def dpp_post_processors() -> Iterable[type[BasePostProcessor]] | None:
    """Return post-processor classes; asked once when plugins are loaded. None offers nothing."""


@hookspec
def dpp_fetchers() -> Mapping[str, type[BaseFetcher]] | None:
    """Return a fetcher class for each URL scheme, in lower case; asked once when plugins are loaded.

    A plugin's fetcher takes the place of a built-in one for the same scheme. None offers nothing.
    """


@hookspec(firstresult=True)
def dpp_sources(files: str, settings: Settings) -> Iterable[Mapping[str, Any]] | None:
    """Return the files behind what ``--files`` names, as entries of a manifest; may be a generator.

    Args:
        files: What the user gave, such as ``sftp://host/folder/``. None leaves it to the next plugin, and
            at last to dpp, which takes it for a path.
        settings: The settings of the run; :meth:`Settings.options_for` tells the plugin's own options.
    """


@hookspec
def dpp_source_schemes() -> Iterable[str] | None:
    """Return the URL schemes that the plugin's ``dpp_sources`` lists, in lower case; asked once when plugins are loaded.

    A batch may have options under these names. None: only those of fetchers.
    """


@hookspec
def dpp_commands() -> Iterable[click.Command] | None:
    """Return commands for ``dpp``'s command line, as a list; asked when plugins are loaded and when a command is looked up.

    None offers nothing.
    """


@hookspec
def dpp_batch_started(run: Mapping[str, Any]) -> None:
    """Take note that a run of a batch begins; called in the process that begins it.

    Args:
        run: What the run's ``run.json`` holds: ``batch``, ``run``, ``files``, ``total``, ``plugins``.
    """


@hookspec
def dpp_file_finished(outcome: Outcome) -> None:
    """Take note of a file's outcome; called once a file and run, in the worker that did it.

    Not called for a file that an earlier run had done already.

    Args:
        outcome: The file's row of ``results.jsonl``.
    """


@hookspec
def dpp_batch_finished(summary: Mapping[str, Any]) -> None:
    """Take note that a run has ended; called in the process that sums it up.

    Args:
        summary: What the run's ``summary.json`` holds.
    """
