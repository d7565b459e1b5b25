"""A source that is listed, such as sftp://host/folder/ or s3://bucket/prefix/."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, TextIO

from dpp import DppError, EnvironmentStop, Settings, runs

from dpp_watch.batches import ForkedProcess
from dpp_watch.inotify import Event
from dpp_watch.local import FoundFile
from dpp_watch.rules import Rules

WAIT_SECONDS = 0.2
OF_THE_LISTING = frozenset({"mtime", "etag"})  # a fetcher takes the version from them, and would not see that it is another one


class RemoteFolder:
    """A source that a plugin lists.

    Attributes:
        is_stopping: Whether the watcher ends, so that a listing is stopped.

    Args:
        url: Its URL.
        rules: Which files are taken.
        settings: The settings, with the options of the source.
    """

    descriptor: int | None = None
    is_listed = True

    def __init__(self, url: str, rules: Rules, settings: Settings) -> None:
        self._url = url if "?" in url else f"{url}?recursive={str(rules.recursive).lower()}"
        self._rules = rules
        self._settings = settings
        self._rows: dict[str, dict[str, Any]] = {}
        self._names: set[str] = set()
        self.is_stopping: Callable[[], bool] = lambda: False

    def events(self) -> Iterator[Event]:
        """Yield nothing: a source has no events."""
        return iter(())

    def close(self) -> None:
        """Close nothing: a listing has its own connection."""

    def scan(self, below: str = "", taken: Mapping[str, str] = MappingProxyType({})) -> Iterator[FoundFile]:
        """Yield the files to take; see :meth:`dpp_watch.local.LocalFolder.scan`.

        Raises:
            EnvironmentStop: The source cannot be listed now.
        """
        rows = [row for row in self._listed() if self._rules.recursive or "/" not in row["id"]]
        self._names = {row["id"] for row in rows} if self._rules.has_markers else set()
        self._rows = {row["id"]: row for row in rows if self._rules.takes(row["id"])}
        return (_found(row) for path, row in self._rows.items() if taken.get(path) != row["expect_version"])

    def _listed(self) -> list[dict[str, Any]]:
        # In a process of its own: a client that the watcher kept could have threads, and the watcher forks.
        with tempfile.TemporaryFile("w+", encoding="utf-8") as stream:
            child = ForkedProcess(partial(self._write, stream), self.close)
            while not child.has_ended(WAIT_SECONDS):
                if self.is_stopping():
                    child.send(signal.SIGTERM)
            code, problem = child.wait()
            if code:
                raise EnvironmentStop(problem or f"the process that lists the source has ended with {code}")
            stream.seek(0)
            return [json.loads(line) for line in stream]

    def _write(self, stream: TextIO, send: Callable[[str], None]) -> int:
        try:
            for file in runs.list_source(self._url, self._settings):
                row = file.model_dump(mode="json", exclude_unset=True, exclude=set(OF_THE_LISTING))
                row |= {"id": file.id, "name": file.name, "expect_version": file.expect_version or str(file.size)}
                stream.write(json.dumps(row) + "\n")
            stream.flush()
        except DppError as error:
            send(str(error))
            return error.exit_code
        return 0

    def look(self, path: str) -> FoundFile | None:
        """Return a file as the last listing had it; its download fails as ``changed`` if it has another version by then."""
        row = self._rows.get(path)
        return _found(row) if row else None

    def has(self, path: str) -> bool:
        """Whether the last listing had a file of this path."""
        return path in self._names

    def is_written(self, _path: str) -> bool:
        """Return false: a source does not show who writes to a file."""
        return False

    def skipped(self) -> Iterator[tuple[str, str]]:
        """Yield nothing: only files to take are listed."""
        return iter(())

    def row(self, found: FoundFile) -> dict[str, Any]:
        """Return a file as an entry of a manifest."""
        return self._rows[found.path]


def _found(row: dict[str, Any]) -> FoundFile:
    return FoundFile(row["id"], row.get("size") or 0, row["expect_version"])
