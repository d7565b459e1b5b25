"""Tests of ``dpp.runs``: batches started from a program, and what it reads of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from textwrap import dedent

import click
import pytest
from click.testing import CliRunner
from dpp import ConfigurationError, Settings, runs

HEADER = "from dpp import hookimpl\n"


def urls(tmp_path, *names):
    for name in names:
        (tmp_path / name).write_text(name)
    return [{"url": (tmp_path / name).as_uri()} for name in names]


def program(command, tmp_path, source):
    """Run a program in a process of its own, as a batch changes how a process handles signals."""
    (tmp_path / "program.py").write_text(dedent(source))
    return command(sys.executable, "program.py")


def test_a_batch_started_from_a_program_can_be_read(command, tmp_path):
    urls(tmp_path, "a.txt", "b.txt")
    done = program(
        command,
        tmp_path,
        """
        from pathlib import Path
        from dpp import runs
        files = [{"url": Path(name).absolute().as_uri()} for name in ("a.txt", "b.txt", "none.txt")]
        finished = runs.start_batch(files, workers=1, quiet=True, attempts=1)
        run = runs.find_run(Path("dpp-workspace"), finished.summary.batch)
        print(finished.exit_code, run.summary().ok, sorted((outcome.id, outcome.status) for outcome in run.results()))
        """,
    )
    assert done.stdout == "1 2 [('a', 'ok'), ('b', 'ok'), ('none', 'failed')]\n", done.stderr


def test_settings_are_checked_with_the_plugins_they_name():
    assert runs.check_settings(processor="checksum").processor == "checksum"
    with pytest.raises(ConfigurationError, match="unknown processor 'cheksum'; did you mean 'checksum'"):
        runs.check_settings(processor="cheksum")


def test_a_listed_file_has_its_version(tmp_path):
    urls(tmp_path, "a.txt")
    status = (tmp_path / "a.txt").stat()
    (listed,) = runs.list_source(str(tmp_path), Settings())
    assert (listed.id, listed.expect_version) == ("a.txt", f"{status.st_size}-{status.st_mtime_ns}")


def test_a_source_that_nobody_lists_is_refused_without_its_secrets():
    with pytest.raises(ConfigurationError, match=r"nowhere://\*\*\*@host/ is not a folder, and no plugin can list it"):
        next(runs.list_source("nowhere://me:secret@host/", Settings()))


def test_a_command_has_the_options_of_a_batch():
    @runs.batch_command("nightly", {"When": ("hour",)})
    @click.option("--hour", type=int, default=3)
    def nightly(hour, workers, **given):
        """Run at night."""
        click.echo(json.dumps({"hour": hour, "workers": workers} | {name: value for name, value in given.items() if value is not None}))

    shown = CliRunner().invoke(nightly, ["--workers", "2", "--processor", "checksum"])
    assert json.loads(shown.output) == {"hour": 3, "workers": 2, "processor": "checksum"}
    assert CliRunner().invoke(nightly, ["--help"]).output.index("When:") < CliRunner().invoke(nightly, ["--help"]).output.index(
        "What to run:"
    )


@pytest.mark.cold
def test_luigi_does_not_load_the_commands_of_plugins(install, command):
    install("slow", "@hookimpl\ndef dpp_commands():\n    raise OSError('no command line')\n")
    Path("x.json").write_text(json.dumps(urls(Path.cwd(), "a.txt")))
    assert "broken" not in command("luigi", "--module", "dpp", "RunBatch", "--files", "x.json", "--local-scheduler").stderr
    assert "skipped broken plugin slow" in command("dpp", "run", "x.json").stderr
