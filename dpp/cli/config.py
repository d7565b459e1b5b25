"""``dpp config``: every setting, its value and its origin."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from dpp.cli.options import batch_option, format_option
from dpp.cli.output import print_json, print_table
from dpp.errors import ConfigurationError
from dpp.names import suggestion
from dpp.redact import as_entry
from dpp.tasks.config import Value, read_configuration


@click.command()
@batch_option
@click.option("--section", default="", help="Show only this section, such as RunBatch, checksum, core or environment.  [default: all]")
@format_option("text", "json")
def config(batch_name: str | None, section: str, form: str) -> None:
    """Show every setting of a run and where its value comes from.

    Reads the same files as Luigi (/etc/luigi/luigi.cfg, ./luigi.cfg, $LUIGI_CONFIG_PATH) and the environment. Options on the
    command line of a run take precedence over all of these. Secrets are masked. Problems in luigi.cfg, such as an unknown
    setting, are reported on standard error, with exit code 2.

    \b
    Examples:
      dpp config
      dpp config --section RunBatch
      dpp config --format json
    """
    found = read_configuration(batch_name or "")
    values = _chosen(found.values, section)
    if form == "json":
        print_json(json.dumps([asdict(value) for value in values], indent=2))
    else:
        print_table(
            ("section", "name", "value", "from"), ((one.section, one.name, _display_value(one.value), one.origin) for one in values)
        )
    for problem in found.problems:
        click.echo(f"Error: {as_entry(problem)}", err=True)
    if found.problems:
        sys.exit(ConfigurationError.exit_code)


def _chosen(values: list[Value], section: str) -> list[Value]:
    sections = {value.section for value in values}
    if section and section not in sections:
        raise ConfigurationError(f"unknown section {section!r}; {suggestion(section, sections)}")
    return [value for value in values if section in ("", value.section)]


def _display_value(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ",".join(value)
    return json.dumps(value, ensure_ascii=False)
