"""Tests of the built-in executor."""

from __future__ import annotations

import pytest
from dpp.plugins.builtin import Processes
from dpp.testing import ExecutorContract


@pytest.mark.timeout(300)
class TestProcesses(ExecutorContract):
    plugin = Processes
