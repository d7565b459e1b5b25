"""Run batches of files: download, pre-process, process and report each file; a rerun does only what is missing.

luigi --module dpp RunBatch --files x.json --workers 4
"""

from __future__ import annotations

import sys

from dpp import runs
from dpp._version import __version__
from dpp.base import BaseExecutor, BaseFetcher, BasePostProcessor, BasePreProcessor, BaseProcessor, Part
from dpp.download import http
from dpp.errors import (
    BatchFailed,
    ConfigurationError,
    DppError,
    EnvironmentStop,
    FetchError,
    InputError,
    LockedError,
    ManifestError,
    PluginError,
    StageError,
)
from dpp.hookspecs import hookimpl
from dpp.manifest.sources import SourceQuery
from dpp.models import Failure, FileData, Outcome
from dpp.predecessor import ProcessingPipeline
from dpp.report.summary import Summary
from dpp.selection import Selection
from dpp.settings import Settings
from dpp.tasks.batch import RunBatch
from dpp.tasks.chunks import ExecutedChunks, FileChunk
from dpp.tasks.file import DownloadTarget, PreProcessed, Processed, Report
from dpp.tasks.luigi_defaults import set_soft_defaults

__all__ = [
    "BaseExecutor",
    "BaseFetcher",
    "BasePostProcessor",
    "BasePreProcessor",
    "BaseProcessor",
    "BatchFailed",
    "ConfigurationError",
    "DownloadTarget",
    "DppError",
    "EnvironmentStop",
    "ExecutedChunks",
    "Failure",
    "FetchError",
    "FileChunk",
    "FileData",
    "InputError",
    "LockedError",
    "ManifestError",
    "Outcome",
    "Part",
    "PluginError",
    "PreProcessed",
    "Processed",
    "ProcessingPipeline",
    "Report",
    "RunBatch",
    "Selection",
    "Settings",
    "SourceQuery",
    "StageError",
    "Summary",
    "__version__",
    "hookimpl",
    "http",
    "runs",
]

set_soft_defaults(sys.argv[1:])
