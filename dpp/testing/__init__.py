"""Test suites that check the contracts of plugins, and pytest fixtures that run batches.

A test module derives a class from the suite for its kind of plugin, and sets the plugin::

    class TestLineCount(dpp.testing.ProcessorSuite):
        plugin = LineCount

``pytest_plugins = ["dpp.testing"]`` in a test module makes the fixtures available. Only this package imports pytest; install
it with ``pip install 'dpp[testing]'``.

PYTEST_DONT_REWRITE
"""

# PYTEST_DONT_REWRITE stops a warning of pytest: test modules import this package before they name it as a plugin, too late
# for pytest to rewrite its assertions. The modules with assertions are registered below.

from __future__ import annotations

try:
    import pytest
except ImportError as error:
    raise ImportError("dpp.testing needs pytest; install it with: pip install 'dpp[testing]'") from error

pytest.register_assert_rewrite(
    "dpp.testing.executors", "dpp.testing.fetchers", "dpp.testing.sources", "dpp.testing.steps", "dpp.testing.suites"
)

from dpp.testing.executors import ExecutorContract
from dpp.testing.fetchers import FetcherSuite
from dpp.testing.files import file_data
from dpp.testing.fixtures import command, manifest, ready_file, results, run_batch
from dpp.testing.parts import MemoryPart
from dpp.testing.sources import SourceSuite
from dpp.testing.steps import PostProcessorSuite, PreProcessorSuite, ProcessorSuite

__all__ = [
    "ExecutorContract",
    "FetcherSuite",
    "MemoryPart",
    "PostProcessorSuite",
    "PreProcessorSuite",
    "ProcessorSuite",
    "SourceSuite",
    "command",
    "file_data",
    "manifest",
    "ready_file",
    "results",
    "run_batch",
]
