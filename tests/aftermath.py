"""Check the invariants of a workspace after a fault; every test of a fault ends with :func:`check`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dpp import Outcome, Summary
from dpp.batch.folder import find_run
from dpp.maintenance.verify import Checker

VOLATILE = {"seconds", "attempts", "at", "run", "cached", "mtime_ns"}
RUNS = "batches"

Tree = dict[str, Any]


def check(
    root: Path,
    *,
    code: int | None = None,
    total: int | None = None,
    same_as: Path | None = None,
    before: Tree | None = None,
    canaries: Iterable[str] = (),
) -> dict[str, Outcome]:
    """Fail unless the invariants of a workspace hold; return the rows of its last run by id.

    Args:
        root: The workspace.
        code: Exit code of its last run: 0 if and only if every file is ok.
        total: Number of files in the manifest.
        same_as: The workspace of an undisturbed run of the same manifest: all targets and outcomes must be equal, and nothing left over.
        before: Earlier :func:`contents` of the folder around the workspace; they must be unchanged.
        canaries: Secrets that must not be in any file or file name.
    """
    checker = Checker(root)
    assert [f"{problem.path}: {problem.text}" for problem in checker.problems()] == []
    run = find_run(root)
    rows = {outcome.id: outcome for outcome in run.results()}
    if code is not None:
        _check_end(run.summary(), rows, code, total)
    if same_as is not None:
        assert not checker.left_over, f"left over: {checker.left_over}"
        _compare(targets(root), targets(same_as))
        _compare(_steady(rows), _steady({outcome.id: outcome for outcome in find_run(same_as).results()}))
    if before is not None:
        _compare(contents(root.parent, root), before)
    assert not [path for path in root.rglob("*") for canary in canaries if has(canary, path)]
    return rows


def _check_end(summary: Summary | None, rows: dict[str, Outcome], code: int, total: int | None) -> None:
    """Fail unless the summary of a run matches its rows, the manifest and its exit code."""
    assert summary is not None
    ok = sum(row.ok for row in rows.values())
    assert summary.total == (summary.total if total is None else total), summary
    assert (summary.ok, summary.failed) == (ok, len(rows) - ok), summary
    assert (code == 0) == (summary.ok == summary.total), (code, summary)


def _compare(found: Tree, expected: Tree) -> None:
    differ = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    assert not differ, {name: (found.get(name), expected.get(name)) for name in differ}


def targets(root: Path) -> Tree:
    """Return all files of a workspace except those of its runs, without the fields that differ from run to run."""
    return {name: _without_volatile(Path(name), data) for name, data in contents(root).items() if not name.startswith(f"{RUNS}/")}


def contents(folder: Path, but: Path | None = None) -> Tree:
    """Return the content of each file of a folder, by its path in it; files below ``but`` are skipped."""
    files = (path for path in folder.rglob("*") if path.is_file() and not (but and path.is_relative_to(but)))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def has(canary: str, path: Path) -> bool:
    """Whether a file or its name contains a secret."""
    return canary in path.name or (path.is_file() and canary.encode() in path.read_bytes())


def _without_volatile(path: Path, data: bytes) -> Any:
    if path.suffix != ".json":
        return data
    return {name: value for name, value in json.loads(data).items() if name not in VOLATILE}


def _steady(rows: dict[str, Outcome]) -> dict[str, dict[str, Any]]:
    return {name: row.model_dump(exclude=VOLATILE) for name, row in rows.items()}
