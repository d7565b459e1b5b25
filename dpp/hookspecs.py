"""The hooks that a plugin can implement, as pluggy specifications.

A plugin is a module with functions marked ``@hookimpl``, named in the entry point group ``dpp``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

from dpp.base import BaseExecutor, BaseFetcher, BasePostProcessor, BasePreProcessor, BaseProcessor
from dpp.settings import Settings

if TYPE_CHECKING:
    import click

    from dpp.models import Outcome

PROJECT = "dpp"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def dpp_pre_processors() -> Iterable[type[BasePreProcessor]] | None:
    """Return pre-processor classes, or None for none; called once when plugins are loaded."""


@hookspec
def dpp_processors() -> Iterable[type[BaseProcessor]] | None:
    """Return processor classes, or None for none; called once when plugins are loaded."""


@hookspec
def dpp_post_processors() -> Iterable[type[BasePostProcessor]] | None:
    """Return post-processor classes, or None for none; called once when plugins are loaded."""


@hookspec
def dpp_fetchers() -> Mapping[str, type[BaseFetcher]] | None:
    """Return a fetcher class for each URL scheme, in lower case, or None for none; called once when plugins are loaded.

    A plugin's fetcher replaces a built-in one for the same scheme.
    """


@hookspec(firstresult=True)
def dpp_sources(files: str, settings: Settings) -> Iterable[Mapping[str, Any]] | None:
    """Return the files of a source that ``--files`` names, as entries of a manifest; may be a generator.

    Return None for a source that the plugin does not know: then the next plugin is called, and at last dpp reads it as a path.

    Args:
        files: The value of ``--files``, such as ``sftp://host/folder/``.
        settings: The settings of the run; :meth:`Settings.options_for` returns the plugin's own options.
    """


@hookspec
def dpp_source_schemes() -> Iterable[str] | None:
    """Return the URL schemes that the plugin's ``dpp_sources`` lists, in lower case; called once when plugins are loaded.

    A batch may have options under these names. None means that only fetchers' schemes can have options.
    """


@hookspec
def dpp_executors() -> Iterable[type[BaseExecutor]] | None:
    """Return executor classes, which run the chunks of a batch elsewhere, or None for none; called once when plugins are loaded."""


@hookspec
def dpp_commands() -> Iterable[click.Command] | None:
    """Return commands for dpp's command line, or None for none; called on that command line only, and when a command is looked up.

    :func:`dpp.runs.batch_command` makes a command with the options of ``dpp run``.
    """


@hookspec
def dpp_batch_started(run: Mapping[str, Any]) -> None:
    """React to the start of a run; called in the process that starts it.

    Args:
        run: The contents of ``run.json``: ``batch``, ``run``, ``files``, ``total``, ``plugins``.
    """


@hookspec
def dpp_file_finished(outcome: Outcome) -> None:
    """React to the outcome of a file; called once per file and run, in the worker that processed it.

    It is not called for a file that an earlier run has completed.

    Args:
        outcome: The file's row of ``results.jsonl``.
    """


@hookspec
def dpp_batch_finished(summary: Mapping[str, Any]) -> None:
    """React to the end of a run; called in the process that writes the summary.

    Args:
        summary: The contents of ``summary.json``.
    """
