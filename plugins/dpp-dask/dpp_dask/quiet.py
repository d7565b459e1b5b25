"""Keep what Dask logs and warns of away from the user's terminal."""

# Dask prints to standard error by handlers of its own, for example a traceback for each connection that ends when a worker is killed.
# What a user needs to know is in the errors and logs of dpp.

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

SILENT = logging.CRITICAL + 1
_PACKAGES = ("distributed", "tornado", "asyncio", "dask_jobqueue")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the loggers of Dask and of what it uses, and its warnings."""
    loggers = [logging.getLogger(name) for name in {*_PACKAGES, *logging.root.manager.loggerDict} if name.split(".")[0] in _PACKAGES]
    levels = {logger: logger.level for logger in loggers}
    for logger in loggers:
        logger.setLevel(SILENT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
