"""The contract of executors, on workers that dpp starts on this machine."""

from __future__ import annotations

import pytest
from dpp.testing import ExecutorContract

from dpp_dask import DaskExecutor


@pytest.mark.slow
class TestDask(ExecutorContract):
    plugin = DaskExecutor
