"""Tests of the release: one version, pins that allow it, and workflows whose commands exist."""

from __future__ import annotations

import configparser
import re
import subprocess
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest
import yaml
from dpp import __version__
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def named(paths):
    return [pytest.param(path, id=path.name) for path in paths]


def project(plugin):
    return tomllib.loads((plugin / "pyproject.toml").read_text())


def jobs(workflow):
    return yaml.safe_load(workflow.read_text())["jobs"]


def steps(workflow):
    return [step for job in jobs(workflow).values() for step in job.get("steps", [])]


def commands(workflow):
    return [line.split() for step in steps(workflow) for line in step.get("run", "").splitlines()]


def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def promised():
    return re.findall(r"Python :: (3\.\d+)", setup()["metadata"]["classifiers"])


@pytest.mark.parametrize("plugin", named(PLUGINS))
def test_a_plugin_has_the_version_of_dpp(plugin):
    module = plugin.name.replace("-", "_")
    assert (plugin / module / "_version.py").resolve() == ROOT / "dpp/_version.py"
    assert project(plugin)["tool"]["setuptools"]["dynamic"]["version"] == {"attr": f"{module}._version.__version__"}


@pytest.mark.parametrize("plugin", named(PLUGINS))
def test_a_plugin_brings_the_license_and_leaves_its_tests(plugin):
    assert (plugin / "LICENSE").resolve() == ROOT / "LICENSE"
    assert (plugin / "MANIFEST.in").resolve() == ROOT / "MANIFEST.in"


@pytest.mark.parametrize("plugin", named(PLUGINS))
def test_a_plugin_is_pinned_to_this_version_and_not_to_the_next_major_one(plugin):
    pin = next(found for found in map(Requirement, project(plugin)["project"]["dependencies"]) if found.name == "dpp")
    assert __version__ in pin.specifier
    assert f"{int(__version__.split('.')[0]) + 1}.0.0" not in pin.specifier


def test_the_extra_fast_asks_for_a_plugin_of_this_version():
    assert __version__ in Requirement(setup()["options.extras_require"]["fast"].strip()).specifier


@pytest.mark.parametrize("workflow", ["tests", "nightly"])
def test_ci_runs_on_every_python_that_is_promised(workflow):
    assert jobs(ROOT / f".github/workflows/{workflow}.yml")["tests"]["strategy"]["matrix"]["python"] == promised()


def test_dpp_can_be_installed_with_exactly_the_pythons_that_are_promised():
    options = setup()["options"]
    required = [Requirement(line).name for line in options["install_requires"].split("\n") if line]
    limits = [options["python_requires"], *(metadata(name).get("Requires-Python", "") for name in required)]
    assert promised() == [f"3.{minor}" for minor in range(30) if all(f"3.{minor}.99" in SpecifierSet(limit) for limit in limits)]


@pytest.mark.parametrize("workflow", named(WORKFLOWS))
def test_the_commands_of_a_workflow_are_there(workflow):
    for words in commands(workflow):
        program = words[1] if words[0] == "sudo" else words[0]
        if program == "make":
            subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, check=True)
        else:
            assert (ROOT / program).stat().st_mode & 0o111, program


@pytest.mark.parametrize("workflow", named(WORKFLOWS))
def test_what_a_workflow_uses_is_there_or_pinned(workflow):
    used = [item["uses"] for item in [*jobs(workflow).values(), *steps(workflow)] if "uses" in item]
    for use in used:
        local = use.startswith("./")
        assert (ROOT / use).exists() if local else re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+|release/v\d+)", use), use


@pytest.mark.parametrize("workflow", named(WORKFLOWS))
def test_a_job_needs_jobs_that_are_there(workflow):
    needed = {name for job in jobs(workflow).values() for name in job.get("needs", [])}
    assert needed <= set(jobs(workflow))
