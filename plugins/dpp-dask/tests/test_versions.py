"""Tests of workers that have other versions of dpp or of a plugin, or none."""

from __future__ import annotations

import json

import pytest
from dpp import ConfigurationError, __version__

from dpp_dask.versions import Installed, check_versions, installed

OURS = Installed("here", {"dpp": "1.0", "dpp-dask": "1.0", "dpp-sftp": "1.0"})


def test_a_process_has_dpp_this_package_and_others():
    versions = installed().versions
    assert (versions["dpp"], versions["dpp-dask"]) == (__version__, __version__)


@pytest.mark.parametrize("versions", [OURS.versions, {"dpp": "1.0"}, {**OURS.versions, "dpp-other": "2.0"}])
def test_equal_versions_are_accepted_and_so_are_packages_that_one_side_lacks(versions):
    check_versions(OURS, [Installed("there", versions)])


def test_each_version_that_differs_is_named_with_its_host():
    workers = [Installed("a", {"dpp": "0.9"}), Installed("b", {"dpp": "1.0", "dpp-sftp": "2.0"})]
    with pytest.raises(ConfigurationError) as raised:
        check_versions(OURS, workers)
    assert "dpp is 1.0 on here, and 0.9 for the Dask worker on a" in str(raised.value)
    assert "dpp-sftp is 1.0 on here, and 2.0 for the Dask worker on b" in str(raised.value)


@pytest.fixture
def run_with(files, command, dask, tmp_path):
    """Return a function that runs a batch on a worker that finds modules in a folder first."""

    def run(folder):
        _, address = dask.scheduler()
        dask.worker(address, PYTHONPATH=str(folder))
        return command("dpp", "run", files(), "--executor", "dask", "--options", json.dumps({"dask": {"address": address}}))

    return run


@pytest.mark.slow
@pytest.mark.parametrize("package", ["dpp", "dpp-sftp"])
def test_a_worker_with_another_version_is_an_error(run_with, tmp_path, package):
    info = tmp_path / "site" / f"{package.replace('-', '_')}-0.0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.0.1\n")
    (info / "entry_points.txt").write_text("[dpp]\nsftp = dpp_sftp\n" if package != "dpp" else "")
    done = run_with(info.parent)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"{package} is {__version__} on " in done.stderr
    assert "and 0.0.1 for the Dask worker on " in done.stderr


@pytest.mark.slow
def test_a_worker_without_this_package_is_an_error(run_with, tmp_path):
    package = tmp_path / "site" / "dpp_dask"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ModuleNotFoundError('No module named dpp_dask')\n")
    done = run_with(package.parent)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "cannot import what it needs: ModuleNotFoundError('No module named dpp_dask'); install dpp, dpp-dask" in done.stderr
