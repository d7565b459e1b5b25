"""Tests of ``dpp new-plugin``: the package is complete, its tests pass, it installs, and batches run with it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dpp import EnvironmentStop, InputError, __version__
from dpp.plugins import scaffold
from dpp.plugins.scaffold import PLUGIN_KINDS, write_plugin

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
NAME = "word-tally"


@pytest.fixture(params=PLUGIN_KINDS)
def kind(request):
    return request.param


@pytest.fixture
def package(kind):
    """Create a new package."""
    return write_plugin(NAME, kind).absolute()


@pytest.fixture
def installed(package, tmp_path, monkeypatch):
    """Install the package as ``pip install -e`` does: a path on the import path, and metadata from its pyproject.toml."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site-packages" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    entries = "".join(f"{name} = {module}\n" for name, module in project["entry-points"]["dpp"].items())
    (info / "entry_points.txt").write_text(f"[dpp]\n{entries}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package), str(info.parent)]))
    return package


def call(*arguments, folder=None):
    return subprocess.run([str(argument) for argument in arguments], cwd=folder, capture_output=True, text=True, check=False)


def readme_commands(package):
    blocks = re.findall(r"^```sh\n(.*?)^```$", (package / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    return "".join(blocks)


@pytest.mark.parametrize("kind", [PLUGIN_KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in PLUGIN_KINDS[1:])])
def test_its_own_tests_pass_and_warn_of_nothing(installed, tmp_path):
    run = call(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", installed.name, folder=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(re.search(r"= (\d+) passed in", run.stdout)[1]) > 12


@pytest.mark.slow
def test_the_commands_of_its_readme_work(installed, tmp_path):
    stub = tmp_path / "bin" / "pip"
    stub.parent.mkdir()
    stub.write_text("#!/bin/sh\ntest \"$*\" = 'install -e .[test]'\n")
    stub.chmod(0o755)
    script = f"set -e\nPATH={stub.parent}:{BIN}:$PATH\n" + readme_commands(installed).replace("pytest\n", "pytest --collect-only\n")
    run = call("bash", "-c", script, folder=installed)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"1 of 1 ok( \(1 already done\))?, 0 failed", run.stdout)


def test_dpp_lists_it(installed, kind):
    listed = [line.split("\t") for line in call(BIN / "dpp", "plugins").stdout.splitlines()]
    expected = [NAME, "plugin", ""] if kind == "source" else [NAME, kind, "" if kind == "fetcher" else "1"]
    assert [*expected, f"dpp-{NAME} 0.1.0", "enabled"] in listed


def test_what_is_written_is_complete(package):
    assert sorted(str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()) == [
        "README.md",
        "dpp_word_tally/__init__.py",
        "dpp_word_tally/py.typed",
        "pyproject.toml",
        "tests/test_dpp_word_tally.py",
    ]
    texts = [path.read_text() for path in package.rglob("*") if path.is_file()]
    assert not any(mark in text for text in texts for mark in ("{{", "{%", "{#", "\n\n\n\n"))
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    assert (project["name"], project["dependencies"]) == (f"dpp-{NAME}", ["dpp>=0.1,<1"])
    assert project["entry-points"] == {"dpp": {NAME: "dpp_word_tally"}}


def test_it_keeps_to_the_style_of_this_repository(package, tmp_path):
    place = tmp_path / "plugins" / package.name
    place.parent.mkdir()
    package.rename(place)
    for arguments in (["check"], ["format", "--check"]):
        run = call(BIN / "ruff", *arguments, "--no-cache", "--config", REPOSITORY / "pyproject.toml", "plugins", folder=tmp_path)
        assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow
def test_its_types_are_checked(tmp_path):
    """Check the packages of all kinds in one run of mypy."""
    # Most of the time goes into analysing dpp itself.
    names = {kind: f"typed-{number}" for number, kind in enumerate(PLUGIN_KINDS)}
    modules = [write_plugin(name, kind) / f"dpp_{name.replace('-', '_')}" for kind, name in names.items()]
    settings = ["--config-file", REPOSITORY / "pyproject.toml", "--cache-dir", REPOSITORY / ".mypy_cache"]
    run = call(BIN / "mypy", *settings, *modules, folder=REPOSITORY)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Line-Count", "lower-case letters"),
        ("line_count", "lower-case letters"),
        ("line--count", "lower-case letters"),
        ("-line", "lower-case letters"),
        ("1st", "lower-case letters"),
        ("line\n", "lower-case letters"),
        ("", "lower-case letters"),
        ("../evil", "lower-case letters"),
        ("{{ 7 * 7 }}", "lower-case letters"),
        ("x" * 41, "at most 40"),
        ("dpp-lines", "omit the prefix dpp-"),
        ("path", "the module uses another class of this name"),
        ("none", "the module uses another class of this name"),
        ("test-it", "pytest collects classes"),
        ("checksum", "processor 'checksum' is already offered by dpp (built in)"),
        ("curl", f"dpp-curl {__version__} is already installed"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(name, reason, tmp_path):
    with pytest.raises(InputError, match=re.escape(reason)):
        write_plugin(name, folder=tmp_path / "new")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_is_there_is_left_as_it_is(make, command, tmp_path):
    place = tmp_path / "there"
    make(place)
    before = os.lstat(place)
    run = command("dpp", "new-plugin", NAME, "--output", "there")
    assert (run.returncode, run.stdout) == (2, "")
    assert f"Error: {place} exists already" in run.stderr
    assert (os.lstat(place).st_ino, os.listdir(tmp_path)) == (before.st_ino, ["there"])


def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(InputError, match="does not exist; create it first"):
        write_plugin(NAME, folder=tmp_path / "no" / "such" / "folder")
    assert not list(tmp_path.iterdir())


def test_a_place_with_blanks_is_quoted_in_what_to_do_next(command, tmp_path):
    run = command("dpp", "new-plugin", NAME, "--output", "my plugins")
    assert "pip install -e 'my plugins[test]'\n  pytest 'my plugins'" in run.stdout
    assert (tmp_path / "my plugins" / "pyproject.toml").exists()


def test_a_folder_that_appears_in_the_meantime_is_left_as_it_is(tmp_path, monkeypatch):
    render = scaffold._render

    def late(name, kind, folder):
        render(name, kind, folder)
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "precious").touch()

    monkeypatch.setattr(scaffold, "_render", late)
    with pytest.raises(InputError, match="was created by another process meanwhile"):
        write_plugin(NAME, folder=tmp_path / "new")
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "precious"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), RuntimeError("a fault")])
def test_nothing_is_left_of_what_fails(error, tmp_path, monkeypatch):
    render = scaffold._render

    def broken(name, kind, folder):
        render(name, kind, folder)
        raise error

    monkeypatch.setattr(scaffold, "_render", broken)
    with pytest.raises(EnvironmentStop if isinstance(error, OSError) else type(error)):
        write_plugin(NAME, folder=tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_the_command_needs_no_other_program_asks_nothing_and_says_what_to_do_next(tmp_path):
    run = subprocess.run(
        [BIN / "dpp", "new-plugin", NAME, "--kind", "fetcher"],
        env={"PATH": "", "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == (
        f"wrote dpp-{NAME}, a fetcher. Install it and run its tests:\n  pip install -e 'dpp-{NAME}[test]'\n  pytest dpp-{NAME}\n"
    )


def test_other_verbs_do_without_jinja2_and_dpp_without_pytest():
    done = call(sys.executable, "-c", "import dpp.cli, sys; print({'jinja2', 'pytest', 'dpp.testing'} & set(sys.modules))")
    assert done.stdout == "set()\n"


def test_the_template_is_in_the_wheel(tmp_path):
    """The wheel that setuptools builds contains all files of the template."""
    copy = tmp_path / "repository"
    shutil.copytree(REPOSITORY / "dpp", copy / "dpp", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, copy)
    packed = call(
        sys.executable, "-c", "from setuptools import setup; setup()", "--quiet", "build", "--build-lib", tmp_path / "lib", folder=copy
    )
    assert packed.returncode == 0, packed.stderr
    template = REPOSITORY / "dpp/templates/plugin"
    expected = sorted(path.relative_to(template) for path in template.rglob("*") if path.is_file())
    got = tmp_path / "lib/dpp/templates/plugin"
    assert sorted(path.relative_to(got) for path in got.rglob("*") if path.is_file()) == expected
