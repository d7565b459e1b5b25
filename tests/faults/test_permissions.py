"""A workspace that belongs to another user: commands stop with one line, and report nothing that they could not read."""

from __future__ import annotations

import os
import subprocess

import pytest

from programs import BIN

pytestmark = pytest.mark.fault(17)

# root may read every file, but not without these capabilities (capabilities(7)).
AS_USER = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


@pytest.fixture
def dpp_as_user(tmp_path):
    """Run ``dpp`` with no other rights on files than those of their owner; return the exit code and the output."""

    def run(*arguments):
        command = [*AS_USER, str(BIN / "dpp"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return done.returncode, done.stdout

    return run


@pytest.fixture
def closed(tmp_path, command):
    """Run a batch, then close a folder of its workspace."""
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "list.txt").write_text((tmp_path / "a.txt").as_uri())
    assert command("dpp", "run", "list.txt").returncode == 0
    workspace = tmp_path / "dpp-workspace"
    changed = []

    def close(pattern):
        (folder,) = workspace.glob(pattern) if pattern else [workspace]
        changed.append((folder, folder.stat().st_mode))
        folder.chmod(0)

    yield close
    for folder, mode in changed:
        folder.chmod(mode)


@pytest.mark.parametrize("folder", ["", "downloads", "reports"])
def test_a_plan_of_a_workspace_that_cannot_be_read_is_refused(closed, dpp_as_user, folder):
    closed(folder)
    code, output = dpp_as_user("plan", "list.txt")
    assert code == 3
    assert "permission denied" in output
    assert output.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "folder"),
    [("run list.txt", "batches"), ("status", "batches"), ("clean --results", "batches/*"), ("verify", "downloads")],
)
def test_a_command_on_a_workspace_that_cannot_be_read_is_stopped(closed, dpp_as_user, line, folder):
    closed(folder)
    code, output = dpp_as_user(*line.split())
    assert code == 3
    assert "permission denied" in output
    assert output.count("\n") == 1
