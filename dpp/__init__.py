"""Run batches of files: download, pre-process, process, report, and again only what is missing.

luigi --module dpp RunBatch --files x.json --workers 4
"""

from __future__ import annotations

import sys

from dpp._version import __version__
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
from dpp.file_tasks import DownloadTarget, PreProcessed, Processed, Report
from dpp.hookspecs import hookimpl
from dpp.models import Failure, FileData, Outcome
from dpp.parameters import set_soft_defaults
from dpp.processing_pipeline import ProcessingPipeline
from dpp.report import Summary
from dpp.selection import Selection
from dpp.settings import Settings
from dpp.sources import SourceQuery
from dpp.stages import http
from dpp.steps import BaseFetcher, BasePostProcessor, BasePreProcessor, BaseProcessor, Part
from dpp.tasks import FileChunk, RunBatch

__all__ = [
    "BaseFetcher",
    "BasePostProcessor",
    "BasePreProcessor",
    "BaseProcessor",
    "BatchFailed",
    "ConfigurationError",
    "DownloadTarget",
    "DppError",
    "EnvironmentStop",
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
]

set_soft_defaults(sys.argv[1:])
