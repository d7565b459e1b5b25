"""Options of the command line, generated from the settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import click
from pydantic.fields import FieldInfo

from dpp.cli.completion import BATCHES, COMPLETERS, NAMED_BATCHES, Completer
from dpp.settings import Settings
from dpp.tasks.batch import RunBatch
from dpp.tasks.parameters import spelled

SHORT = {"json_lines": ["--json"]}
Command = TypeVar("Command", bound=Callable[..., Any])

workspace_option = click.option(
    "--workspace",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: RunBatch().settings().workspace,
    help="Folder for downloads, results and reports.  [default: $DPP_WORKSPACE, [RunBatch] in luigi.cfg, $CACHE_DIR, or dpp-workspace]",
)

workers_option = click.option(
    "--workers", type=click.IntRange(min=1), help="Number of processes.  [default: from [core] in luigi.cfg, or 1]"
)
batch_option = click.option(
    "--batch",
    "batch_name",
    help="Use the settings of section [batch:NAME] of luigi.cfg.",
    shell_complete=NAMED_BATCHES,
)
batch_argument = click.argument("batch", default="", shell_complete=BATCHES)
run_option = click.option("--run", "number", type=click.IntRange(min=1), help="Number of the run.  [default: the last one]")


def _is_no_device(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Return the path to write, with a symbolic link resolved.

    Raises:
        click.BadParameter: The path is a device or a pipe.
    """
    # The output replaces its file by a rename, which would put a file in place of a device, a pipe or a link.
    if path is None or not path.exists() or path.is_file():
        return path.resolve() if path and path.is_symlink() else path
    raise click.BadParameter(f"{path} is not a regular file; omit {parameter.opts[0]} and redirect: ... > {path}", context, parameter)


def output_option(help: str) -> Callable[[Command], Command]:  # noqa: A002 - as click calls it
    """Return a decorator that adds the option ``--output`` for a file."""
    return click.option("--output", type=click.Path(path_type=Path, dir_okay=False), callback=_is_no_device, help=help)


def format_option(*formats: str, help: str = "Output format.") -> Callable[[Command], Command]:  # noqa: A002 - as click calls it
    """Return a decorator that adds the option ``--format``; the first format is the default."""
    return click.option("--format", "form", type=click.Choice(formats), default=formats[0], show_default=True, help=help)


class _JsonObject(click.ParamType[Any]):
    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return json.loads(value)
        except ValueError as error:
            example = '{"X-Key": "..."}' if param and param.name == "headers" else '{"line-count": {"skip_blank": true}}'
            self.fail(f"expected JSON such as {example}: {error}", param, ctx)


GROUPS = {
    "What to retry": ("classes", "stages", "hosts", "everything"),
    "What to run": (
        "batch_name",
        "workspace",
        "pre_processors",
        "processor",
        "post_processors",
        "options",
        "shard",
        "skip_existing",
        "skip_bad",
        "allow_empty",
        "encoding",
        "expect_type",
        "deny_private",
        "cleanup",
    ),
    "Parallelism and limits": (
        "workers",
        "executor",
        "lost_after",
        "chunk_size",
        "download_threads",
        "processing_limit",
        "download_queue_size",
        "pre_processing_queue_size",
        "max_per_host",
        "rate_limit",
        "max_bytes",
    ),
    "HTTP requests": ("user_agent", "headers"),
    "Output": ("form", "quiet", "json_lines", "debug", "log_file"),
    "Retries and time limits": (
        "attempts",
        "retry_wait",
        "retry_wait_max",
        "retry_after_max",
        "connect_timeout",
        "read_timeout",
        "stall_timeout",
        "total_timeout",
        "stage_timeout",
    ),
}


class GroupedCommand(click.Command):
    """A command whose help shows the options in groups; those of its own come first."""

    own_groups: ClassVar[Mapping[str, Sequence[str]]] = {}

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options group by group, then the options that have no group."""
        groups = {**self.own_groups, **GROUPS}
        grouped: dict[str, list[tuple[str, str]]] = {title: [] for title in (*groups, "Other options")}
        titles = {name: title for title, names in groups.items() for name in names}
        for option in self.get_params(context):
            if isinstance(option, click.Option) and (record := option.get_help_record(context)):
                grouped[titles.get(str(option.name), "Other options")].append(record)
        for title, records in grouped.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def options_for(settings: Collection[str]) -> Callable[[Command], Command]:
    """Return a decorator that adds an option for each of these settings; the value of an option that is not given is None."""

    def decorate(command: Command) -> Command:
        for name in reversed([name for name in Settings.model_fields if name in settings]):
            command = _setting_option(name, Settings.model_fields[name])(command)
        return command

    return decorate


settings_options = options_for(Settings.model_fields)


def words_option(flag: str, name: str, text: str, complete: Completer | None = None) -> Callable[[Command], Command]:
    """Return a decorator that adds an option for comma-separated words, which can be given several times."""

    def split(_context: click.Context, _setting_option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(word.strip() for words in given for word in words.split(",") if word.strip())

    return click.option(flag, name, multiple=True, callback=split, metavar="WORD,...", help=text, shell_complete=complete)


def _setting_option(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    default = field.get_default(call_default_factory=True)
    flags = [f"--{name.replace('_', '-')}", *SHORT.get(name, ())]
    description = field.description or ""
    text = f"{description[:1].upper()}{description[1:]}."
    # The default of the option is None, not that of the setting: a value from luigi.cfg must not be overridden.
    if isinstance(default, bool):
        return click.option(*flags, name, is_flag=True, default=None, help=text)
    plain = None if spelled(field) else {int: click.INT, float: click.FLOAT}.get(type(default))
    kind = _JsonObject() if isinstance(default, dict) else plain or click.STRING
    shown = "" if default in ((), {}, "") else f"  [default: {default}]"
    return click.option(*flags, name, type=kind, default=None, help=text + shown, shell_complete=COMPLETERS.get(name))
