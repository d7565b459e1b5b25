"""The partial download of one file: bytes beside the final name, with what is needed to continue them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpp import names
from dpp.errors import StageError
from dpp.models import FileData
from dpp.redact import redact_url
from dpp.workspace.atomic import read_json, remove, stops_run, write_all, write_json
from dpp.workspace.layout import DownloadPaths

WORTH_CONTINUING = 64 * 1024
_BLOCK = 1024 * 1024


class PartFile:
    """Write a download to ``<name>.part``, digest it on the way, and publish it when it is whole.

    Args:
        paths: Where the download lies.
        limit: Size in bytes that it may not pass, or None.
        is_empty: Whether there is nothing yet, neither of a part nor of a download.
        throttle: Called with the number of bytes that were written; waits, and returns for how many seconds.

    The facts of a part (entity tag, total size, source) are written down when it is begun, if it is
    large enough for that to pay, or else when it is left behind.
    """

    def __init__(
        self, paths: DownloadPaths, limit: int | None = None, *, is_empty: bool = False, throttle: Callable[[int], float] | None = None
    ) -> None:
        self.waited = 0.0
        self._throttle = throttle
        self._paths = paths
        self._limit = limit
        self._descriptor: int | None = None
        self._digest = hashlib.sha256()
        self._size = 0
        self._is_empty = is_empty
        self._url = ""
        self._begun_from: str | None = None
        self._facts_written = not is_empty and os.path.exists(paths.part_facts)
        facts = read_json(paths.part_facts) if self._facts_written else None
        self._facts: dict[str, Any] = facts if isinstance(facts, dict) else {}

    @property
    def body(self) -> Path:
        """Where the download lies once it is published."""
        return Path(self._paths.body)

    @property
    def etag(self) -> str | None:
        """The strong entity tag of the bytes that are there."""
        return self._facts.get("etag")

    @property
    def total(self) -> int | None:
        """How many bytes there will be, where the source said."""
        return self._facts.get("total")

    @property
    def offset(self) -> int:
        """How many bytes are there to continue from: 0 without a strong entity tag."""
        if not self.etag or (self._begun_from != self._url and self._facts.get("source") != self._source()):
            return 0
        try:
            return os.stat(self._paths.part).st_size
        except FileNotFoundError:
            return 0

    def open_for(self, url: str) -> None:
        """Say where the next bytes come from; a part of another source is not continued."""
        self._url = url

    def _source(self) -> str:
        return names.digest(names.identity(self._url))

    def begin(self, offset: int = 0, *, total: int | None = None, etag: str | None = None, **facts: Any) -> None:
        """Start writing at an offset; see :class:`dpp.base.Part`.

        Facts of other bytes are forgotten first: a process that dies must not leave them beside these.
        """
        with stops_run(self._paths.part):
            if not offset:
                self._forget_facts()
            self._open(0 if offset else os.O_TRUNC)
            self._keep(offset)
        self._facts, self._begun_from = {"etag": etag, "total": total, **facts}, self._url
        if etag and (total is None or total >= WORTH_CONTINUING):
            self._write_facts()

    def _open(self, flags: int) -> None:
        self.close()
        self._descriptor = os.open(self._paths.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o666)

    def _keep(self, offset: int) -> None:
        """Cut the part at an offset and digest what stays."""
        assert self._descriptor is not None
        self._digest, self._size = hashlib.sha256(), 0
        if offset:
            os.ftruncate(self._descriptor, offset)
        while self._size < offset:
            block = os.read(self._descriptor, _BLOCK)
            self._digest.update(block)
            self._size += len(block)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        assert self._descriptor is not None, "begin() was not called"
        self._digest.update(data)
        self._size += len(data)
        if self._limit is not None and self._size > self._limit:
            self.discard()
            raise StageError(f"expected {self._limit} bytes as the manifest says, the source sends more", "size")
        with stops_run(self._paths.part):
            write_all(self._descriptor, data)
        if self._throttle is not None:
            self.waited += self._throttle(len(data))

    def publish(self, file: FileData) -> dict[str, Any]:
        """Verify size and digest, write the sidecar, and give the download its final name.

        Returns:
            The sidecar: ``url`` (without secrets), ``size`` in bytes, ``sha256``, and what the source said.

        Raises:
            StageError: The download is not what the manifest or the source says; nothing is left of it.
        """
        assert self._descriptor is not None, "begin() was not called"
        self.close()
        problem = self._problem(file)
        if problem:
            self.discard()
            raise problem
        facts = {name: value for name, value in self._facts.items() if name not in ("source", "total") and value}
        sidecar = {"url": redact_url(file.url), "size": self._size, "sha256": self._digest.hexdigest(), **facts}
        with stops_run(self._paths.body):
            if not self._is_empty:
                remove(self._paths.body)
            write_json(self._paths.sidecar, sidecar)
            os.replace(self._paths.part, self._paths.body)
            self._forget_facts()
        return sidecar

    def _problem(self, file: FileData) -> StageError | None:
        total = self._facts.get("total")
        if total is not None and self._size != total:
            return StageError(f"expected {total} bytes as the source says, got {self._size}", "truncated")
        if file.size is not None and self._size != file.size:
            return StageError(f"expected {file.size} bytes as the manifest says, got {self._size}", "size")
        if file.sha256 is not None and (got := self._digest.hexdigest()) != file.sha256:
            return StageError(f"expected sha256 {file.sha256} as the manifest says, got {got}", "checksum")
        return None

    def suspend(self) -> None:
        """Leave what is there where a later run can continue it; else throw it away."""
        self.close()
        if not self.offset:
            self.discard()
        elif not self._facts_written:
            self._write_facts()

    def discard(self) -> None:
        """Throw away what is there."""
        self.close()
        self._facts = {}
        with stops_run(self._paths.part):
            remove(self._paths.part)
            self._forget_facts()

    def close(self) -> None:
        """Close the file; what was written stays."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            with stops_run(self._paths.part):
                os.close(descriptor)

    def _write_facts(self) -> None:
        write_json(self._paths.part_facts, {**self._facts, "source": self._source()})
        self._facts_written = True

    def _forget_facts(self) -> None:
        if self._facts_written:
            remove(self._paths.part_facts)
            self._facts_written = False
