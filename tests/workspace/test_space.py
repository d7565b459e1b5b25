"""Tests of the question whether a plugin's error is about the workspace's file system."""

from __future__ import annotations

import errno
import shutil

import pytest
from dpp import EnvironmentStop
from dpp.workspace.space import stops_run_if_full

FULL = OSError(errno.ENOSPC, "No space left on device")


def test_an_error_of_another_disk_stays_what_it_is(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, stops_run_if_full(tmp_path):
        raise FULL
    assert caught.value is FULL
    assert list(tmp_path.iterdir()) == []


GONE = [OSError(number, "gone") for number in (errno.ESTALE, errno.EREMOTEIO, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN)]


@pytest.mark.parametrize("error", [FULL, *GONE, shutil.Error([("a", "b", "No space left on device")])], ids=repr)
def test_where_the_folder_cannot_be_written_either_the_run_stops(tmp_path, error):
    with pytest.raises(EnvironmentStop, match=r"cannot write .*gone: "), stops_run_if_full(tmp_path / "gone"):
        raise error


@pytest.mark.parametrize("error", [ValueError("bad"), FileNotFoundError(errno.ENOENT, "no such file")])
def test_other_errors_are_not_looked_into(tmp_path, error):
    with pytest.raises(type(error)), stops_run_if_full(tmp_path / "gone"):
        raise error
