"""Start batches and read runs, for plugins with commands and for programs around dpp.

from dpp import runs

finished = runs.start_batch("files.json", workers=4, processor="checksum")
for outcome in runs.find_run(Path("dpp-workspace")).results(): ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from dpp.batch.folder import RunFolder, find_run, latest_runs
from dpp.errors import ConfigurationError
from dpp.logs import set_up_logging
from dpp.models import FileData
from dpp.plugins.registry import close_fetcher, registry
from dpp.redact import redact_url
from dpp.report.summary import Summary
from dpp.selection import Selection
from dpp.settings import Settings
from dpp.tasks import batch
from dpp.tasks.luigi_settings import check_luigi_settings

if TYPE_CHECKING:
    import click

__all__ = [
    "Finished",
    "RunFolder",
    "batch_command",
    "check_settings",
    "check_source",
    "find_run",
    "latest_runs",
    "list_source",
    "start_batch",
]


class Finished(NamedTuple):
    """How a run of a batch has ended.

    Attributes:
        summary: Its summary; the folder of its results is ``summary.folder``.
        exit_code: 0 if every file is ok, 1 if some failed, 3 if the environment stopped the run, 128 and the number of the signal
            that interrupted it.
    """

    summary: Summary
    exit_code: int


def start_batch(files: Any = "", *, workers: int = 0, selection: Selection | None = None, **settings: Any) -> Finished:
    """Run a batch in this process as ``dpp run`` does, with its display and its log, and wait for its end.

    Call it in the main thread: SIGINT, SIGTERM and SIGHUP then end the run gracefully, and it has a summary.

    Args:
        files: The manifest: a path, a source that a plugin lists, or a list of dicts; empty if a named batch sets it.
        workers: Number of processes; 0 for the number in luigi.cfg, or 1.
        selection: Which failures of earlier runs are retried; all if None.
        settings: Settings that differ from their defaults and from luigi.cfg; ``batch_name`` for a named batch.

    Raises:
        InputError: The manifest, a setting or a plugin is invalid; nothing was fetched.
        LockedError: Another process runs this batch.
        EnvironmentStop: The workspace cannot be written.
    """
    return Finished(*batch.start_batch(files, workers, selection, **settings))


def check_settings(**settings: Any) -> Settings:
    """Return the settings that :func:`start_batch` would use, with those of luigi.cfg; check them and the plugins that they name.

    dpp's log is sent to standard error from then on, as that of a batch is.

    Args:
        settings: As those of :func:`start_batch`.

    Raises:
        InputError: A setting, an option or the name of a plugin is invalid.
    """
    check_luigi_settings()
    task = batch.RunBatch(**settings)
    checked = task.settings()
    set_up_logging(checked)
    registry().steps(checked)
    registry().check_fetchers(checked)
    task.make_executor()
    if checked.skip_existing:
        registry().source(checked.skip_existing, checked, "skip_existing")
    return checked


def check_source(source: str, settings: Settings) -> None:
    """Check that a plugin lists a source, and that its URL and options are valid, without a request to it.

    Args:
        source: As that of :func:`list_source`.
        settings: The settings, with the options of the plugin.

    Raises:
        InputError: No plugin lists this source, or it is invalid.
    """
    registry().source(source, settings)


def list_source(source: str, settings: Settings) -> Iterator[FileData]:
    """Yield the files that a source lists, such as ``sftp://host/folder/``.

    Each has the fields that the source gives it, and ``expect_version`` if the listing shows the version: then nothing more is
    requested for it.

    Args:
        source: A value of ``dpp run FILES`` that a plugin knows.
        settings: The settings, with the options of the plugin.

    Raises:
        ConfigurationError: No plugin lists this source, or an entry is invalid.
        DppError: The source cannot be listed.
    """
    entries = registry().source(source, settings)
    fetchers = {scheme: cls(settings) for scheme, cls in registry().fetchers().items()}
    try:
        for entry in entries:
            file = _file(source, entry)
            fetcher = fetchers.get(file.url.partition(":")[0].lower())
            if fetcher is not None and file.expect_version is None:
                file.expect_version = fetcher.source_version(file.url, file)
            yield file
    finally:
        for fetcher in {*fetchers.values()}:
            close_fetcher(fetcher)


def _file(source: str, entry: Mapping[str, Any]) -> FileData:
    try:
        return FileData.model_validate(dict(entry))
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]["msg"]
        raise ConfigurationError(f"{redact_url(source)} lists an invalid file: {problem}") from None


def batch_command(name: str, groups: Mapping[str, Sequence[str]] | None = None) -> Callable[[Callable[..., Any]], click.Command]:
    """Return a decorator that makes a function a command with the options of ``dpp run``, for the hook ``dpp_commands``.

    The function gets ``workers`` (an integer, or None), and the settings and ``batch_name`` by name; what is not given is None.

    Args:
        name: Name of the command.
        groups: Groups of the command's own options for its help, by title: names of parameters.
    """
    # `import dpp` must not import click, which takes 30 ms.
    import click  # noqa: PLC0415

    from dpp.cli import options  # noqa: PLC0415

    class Command(options.GroupedCommand):
        own_groups = groups or {}

    def decorate(function: Callable[..., Any]) -> click.Command:
        for option in (options.settings_options, options.workers_option, options.batch_option):
            function = option(function)
        return click.command(name, cls=Command)(function)

    return decorate
