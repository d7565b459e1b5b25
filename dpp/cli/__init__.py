"""The command line ``dpp``: one module per command. Only this package prints."""

from __future__ import annotations

import click

from dpp._version import __version__
from dpp.cli.clean import clean
from dpp.cli.completion import completion, silence
from dpp.cli.config import config
from dpp.cli.entry import enter
from dpp.cli.export import export
from dpp.cli.new_plugin import new_plugin
from dpp.cli.plan import plan
from dpp.cli.plugins import plugins
from dpp.cli.report import report
from dpp.cli.retry import retry
from dpp.cli.run import run
from dpp.cli.status import status
from dpp.cli.verify import verify
from dpp.cli.why import why
from dpp.errors import PluginError
from dpp.names import suggestion
from dpp.plugins.registry import registry


class _Group(click.Group):
    """Commands of dpp and of plugins (hook ``dpp_commands``)."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*self.commands, *_plugin_commands()})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return a command, or None if the name is unknown."""
        # dpp's own commands win, so that no plugin can replace one.
        return self.commands.get(name) or _plugin_commands().get(name)

    def resolve_command(self, context: click.Context, arguments: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments start with.

        Raises:
            click.UsageError: The command is unknown; the message suggests a similar name.
        """
        name = arguments[0]
        # click's own message suggests nothing. While a shell completes a word, an incomplete name is no error.
        if not name.startswith("-") and not context.resilient_parsing and self.get_command(context, name) is None:
            raise click.UsageError(f"unknown command {name!r}; {suggestion(name, self.list_commands(context))}", context)
        return super().resolve_command(context, arguments)


def _plugin_commands() -> dict[str, click.Command]:
    """Return the commands of plugins by name."""
    offered: dict[str, click.Command] = {}
    for plugin, command in registry().commands():
        if command.name in offered:
            raise PluginError(
                f"two plugins define the command {command.name!r}, one of them {plugin}; disable one of them with DPP_DISABLE_PLUGINS"
            )
        offered[str(command.name)] = command
    return offered


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def dpp() -> None:
    """Run batches of files: download, pre-process, process, report.

    \b
    Exit codes: 0 every file is ok, 1 some files failed, 2 invalid input
    or configuration, 3 the environment stopped the run, 130 interrupted.
    """


for _command in (clean, completion, config, export, new_plugin, plan, plugins, report, retry, run, status, verify, why):
    dpp.add_command(_command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, then exit with the exit code of the command."""
    silence()
    enter(dpp, "dpp", arguments)
