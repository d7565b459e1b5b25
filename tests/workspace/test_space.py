"""Tests of the question whether a plugin's error is about the workspace's file system."""

from __future__ import annotations

import errno
import os
import shutil

import pytest
from dpp import EnvironmentStop
from dpp.workspace.space import can_write, stops_run_if_full

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


def test_below_a_folder_that_may_not_be_searched_nothing_can_be_written(tmp_path):
    (tmp_path / "closed").mkdir(0o200)
    user = os.geteuid()
    # root may search every folder, and another user not even the one that the test got.
    os.seteuid(user or 65534)
    try:
        assert not can_write(str(tmp_path / "closed" / "a" / "b"))
    finally:
        os.seteuid(user)
    assert can_write(str(tmp_path / "a" / "b"))
