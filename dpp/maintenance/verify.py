"""The checker: compare the files of a workspace with their records, without changing anything."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from dpp import names
from dpp.batch.folder import RunFolder, latest_runs
from dpp.engine.preprocess import INPUT, is_as_recorded
from dpp.models import Outcome
from dpp.plugins.builtin import content_digest
from dpp.report.summary import Summary, fold
from dpp.workspace.atomic import is_temporary, read_json, walk
from dpp.workspace.layout import PART_SUFFIX, SIDECAR_SUFFIX, Workspace
from dpp.workspace.ledger import read_outcome, read_records

RUN_AGAIN = "run the batch again"
ANEW = f"remove it and its file's reports, then {RUN_AGAIN}"
SIMULATED = "simulated"
_KEY = r"[a-z0-9._-]+-[0-9a-f]{16}"
_SHARDED = rf"[0-9a-f]{{12}}/[0-9a-f]{{2}}/{_KEY}"
_RUN = r"batches/[^/]+/runs/\d+"
_PARTIAL = (PART_SUFFIX, PART_SUFFIX + SIDECAR_SUFFIX)
_KNOWN = re.compile(
    rf"downloads/[0-9a-f]{{2}}/{_KEY}/[^/]+|pre_processed/{_SHARDED}(\.json|/.+)|(processed|reports)/{_SHARDED}\.json"
    rf"|{_RUN}/((run|stopped|summary)\.json|results\.jsonl|report\.html|log\.txt|chunks/[^/]+|jobs/[^/]+)"
    r"|batches/[^/]+/(lock|stopped\.jsonl)",
    re.DOTALL,
)
_PASSING = re.compile(r"batches/[^/]+/manifest/")
_RECORDED = {"local_path", "folder", "extent", "sha256"}
_AHEAD = 16


class Problem(NamedTuple):
    """A problem in a workspace.

    Attributes:
        path: Path in the workspace.
        text: What is wrong.
        advice: What to do.
    """

    path: str
    text: str
    advice: str


class Checker:
    """Check the targets, the results and the layout of a workspace.

    Args:
        root: The workspace.
        batch: Prefix of the name of the batch to check; everything if empty.
        threads: Number of files read at once.

    Attributes:
        files: Number of files checked so far.
        bytes: Number of bytes hashed so far.
        left_over: Files of killed processes, which are no problem as the next run continues or removes them, and files in use.
    """

    def __init__(self, root: Path, batch: str = "", threads: int = 4) -> None:
        self.files = self.bytes = 0
        self.left_over: list[str] = []
        self._root = root
        self._workspace = Workspace(root)
        self._batch = batch
        self._threads = threads
        self._keys: set[int] = set()
        self._urls: set[int] = set()
        self._lock = threading.Lock()

    def problems(self) -> Iterator[Problem]:
        """Yield each problem when it is found."""
        for run in latest_runs(self._root):
            if run.batch.startswith(self._batch):
                yield from self._batch_problems(run)
        yield from self._digested(self._targets())
        if not self._batch and (self._root / SIMULATED).is_dir():
            yield from self._simulated()

    def _simulated(self) -> Iterator[Problem]:
        inner = Checker(self._root / SIMULATED, threads=self._threads)
        for problem in inner.problems():
            yield problem._replace(path=f"{SIMULATED}/{problem.path}")
        self.files += inner.files
        self.bytes += inner.bytes
        self.left_over += [f"{SIMULATED}/{path}" for path in inner.left_over]

    def _batch_problems(self, last: RunFolder) -> Iterator[Problem]:
        for folder in sorted(last.folder.parent.iterdir()):
            if folder.name.isdigit():
                yield from self._run_problems(RunFolder(folder))
        if last.summary() is None:
            self.left_over.append(f"{self._path(last.folder)}: {'in progress' if last.is_held() else 'has no summary'}")
        fingerprints = last.info.fingerprints
        for row in read_records(last.folder / "results.jsonl"):
            self._keys.add(names.mark(row.outcome.key))
            self._urls.add(names.mark(row.outcome.url))
            if fingerprints:
                yield from self._row_problems(row.outcome, fingerprints)

    def _run_problems(self, run: RunFolder) -> Iterator[Problem]:
        """Yield the differences between the results, the summary and ``run.json`` of a run."""
        results, recorded = run.folder / "results.jsonl", run.summary()
        if recorded is None:
            return
        found = Summary(batch=recorded.batch, run=recorded.run, total=run.info.total or recorded.total)
        rows = sum(1 for _ in fold(found, read_records(results)))
        self.files += 2
        if rows != (lines := _count_lines(results)):
            yield Problem(self._path(results), f"{lines} lines, but outcomes of {rows} files", RUN_AGAIN)
        for name in ("total", "ok", "cached", "failed", "remembered", "missing", "bytes"):
            if getattr(found, name) != getattr(recorded, name):
                text = f"expected {name} {getattr(found, name)} from run.json and results.jsonl, got {getattr(recorded, name)}"
                yield Problem(self._path(run.folder / "summary.json"), text, RUN_AGAIN)

    def _row_problems(self, row: Outcome, fingerprints: list[str]) -> Iterator[Problem]:
        """Yield the differences between a file's row in the results and its report and stored result."""
        path = self._workspace.keyed("reports", fingerprints[2], row.key) + ".json"
        report = read_outcome(path)
        if report is None:
            yield Problem(self._path(path), f"missing report of {row.id}, which is in the results of the last run", RUN_AGAIN)
        elif _contradict(report, row):
            yield Problem(self._path(path), f"differs from the results of the last run for {row.id}", RUN_AGAIN)
        path = self._workspace.keyed("processed", fingerprints[1], row.key) + ".json"
        stored = read_json(path)
        if row.ok and isinstance(stored, dict) and stored.get(INPUT) == row.sha256 and not _is_result_of(row, stored):
            yield Problem(self._path(path), f"differs from the result that the last run recorded for {row.id}", ANEW)

    def _path(self, path: str | Path) -> str:
        return os.path.relpath(path, self._root)

    def _targets(self) -> Iterator[Path]:
        """Yield the path of every file to check."""
        for folder, folders, files in walk(self._root):
            if Path(folder) == self._root and SIMULATED in folders:
                folders.remove(SIMULATED)
            folders.sort()
            for name in [name for name in folders if is_temporary(name)]:
                folders.remove(name)
                self.left_over.append(self._path(Path(folder, name)))
            yield from (Path(folder, name) for name in sorted(files))

    def _digested(self, paths: Iterator[Path]) -> Iterator[Problem]:
        """Yield the problems of single files in order, reading several files at once."""
        with ThreadPoolExecutor(self._threads, "verify") as threads:
            waiting: deque[Future[Problem | None]] = deque()
            for path in paths:
                waiting.append(threads.submit(self._target, path))
                if len(waiting) > _AHEAD:
                    yield from filter(None, [waiting.popleft().result()])
            for future in waiting:
                yield from filter(None, [future.result()])

    def _target(self, path: Path) -> Problem | None:
        """Return the problem of one file, if there is one."""
        where = self._path(path)
        if is_temporary(path.name) or _PASSING.match(where):
            self.left_over.append(where)
            return None
        if not _KNOWN.fullmatch(where):
            return None if self._batch else Problem(where, "unknown file, not written by dpp", "move it out of the workspace, or remove it")
        kind = where.partition("/")[0]
        look = {"downloads": self._download, "pre_processed": self._prepared, "processed": self._result, "reports": self._report}.get(kind)
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                return Problem(where, "not a regular file", ANEW)
            return look(path) if look else None
        except FileNotFoundError:
            # A run in progress has renamed or removed it.
            return None
        except OSError as error:
            return Problem(where, f"cannot be read: {error.strerror}", ANEW)

    def _concerns(self, key: str) -> bool:
        return not self._batch or names.mark(key) in self._keys

    def _download(self, path: Path) -> Problem | None:
        if path.name.endswith(_PARTIAL):
            self.left_over.append(self._path(path))
            return None
        is_sidecar = path.name.endswith(SIDECAR_SUFFIX)
        sidecar = read_json(path if is_sidecar else f"{path}{SIDECAR_SUFFIX}")
        if is_sidecar or not isinstance(sidecar, dict):
            if not (is_sidecar and path.with_name(path.name.removesuffix(SIDECAR_SUFFIX)).exists()):
                self.left_over.append(self._path(path))
            return None
        if self._batch and names.mark(str(sidecar.get("url"))) not in self._urls:
            return None
        size, digest = self._digest(path)
        if (size, digest) == (sidecar.get("size"), sidecar.get("sha256")):
            return None
        text = f"expected {sidecar.get('size')} bytes with sha256 {sidecar.get('sha256')}, got {size} with {digest}"
        return Problem(self._path(path), text, ANEW)

    def _digest(self, path: Path) -> tuple[int, str]:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
        self._count(size)
        return size, digest

    def _count(self, size: int = 0) -> None:
        with self._lock:
            self.files += 1
            self.bytes += size

    def _prepared(self, path: Path) -> Problem | None:
        """Return the problem of a record of pre-processed files, or of the files that it describes."""
        kind, fingerprint, folder, name, *inner = path.relative_to(self._root).parts
        if inner or path.suffix != ".json":
            if not Path(self._root, kind, fingerprint, folder, f"{name}.json").exists():
                self.left_over.append(self._path(path))
            return None
        final = path.with_suffix("")
        if not self._concerns(final.name) or not final.exists():
            return None
        self._count()
        record = read_json(path)
        if not isinstance(record, dict) or not set(record) >= _RECORDED:
            return Problem(self._path(path), "invalid record", ANEW)
        return self._made(final / record["local_path"], record) if record["local_path"] else None

    def _made(self, made: Path, record: dict[str, Any]) -> Problem | None:
        """Return the problem of a file or folder that pre-processors made."""
        if not is_as_recorded(made, record):
            return Problem(self._path(made), f"expected {record['extent']} (files, bytes) according to its record", ANEW)
        if (digest := content_digest(made)) != record["sha256"]:
            return Problem(self._path(made), f"expected sha256 {record['sha256']} according to its record, got {digest}", ANEW)
        return None

    def _result(self, path: Path) -> Problem | None:
        if not self._concerns(path.stem):
            return None
        self._count()
        stored = read_json(path)
        whole = isinstance(stored, dict) and {"result", INPUT} <= set(stored)
        return None if whole else Problem(self._path(path), "invalid result", ANEW)

    def _report(self, path: Path) -> Problem | None:
        if not self._concerns(path.stem):
            return None
        self._count()
        report = read_outcome(path)
        if report is not None and report.key == path.stem:
            return None
        return Problem(self._path(path), "invalid report" if report is None else f"is the report of another file, {report.id}", RUN_AGAIN)


def _count_lines(path: Path) -> int:
    try:
        with path.open("rb") as stream:
            return sum(1 for _ in stream)
    except (FileNotFoundError, IsADirectoryError):
        return 0


def _contradict(report: Outcome, row: Outcome) -> bool:
    """Return whether a report contradicts the row of its file in the results of a run."""
    # A later run of another batch may have written the report again.
    if report.run == row.run or report.at == row.at:
        return report.model_copy(update={"cached": row.cached}) != row
    return report.at < row.at and _compared_fields(report) != _compared_fields(row)


def _is_result_of(row: Outcome, stored: dict[str, object]) -> bool:
    return stored.get("result") == row.result and stored.get("id") == row.id and stored.get("processor") in row.plugins


def _compared_fields(outcome: Outcome) -> tuple[object, ...]:
    return outcome.status, outcome.stage, outcome.error_class, outcome.message, outcome.bytes, outcome.sha256, outcome.result
