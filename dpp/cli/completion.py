"""``dpp completion``: the shell script that completes words, and the functions that find the words."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from dpp.batch.folder import find_run
from dpp.errors import DppError
from dpp.plugins.registry import registry
from dpp.report.summary import FailureGroup
from dpp.tasks.batch import RunBatch
from dpp.tasks.sections import batch_names

VARIABLE = "_DPP_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that completes words in a shell.

    It completes commands, options, batches of the workspace, the error classes of their failures, named batches, and plugins.
    Add it to a file that the shell reads at startup: ~/.bashrc, ~/.zshrc, or ~/.config/fish/completions/dpp.fish.

    \b
    Examples:
      dpp completion bash >> ~/.bashrc
      source <(dpp completion bash)
      dpp completion fish
    """
    root = click.get_current_context().find_root()
    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(root.command, {}, str(root.info_name), VARIABLE).source())


def silence() -> None:
    """Discard standard error while a shell completes a word."""
    # A message, such as one about a broken plugin, would appear in the line that the user types. The command reports it when it runs.
    if VARIABLE in os.environ:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - stays open until the process ends


def _completer(find: Callable[[click.Context], Iterable[str]], *, listed: bool = False) -> Completer:
    """Return a function that completes a word, or the last one of a comma-separated list, with the names found."""

    def complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",") if listed else ("", "", incomplete)
        try:
            found = sorted(set(find(context)) - set(before.split(",")))
        except (DppError, OSError):
            return []
        return [CompletionItem(f"{before}{comma}{name}") for name in found if name.startswith(last)]

    return complete


def _chosen_workspace(context: click.Context) -> Path:
    return Path(context.params.get("workspace") or RunBatch().settings().workspace)


def _batch_names(context: click.Context) -> list[str]:
    return [folder.name for folder in (_chosen_workspace(context) / "batches").glob("*")]


def _failure_groups(context: click.Context) -> list[FailureGroup]:
    # The option that is completed has no value yet: click stops there, before it turns the argument BATCH into a parameter.
    batch = next(iter(context.args), "")
    run = find_run(_chosen_workspace(context), batch)
    return (run.summary() or run.progress()).failures


def _offer_names(*kinds: str) -> Callable[[click.Context], list[str]]:
    return lambda _context: [offer.name for offer in registry().offers if not kinds or offer.kind in kinds]


def _path_completer(kind: str) -> Completer:
    return lambda _context, _parameter, incomplete: [CompletionItem(incomplete, type=kind)]


BATCHES = _completer(_batch_names)
NAMED_BATCHES = _completer(lambda _context: batch_names())
OFFERED = _completer(_offer_names())
CLASSES = _completer(lambda context: {group.error_class for group in _failure_groups(context)}, listed=True)
FAILED_STAGES = _completer(lambda context: {group.stage for group in _failure_groups(context)}, listed=True)
FILE_PATHS = _path_completer("file")
COMPLETERS = {
    "workspace": _path_completer("dir"),
    "pre_processors": _completer(_offer_names("pre-processor"), listed=True),
    "processor": _completer(_offer_names("processor")),
    "post_processors": _completer(_offer_names("post-processor"), listed=True),
    "skip_existing": _path_completer("dir"),
    "log_file": FILE_PATHS,
}
