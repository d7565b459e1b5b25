"""``dpp run``: the same job as Luigi's task RunBatch, with shorter options."""

from __future__ import annotations

import sys
from typing import Any

import click

from dpp.cli.completion import FILE_PATHS
from dpp.cli.options import GroupedCommand, batch_option, settings_options, workers_option
from dpp.report.summary import render
from dpp.tasks.batch import RunBatch, start_batch


@click.command(cls=GroupedCommand)
@click.argument("files", default="", shell_complete=FILE_PATHS)
@batch_option
@workers_option
@settings_options
def run(files: str, workers: int | None, **given: Any) -> None:
    """Run the batch of FILES; a rerun does only what is missing.

    FILES is JSON, JSON Lines (.jsonl), a table with a header (.csv, .tsv, .parquet), a text file of URLs (.txt), a folder or a
    pattern of local files, or a source of a plugin, such as sftp://host/folder/. A named batch (--batch) can set it instead.

    Results are written to the workspace. Settings that are not given come from luigi.cfg; dpp config shows them.

    \b
    Exit codes: 0 every file is ok, 1 some files failed, 2 invalid input
    or configuration, 3 the environment stopped the run, 130 interrupted
    (143 by SIGTERM, 129 by SIGHUP).

    \b
    Examples:
      dpp run files.json --workers 4
      dpp run urls.txt --processor my_module:WordCount --workspace work
      dpp run files.csv --options '{"checksum": {"algorithm": "md5"}}'
    """
    settings = {name: value for name, value in given.items() if value is not None}
    summary, code = start_batch(files, workers or 0, **settings)
    if not RunBatch(**settings).settings().json_lines:
        click.echo(render(summary))
    sys.exit(code)
