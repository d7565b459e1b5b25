"""Tests of the source archives and wheels of dpp and its plugins, installed in clean virtual environments as users do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from dpp import __version__

REPOSITORY = Path(__file__).parent.parent
PLUGINS = sorted(path.parent.name for path in REPOSITORY.glob("plugins/*/pyproject.toml"))
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "_build", "dist", "*-workspace")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheels")]


def call(*arguments):
    done = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def make(folder):
    """Build all source archives from a copy of the repository, and a wheel from each; install dpp and a plugin in a new environment."""
    copy = shutil.copytree(REPOSITORY, folder / "repository", ignore=LEFT_OUT, symlinks=True)
    for project in (copy, *(copy / "plugins" / plugin for plugin in PLUGINS)):
        call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", project)
    shutil.rmtree(copy)
    make_environment(folder / "venv", wheel(folder, "dpp"), wheel(folder, "dpp-linecount"))


def make_environment(folder, *wheels):
    """Create a virtual environment with the requirements of these wheels; without pip, whose installation takes longer than the rest."""
    call(sys.executable, "-m", "venv", "--without-pip", folder)
    pip(folder, "install", "--no-compile", *wheels)


def pip(folder, command, *arguments):
    call(sys.executable, "-m", "pip", "--quiet", "--python", folder / "bin/python", command, *arguments)


def wheel(folder, name):
    return folder / "dist" / f"{name.replace('-', '_')}-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a folder with dist/ and venv/."""
    folder = tmp_path_factory.mktemp("wheels")
    make(folder)
    return folder


@pytest.fixture
def tool(installed, tmp_path):
    """Run a command of the new environment, from an empty folder."""
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(name, *arguments, **environment):
        everything = [installed / "venv/bin" / name, *map(str, arguments)]
        return subprocess.run(everything, cwd=empty, env={**os.environ, **environment}, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def files(site, manifest):
    return manifest([{"url": site.add(f"/{count}.txt", "line\n\n" * count)} for count in range(1, 6)])


def test_the_plugin_counts_lines_in_the_main_job(tool, files, tmp_path, site):
    run = tool("luigi", "--module", "dpp", "RunBatch", "--files", files, "--processor", "line-count", "--workers", 2)
    assert run.returncode == 0, run.stderr
    rows = [json.loads(line) for line in next(tmp_path.glob("empty/dpp-workspace/batches/*/runs/1/results.jsonl")).read_text().splitlines()]
    assert {row["id"]: row["result"]["lines"] for row in rows} == {str(count): 2 * count for count in range(1, 6)}
    assert {plugin["name"] for row in rows for plugin in row["plugins"]} == {"line-count"}
    assert sum(site.counts().values()) == 5
    assert next(tmp_path.glob("empty/dpp-workspace/batches/*/runs/1/report.html")).stat().st_size


def test_the_plugin_takes_its_option(tool, files, tmp_path):
    options = '{"line-count": {"skip_blank": true}}'
    run = tool("dpp", "run", files, "--processor", "line-count", "--options", options)
    assert run.returncode == 0, run.stderr
    reports = [json.loads(path.read_text()) for path in tmp_path.glob("empty/dpp-workspace/reports/*/*/*.json")]
    assert sorted(report["result"]["lines"] for report in reports) == [1, 2, 3, 4, 5]


def test_a_release_has_every_archive_under_the_tag(installed):
    check = REPOSITORY / "scripts/check-release"
    call(check, f"v{__version__}", installed / "dist")
    other = subprocess.run([check, "v99.0.0", installed / "dist"], capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert "Set the version in dpp/_version.py" in other.stderr


def test_the_archives_can_be_published(installed):
    call(sys.executable, "-m", "twine", "check", "--strict", *(installed / "dist").iterdir())


@pytest.mark.parametrize("name", ["dpp", *PLUGINS])
def test_a_source_archive_stands_alone(installed, name):
    stem = f"{name.replace('-', '_')}-{__version__}"
    with tarfile.open(installed / "dist" / f"{stem}.tar.gz") as archive:
        members = archive.getmembers()
    names = {member.name.removeprefix(f"{stem}/") for member in members}
    assert {"LICENSE", "README.md", "pyproject.toml"} <= names
    assert not [name for name in names if name.startswith("tests")]
    assert all(member.isfile() or member.isdir() for member in members)


def test_the_list_of_plugins_names_distribution_and_version(tool):
    listed = tool("dpp", "plugins").stdout.splitlines()
    assert f"line-count\tprocessor\t1\tdpp-linecount {__version__}\tenabled" in listed
    assert "checksum\tprocessor\t1\tbuilt in\tenabled" in listed


def test_a_run_without_the_plugin_says_what_to_do(tool, files, site):
    arguments = ["--module", "dpp", "RunBatch", "--files", files, "--processor", "line-count"]
    run = tool("luigi", *arguments, DPP_DISABLE_PLUGINS="linecount")
    assert run.returncode == 2
    assert "unknown processor 'line-count'; choose from checksum, or use MODULE:CLASS" in run.stderr
    assert f"plugin linecount (dpp-linecount {__version__}) is disabled: named in DPP_DISABLE_PLUGINS" in run.stderr
    assert not site.counts()


def test_the_wheels_bring_their_types(installed):
    for package in ("dpp", "dpp_linecount"):
        assert list(installed.glob(f"venv/lib/python*/site-packages/{package}/py.typed"))


@pytest.mark.parametrize("command", ["dpp", "download-pipeline-processor", "luigi"])
def test_the_commands_are_there(tool, command):
    assert tool(command, "--help").returncode == 0


def test_a_new_plugin_installs_and_passes_its_tests(installed, tmp_path):
    """Follow the steps of a plugin's author, in an environment that has only dpp's wheel."""
    binaries = tmp_path / "venv/bin"
    make_environment(tmp_path / "venv", wheel(installed, "dpp"))
    call(binaries / "dpp", "new-plugin", "word-tally", "--output", tmp_path / "new")
    pip(tmp_path / "venv", "install", "--editable", f"{tmp_path / 'new'}[test]")
    call(binaries / "pytest", tmp_path / "new")
    pip(tmp_path / "venv", "wheel", "--no-deps", "--wheel-dir", tmp_path / "dist", tmp_path / "new")
    assert [path.name for path in (tmp_path / "dist").iterdir()] == ["dpp_word_tally-0.1.0-py3-none-any.whl"]


def test_each_plugin_installs_beside_dpp_and_shows_up(installed, tmp_path):
    make_environment(tmp_path / "venv", wheel(installed, "dpp"))
    for plugin in PLUGINS:
        pip(tmp_path / "venv", "install", "--no-compile", wheel(installed, plugin))
        listed = subprocess.run([tmp_path / "venv/bin/dpp", "plugins"], capture_output=True, text=True, check=True, cwd=tmp_path)
        assert f"{plugin} {__version__}" in listed.stdout
        assert "broken" not in listed.stdout + listed.stderr
        pip(tmp_path / "venv", "uninstall", "--yes", plugin)
