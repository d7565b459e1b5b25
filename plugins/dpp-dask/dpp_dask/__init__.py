"""An executor for dpp that runs the chunks of a batch on Dask workers, on this machine or on others."""

# Importing distributed takes 0.3 s and more, so the modules that need it are imported when a run uses the executor.

from __future__ import annotations

from dpp import BaseExecutor, hookimpl

from dpp_dask.executor import DaskExecutor, TlsFiles

__all__ = ["DaskExecutor", "TlsFiles", "dpp_executors"]


@hookimpl
def dpp_executors() -> list[type[BaseExecutor]]:
    """Return the executor ``dask``."""
    return [DaskExecutor]
