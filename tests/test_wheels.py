"""The wheels of dpp and of a plugin, installed together in a clean virtual environment as a user would do it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "*-workspace")

pytestmark = pytest.mark.timeout(900)


def call(*arguments):
    done = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def make(folder):
    """Build both wheels from a copy of the repository, and install them in a new environment."""
    copy = shutil.copytree(REPOSITORY, folder / "repository", ignore=LEFT_OUT)
    for project in (copy, copy / "plugins/dpp-linecount"):
        call(sys.executable, "-m", "build", "--wheel", "--outdir", folder / "dist", project)
    call(sys.executable, "-m", "venv", folder / "venv")
    call(folder / "venv/bin/pip", "install", "--quiet", *sorted((folder / "dist").glob("*.whl")))


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """Return the folder with dist/ and venv/, made once however many processes test."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "wheels"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            make(folder)
            (folder / "done").touch()
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


def test_the_list_of_plugins_names_distribution_and_version(tool):
    listed = tool("dpp", "plugins").stdout.splitlines()
    assert "line-count\tprocessor\t1\tdpp-linecount 0.1.0\tenabled" in listed
    assert "checksum\tprocessor\t1\tbuilt in\tenabled" in listed


def test_a_run_without_the_plugin_says_what_to_do(tool, files, site):
    arguments = ["--module", "dpp", "RunBatch", "--files", files, "--processor", "line-count"]
    run = tool("luigi", *arguments, DPP_DISABLE_PLUGINS="linecount")
    assert run.returncode == 2
    assert "no processor 'line-count': there is checksum, or MODULE:CLASS" in run.stderr
    assert "plugin linecount (dpp-linecount 0.1.0) is disabled: named in DPP_DISABLE_PLUGINS" in run.stderr
    assert not site.counts()


def test_the_wheels_bring_their_types(installed):
    for package in ("dpp", "dpp_linecount"):
        assert list(installed.glob(f"venv/lib/python*/site-packages/{package}/py.typed"))


@pytest.mark.parametrize("command", ["dpp", "download-pipeline-processor", "luigi"])
def test_the_commands_are_there(tool, command):
    assert tool(command, "--help").returncode == 0


def test_a_new_plugin_installs_and_passes_its_tests(installed, tmp_path):
    """As its author does it, in an environment that has only dpp's wheel."""
    binaries = tmp_path / "venv/bin"
    call(sys.executable, "-m", "venv", tmp_path / "venv")
    call(binaries / "pip", "install", "--quiet", *(installed / "dist").glob("dpp-*.whl"))
    call(binaries / "dpp", "new-plugin", "word-tally", "--output", tmp_path / "new")
    call(binaries / "pip", "install", "--quiet", "--editable", f"{tmp_path / 'new'}[test]")
    call(binaries / "pytest", tmp_path / "new")
    call(binaries / "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "dist", tmp_path / "new")
    assert [path.name for path in (tmp_path / "dist").iterdir()] == ["dpp_word_tally-0.1.0-py3-none-any.whl"]


def test_each_plugin_installs_beside_dpp_and_shows_up(installed, tmp_path):
    plugins = sorted(path.name for path in (REPOSITORY / "plugins").iterdir() if (path / "pyproject.toml").exists())
    call(sys.executable, "-m", "venv", tmp_path / "venv")
    pip = tmp_path / "venv/bin/pip"
    call(pip, "install", "--quiet", *(installed / "dist").glob("dpp-[0-9]*.whl"))
    for plugin in plugins:
        source = shutil.copytree(REPOSITORY / "plugins" / plugin, tmp_path / plugin, ignore=LEFT_OUT)
        call(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", source)
        call(pip, "install", "--quiet", *(tmp_path / "dist").glob(f"{plugin.replace('-', '_')}-*.whl"))
        listed = subprocess.run([tmp_path / "venv/bin/dpp", "plugins"], capture_output=True, text=True, check=True, cwd=tmp_path)
        assert f"{plugin} 0.1.0" in listed.stdout
        assert "broken" not in listed.stdout + listed.stderr
        call(pip, "uninstall", "--quiet", "--yes", plugin)
