"""The partial download of one file: its bytes beside the final name, and the facts needed to continue it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from dpp import media, names
from dpp.errors import FetchError, StageError
from dpp.models import FileData
from dpp.redact import redact_url
from dpp.streams import write_all
from dpp.workspace.atomic import read_json, remove, stops_run, write_json
from dpp.workspace.layout import DownloadPaths

WORTH_CONTINUING = 64 * 1024
_BLOCK = 1024 * 1024


class PartFile:
    """Write a download to ``<name>.part``, compute its digest meanwhile, and publish it when it is complete.

    Args:
        paths: Paths of the download.
        limit: Size in the manifest, in bytes, or None.
        max_bytes: Maximum size in bytes, or None.
        is_empty: Whether neither a part nor a download exists yet.
        throttle: Called with the number of bytes written; waits, and returns the seconds waited.
        algorithms: Digests to compute besides SHA-256; see :data:`dpp.models.DIGESTS`.
        version: Version of the source in the manifest, or None.
    """

    def __init__(
        self,
        paths: DownloadPaths,
        limit: int | None = None,
        *,
        max_bytes: int | None = None,
        is_empty: bool = False,
        throttle: Callable[[int], float] | None = None,
        algorithms: Collection[str] = (),
        version: str | None = None,
    ) -> None:
        self.waited = 0.0
        self._throttle = throttle
        self._paths = paths
        self._limit = limit
        self._max_bytes = max_bytes
        self._version = version
        self._descriptor: int | None = None
        self._algorithms = ("sha256", *algorithms)
        self._digests = self._new_digests()
        self._size = 0
        self._head = b""
        self._is_empty = is_empty
        self._url = ""
        self._begun_from: str | None = None
        self._facts_written = not is_empty and os.path.exists(paths.part_facts)
        facts = read_json(paths.part_facts) if self._facts_written else None
        self._facts: dict[str, Any] = facts if isinstance(facts, dict) else {}

    @property
    def body(self) -> Path:
        """Path of the download once it is published."""
        return Path(self._paths.body)

    @property
    def etag(self) -> str | None:
        """The strong entity tag of the bytes in the part."""
        return self._facts.get("etag")

    @property
    def total(self) -> int | None:
        """Size of the whole file in bytes, if the source announced it."""
        return self._facts.get("total")

    @property
    def size(self) -> int:
        """Number of bytes written, with those of earlier attempts that were kept."""
        return self._size

    @property
    def offset(self) -> int:
        """Bytes in the part that the download can continue from: 0 without a strong entity tag."""
        if not self.etag or (self._begun_from != self._url and self._facts.get("source") != self._source()):
            return 0
        with stops_run(self._paths.part):
            try:
                return os.stat(self._paths.part).st_size
            except FileNotFoundError:
                return 0

    def open_for(self, url: str) -> None:
        """Set the source of the next bytes; a part of another source is not continued."""
        self._url = url

    def _source(self) -> str:
        return names.digest(names.identity(self._url))

    def begin(self, offset: int = 0, *, total: int | None = None, etag: str | None = None, **facts: Any) -> None:
        """Start writing at an offset; see :class:`dpp.base.Part`."""
        self._check_version(facts.get("source_version"))
        self._check_size(total if total is not None else self._limit or 0)
        with stops_run(self._paths.part):
            # A process that is killed must not leave the facts of old bytes beside new ones.
            if not offset:
                self._forget_facts()
            self._open(0 if offset else os.O_TRUNC)
            self._keep(offset)
        self._facts, self._begun_from = {"etag": etag, "total": total, **facts}, self._url
        # Facts of small parts are written only when a part is suspended: for most of them that never happens.
        if etag and (total is None or total >= WORTH_CONTINUING):
            self._write_facts()

    def _check_version(self, version: object) -> None:
        # A source without versions cannot be compared.
        if self._version is not None and version not in (None, self._version):
            text = f"the source has version {version}, the list names {self._version}: it was replaced after it was listed; list it again"
            raise FetchError(text, "changed")

    def _open(self, flags: int) -> None:
        self.close()
        self._descriptor = os.open(self._paths.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o666)

    def _keep(self, offset: int) -> None:
        """Truncate the part at an offset, and compute the digest of the rest."""
        assert self._descriptor is not None
        self._digests, self._size, self._head = self._new_digests(), 0, b""
        if offset:
            os.ftruncate(self._descriptor, offset)
        while self._size < offset:
            block = os.read(self._descriptor, _BLOCK)
            self._update(block)
            self._size += len(block)

    def _new_digests(self) -> dict[str, hashlib._Hash]:
        return {algorithm: hashlib.new(algorithm, usedforsecurity=False) for algorithm in self._algorithms}

    def _update(self, data: bytes) -> None:
        for digest in self._digests.values():
            digest.update(data)
        if len(self._head) < media.HEAD_BYTES:
            self._head += bytes(data[: media.HEAD_BYTES - len(self._head)])

    @property
    def _media_type(self) -> str | None:
        return media.media_type(self._facts.get("content_type"), self._head)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        assert self._descriptor is not None, "begin() was not called"
        self._update(data)
        self._size += len(data)
        self._check_size(self._size)
        if self._limit is not None and self._size > self._limit:
            self.discard()
            raise StageError(f"expected {self._limit} bytes (size in the manifest), but the source sent more", "size")
        with stops_run(self._paths.part):
            write_all(self._descriptor, data)
        if self._throttle is not None:
            self.waited += self._throttle(len(data))

    def _check_size(self, size: int) -> None:
        if self._max_bytes is not None and size > self._max_bytes:
            self.discard()
            what = f"expected at most {self._max_bytes} bytes (max_bytes, by default half of the free space), got at least {size}"
            raise StageError(f"{what}; set max_bytes to accept larger files", "too-large")

    def publish(self, file: FileData) -> dict[str, Any]:
        """Verify size and digest, write the sidecar, and give the download its final name.

        Returns:
            The sidecar: ``url`` (without secrets), ``size`` in bytes, ``sha256``, ``digests`` by algorithm if there are others, and
            further facts of the source.

        Raises:
            StageError: The download differs from the manifest or from what the source announced; it was removed.
        """
        assert self._descriptor is not None, "begin() was not called"
        mtime_ns = self._age()
        self.close()
        problem = self._problem(file)
        if problem:
            self.discard()
            raise problem
        facts = {name: value for name, value in self._facts.items() if name not in ("source", "total") and value}
        sidecar = {"url": redact_url(file.url), "size": self._size, **self._computed(), "mtime_ns": mtime_ns, **facts}
        if self._media_type is not None:
            sidecar["media_type"] = self._media_type
        with stops_run(self._paths.body):
            if not self._is_empty:
                remove(self._paths.body)
            write_json(self._paths.sidecar, sidecar)
            os.replace(self._paths.part, self._paths.body)
            self._forget_facts()
        return sidecar

    def _age(self) -> int:
        """Make the part a second older than now, and return its time of modification in nanoseconds."""
        # Times advance in steps of some milliseconds. So a write to the download right after this would not be noticed otherwise.
        assert self._descriptor is not None
        now = time.time_ns()
        with suppress(OSError):
            os.utime(self._descriptor, ns=(now, now - 1_000_000_000))
        with stops_run(self._paths.part):
            return os.fstat(self._descriptor).st_mtime_ns

    def _computed(self) -> dict[str, Any]:
        others = {algorithm: digest.hexdigest() for algorithm, digest in self._digests.items()}
        sha256 = {"sha256": others.pop("sha256")}
        return {**sha256, "digests": others} if others else sha256

    def _problem(self, file: FileData) -> StageError | None:
        total = self._facts.get("total")
        if total is not None and self._size != total:
            return StageError(f"expected {total} bytes (announced by the source), got {self._size}", "truncated")
        if file.size is not None and self._size != file.size:
            return StageError(f"expected {file.size} bytes (size in the manifest), got {self._size}", "size")
        for algorithm, expected in expected_digests(file).items():
            if (got := self._digests[algorithm].hexdigest()) != expected:
                return StageError(f"expected {algorithm} {expected} (manifest), got {got}", "checksum")
        if file.expect_type and not media.fits(self._media_type, file.expect_type):
            return StageError(f"expected {file.expect_type} (expect_type), got {self._media_type or 'no media type'}", "media-type")
        return None

    def suspend(self) -> None:
        """Close the part, and keep it if a later run can continue it; else discard it."""
        self.close()
        if not self.offset:
            self.discard()
        elif not self._facts_written:
            self._write_facts()

    def discard(self) -> None:
        """Remove the part and its facts."""
        self.close()
        self._facts = {}
        with stops_run(self._paths.part):
            remove(self._paths.part)
            self._forget_facts()

    def close(self) -> None:
        """Close the part; the written bytes are kept."""
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


def expected_digests(file: FileData) -> dict[str, str]:
    """Return the digests that the manifest gives for a file, by algorithm."""
    return {**({"sha256": file.sha256} if file.sha256 else {}), **(file.digests or {})}
