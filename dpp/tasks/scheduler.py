"""Luigi's central scheduler, for runs that share a batch: one that cannot be reached stops the run."""

from __future__ import annotations

from typing import Any

import luigi.interface
from luigi.rpc import RemoteScheduler, RPCError

from dpp.errors import RESUMABLE_TEXT, EnvironmentStop, errors_behind
from dpp.redact import redact_url


class ReachableScheduler(RemoteScheduler):
    """Luigi's client of a central scheduler; its errors are those of the environment."""

    def _fetch(self, url_suffix: str, body: dict[str, Any]) -> Any:
        try:
            return super()._fetch(url_suffix, body)
        except RPCError as error:
            reason = _root_cause(error.sub_exception or error)
            raise EnvironmentStop(f"cannot reach Luigi's scheduler at {redact_url(self._url)}: {reason}. {RESUMABLE_TEXT}") from error


def _root_cause(error: BaseException) -> str:
    """Return what the first error in a chain of exceptions says, such as "Connection refused"."""
    *_, first = errors_behind(error)
    return (first.strerror if isinstance(first, OSError) else None) or str(first) or type(first).__name__


def stop_without_scheduler() -> None:
    """Let Luigi's command line stop a run whose scheduler cannot be reached."""
    factory: Any = luigi.interface._WorkerSchedulerFactory
    factory.create_remote_scheduler = lambda _factory, url: ReachableScheduler(url)
