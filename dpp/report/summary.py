"""The summary of a run: counts, groups of failures, and the text shown at its end."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, Field

from dpp import names
from dpp.models import Outcome
from dpp.redact import one_line
from dpp.report.info import read_info
from dpp.selection import GONE
from dpp.settings import CACHE_VARIABLE, WORKSPACE_VARIABLE, default_settings
from dpp.workspace.ledger import Record

PAGE = "report.html"
SHOWN_GROUPS = 20
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class FailureGroup(BaseModel):
    """Failures of one kind.

    Attributes:
        stage: The stage in which the files failed.
        error_class: Their error class.
        count: Number of files.
        example: Id, URL and message of the first file.
    """

    stage: str
    error_class: str
    count: int = 0
    example: dict[str, str] = Field(default_factory=dict)


class Summary(BaseModel):
    """The summary of a run, in ``summary.json``.

    Attributes:
        batch: Name of the batch.
        run: Number of the run.
        total: Number of files in the batch.
        ok: Files that are ok, from this run or an earlier one.
        cached: How many of those are from an earlier run.
        failed: Files that failed.
        remembered: How many of those failed in an earlier run and were not retried (``dpp retry``).
        skipped: Files skipped because the destination has them (``skip_existing``).
        warned: Files that are ok, but probably not the expected ones, such as web pages in place of documents.
        warning: Id, URL and message of the first of them.
        missing: Files without an outcome, because the run was stopped.
        bytes: Bytes downloaded by this run, for files that are ok.
        seconds: Seconds from the start of the run to its summary.
        failures: Failures grouped by stage and error class, the largest group first.
        folder: Folder of the summary and the results; empty if they were not kept.
    """

    batch: str
    run: int
    total: int
    ok: int = 0
    cached: int = 0
    failed: int = 0
    remembered: int = 0
    skipped: int = 0
    warned: int = 0
    warning: dict[str, str] = Field(default_factory=dict)
    missing: int = 0
    bytes: int = 0
    seconds: float = 0.0
    failures: list[FailureGroup] = Field(default_factory=list)
    folder: str = ""

    @property
    def complete(self) -> bool:
        """Whether every file of the batch is ok."""
        return not self.failed and not self.missing

    @property
    def state(self) -> str:
        """How the run ended: ``ok``, ``failed``, or ``stopped`` if some files have no outcome."""
        return "stopped" if self.missing else "failed" if self.failed else "ok"


def once(rows: Iterable[Record]) -> Iterator[Record]:
    """Yield the rows of ledgers, each file only once."""
    seen: set[int] = set()
    for row in rows:
        key = names.mark(row.outcome.key)
        if key not in seen:
            seen.add(key)
            yield row


def fold(summary: Summary, rows: Iterable[Record]) -> Iterator[Record]:
    """Yield the rows of ledgers, each file only once, and count them in a summary."""
    groups: dict[tuple[str, str], FailureGroup] = {}
    for row in once(rows):
        _count(summary, groups, row.outcome)
        yield row
    done = summary.ok + summary.failed
    # The total is unknown if run.json is damaged.
    summary.total = max(summary.total, done)
    summary.missing = summary.total - done
    summary.failures = sorted(groups.values(), key=lambda group: -group.count)


def _count(summary: Summary, groups: dict[tuple[str, str], FailureGroup], outcome: Outcome) -> None:
    if outcome.ok:
        summary.ok += 1
        summary.cached += outcome.cached
        summary.bytes += 0 if outcome.cached else outcome.bytes or 0
        if outcome.warning:
            summary.warned += 1
            summary.warning = summary.warning or {"id": outcome.id, "url": outcome.url, "message": outcome.warning}
        return
    summary.failed += 1
    summary.remembered += outcome.cached
    stage, error_class = outcome.stage or "", outcome.error_class or ""
    group = groups.setdefault((stage, error_class), FailureGroup(stage=stage, error_class=error_class))
    group.count += 1
    group.example = group.example or {"id": outcome.id, "url": outcome.url, "message": outcome.message or ""}


def render(summary: Summary) -> str:
    """Return a summary as text: counts, failures, paths of the results, and the command to run next."""
    lines = [f"batch {summary.batch}, run {summary.run}: {_counts(summary)}"]
    lines += [_group(group) for group in summary.failures[:SHOWN_GROUPS]]
    if len(summary.failures) > SHOWN_GROUPS:
        lines.append(f"  and {len(summary.failures) - SHOWN_GROUPS} more kinds of failure")
    if summary.warned:
        example = summary.warning
        lines.append(
            f"  warning: {summary.warned} ok, but probably not the expected file, for example {example['id']} ({example['url']}): "
            f"{example['message']}; to fail such files, set expect_type"
        )
    return "\n".join(map(one_line, [*lines, *_where(summary)]))


def _where(summary: Summary) -> list[str]:
    """Return lines with the paths of results, report and log, and the command to run next."""
    if not summary.folder:
        return ["results were not kept"]
    folder = Path(summary.folder)
    kept = [("report", folder / PAGE), ("log", folder / "log.txt")]
    lines = [f"{name}: {path}" for name, path in kept if path.exists() and (name == "report" or not summary.complete)]
    again = [] if summary.complete else [f"{'continue' if summary.missing else 'retry'}: {_how_to_retry(summary)}"]
    return [f"results: {folder / 'results.jsonl'}", *lines, *again]


def _how_to_retry(summary: Summary) -> str:
    """Return the command that retries, or an explanation if there is none."""
    info = read_info(Path(summary.folder))
    # A list from Python, a pipe, or a URL with a secret is not stored, so dpp retry cannot read it.
    can_be_read_again = info.source or not info.run
    return retry_command(summary) if can_be_read_again else f"start the same run again; dpp retry cannot read the {info.files}"


def retry_command(summary: Summary) -> str:
    """Return the command that continues a run or retries its failures."""
    # Without --all, dpp retry would retry none of these failures.
    are_gone = not summary.missing and all(group.error_class in GONE for group in summary.failures)
    return spell_retry(summary.batch, Path(summary.folder), *(["--all"] if are_gone else []))


def spell_retry(batch: str, folder: Path, *words: str) -> str:
    """Return a command that retries a batch.

    Args:
        batch: Name of the batch.
        folder: Folder of one of its runs.
        words: Further options.
    """
    workspace = folder.parents[3]
    # Without an option, the command would use the workspace of a variable.
    is_default = workspace == default_settings().workspace and not any(map(os.environ.get, (WORKSPACE_VARIABLE, CACHE_VARIABLE)))
    where = [] if is_default else ["--workspace", str(workspace)]
    return shlex.join(["dpp", "retry", batch, *words, *where])


def _counts(summary: Summary) -> str:
    done = f" ({summary.cached} already done)" if summary.cached else ""
    kept = f" ({summary.remembered} not retried)" if summary.remembered else ""
    parts = [f"{summary.ok} of {summary.total} ok{done}", f"{summary.failed} failed{kept}"]
    if summary.skipped:
        parts.append(f"{summary.skipped} skipped (already at the destination)")
    if summary.missing:
        parts.append(f"{summary.missing} not done")
    return f"{', '.join(parts)}; {human_bytes(summary.bytes)} in {summary.seconds:.1f} s"


def _group(group: FailureGroup) -> str:
    example = group.example
    failures = f"{group.count} failed in {group.stage} ({group.error_class})"
    return f"  {failures}, for example {example['id']} ({example['url']}): {example['message']}"


def human_seconds(seconds: float) -> str:
    """Return a duration in hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"


def human_bytes(count: float) -> str:
    """Return a number of bytes in IEC units (IEC 80000-13)."""
    power = min(int(math.log2(max(count, 1)) // 10), len(UNITS) - 1)
    return f"{count:.0f} B" if not power else f"{count / 2 ** (10 * power):.1f} {UNITS[power]}"
