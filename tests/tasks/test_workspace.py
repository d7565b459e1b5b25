"""Which workspace a run uses: --workspace, DPP_WORKSPACE, luigi.cfg, CACHE_DIR, or the default, in this order."""

from __future__ import annotations

import json

import pytest

PLACES = ["option", "variable", "file", "cache", "default"]


@pytest.fixture
def files(tmp_path, manifest):
    """A manifest of one local file."""
    return manifest([{"url": (tmp_path / "x.json").as_uri()}])


def settings_of(first, tmp_path):
    """Return the arguments and variables that name workspaces, and the name of the first; those before it are not set."""
    chosen = PLACES[PLACES.index(first) :]
    (tmp_path / "luigi.cfg").write_text("[RunBatch]\nworkspace=file\n" if "file" in chosen else "")
    arguments = ["--workspace", "option"] if "option" in chosen else []
    variables = {"DPP_WORKSPACE": "variable" if "variable" in chosen else "", "CACHE_DIR": "cache" if "cache" in chosen else ""}
    return arguments, variables, "dpp-workspace" if first == "default" else first


def workspaces(tmp_path):
    return [path.parent.name for path in tmp_path.glob("*/batches")]


@pytest.mark.parametrize("first", PLACES)
@pytest.mark.parametrize("way", ["luigi", "dpp"])
def test_the_first_workspace_that_is_set_is_used(files, command, run_batch, tmp_path, first, way):
    arguments, variables, expected = settings_of(first, tmp_path)
    run = run_batch(files, *arguments, **variables) if way == "luigi" else command("dpp", "run", files, *arguments, **variables)
    assert run.returncode == 0, run.stderr
    assert workspaces(tmp_path) == [expected]
    assert "1 of 1 ok" in command("dpp", "report", *arguments, **variables).stdout


@pytest.mark.parametrize("verb", ["status", "report", "export", "why x", "verify", "clean --dry-run", "retry"])
def test_every_command_takes_the_variables(files, command, verb):
    command("dpp", "run", files, "--workspace", "mine")
    for name in ("DPP_WORKSPACE", "CACHE_DIR"):
        done = command("dpp", *verb.split(), **{name: "mine"})
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("first", ["variable", "file", "cache", "default"])
def test_dpp_config_shows_where_the_workspace_comes_from(command, tmp_path, first):
    _, variables, expected = settings_of(first, tmp_path)
    shown = json.loads(command("dpp", "config", "--section", "RunBatch", "--format", "json", **variables).stdout)
    [found] = [one for one in shown if one["name"] == "workspace"]
    origins = {
        "variable": "environment DPP_WORKSPACE",
        "file": f"{tmp_path}/luigi.cfg [RunBatch]",
        "cache": "environment CACHE_DIR",
        "default": "default",
    }
    assert (found["value"], found["origin"]) == (str(tmp_path / expected), origins[first])


def test_the_variable_comes_before_the_section_of_a_named_batch_and_that_before_the_cache(files, command, tmp_path):
    (tmp_path / "luigi.cfg").write_text(f"[batch:acme]\nfiles={files}\nworkspace=named\n")
    assert command("dpp", "run", "--batch", "acme", CACHE_DIR="cache").returncode == 0
    assert workspaces(tmp_path) == ["named"]
    assert command("dpp", "run", "--batch", "acme", DPP_WORKSPACE="variable", CACHE_DIR="cache").returncode == 0
    assert sorted(workspaces(tmp_path)) == ["named", "variable"]


@pytest.mark.parametrize("name", ["DPP_WORKSPACE", "CACHE_DIR"])
def test_a_variable_that_names_no_folder_is_refused_by_its_name(files, command, run_batch, name):
    for run in (command("dpp", "run", files, **{name: "s3://bucket/x"}), run_batch(files, **{name: "s3://bucket/x"})):
        assert run.returncode == 2
        assert f"{name}: is a URL; expected a local folder" in run.stderr


def test_the_command_that_retries_names_the_workspace_where_a_variable_names_another(manifest, site, command):
    files = manifest([{"url": f"{site.url}/missing"}])
    run = command("dpp", "run", files, "--workspace", "dpp-workspace", DPP_WORKSPACE="other")
    assert run.returncode == 1
    [retry] = [line for line in run.stdout.splitlines() if line.startswith("retry: ")]
    assert retry.endswith("dpp-workspace")
    assert "--workspace" in retry


def test_a_task_that_runs_alone_takes_the_variable(command, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    run = command("luigi", "--module", "dpp", "Report", "--url", (tmp_path / "a.txt").as_uri(), "--local-scheduler", DPP_WORKSPACE="mine")
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.glob("mine/reports/*/*/*.json"))
