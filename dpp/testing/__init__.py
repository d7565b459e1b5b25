"""What the tests of a plugin need: suites that hold it to its contract, and fixtures that run batches.

A test module derives a class from the suite of the plugin's kind and gives it the plugin::

    class TestLineCount(dpp.testing.ProcessorSuite):
        plugin = LineCount

``pytest_plugins = ["dpp.testing"]`` in a test module makes the fixtures known. Only this package imports pytest, which
``pip install 'dpp[testing]'`` brings along.

PYTEST_DONT_REWRITE: a test module imports this package before it is named as a plugin, of which pytest would warn; the
modules with the assertions are registered below.
"""

from __future__ import annotations

try:
    import pytest
except ImportError as error:
    raise ImportError("dpp.testing needs pytest: pip install 'dpp[testing]'") from error

pytest.register_assert_rewrite("dpp.testing.fetchers", "dpp.testing.sources", "dpp.testing.steps", "dpp.testing.suites")

from dpp.testing.fetchers import FetcherSuite
from dpp.testing.files import file_data
from dpp.testing.fixtures import command, manifest, ready_file, results, run_batch
from dpp.testing.parts import MemoryPart
from dpp.testing.sources import SourceSuite
from dpp.testing.steps import PostProcessorSuite, PreProcessorSuite, ProcessorSuite

__all__ = [
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
