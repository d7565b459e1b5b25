"""Runs of the shards of one batch, in several folders, read as the one run that they make together."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from dpp.batch.folder import RunFolder, latest_run, latest_runs
from dpp.errors import BatchFailed, ConfigurationError, EnvironmentStop
from dpp.models import Outcome
from dpp.report.html import Page
from dpp.report.info import RunInfo
from dpp.report.merged import MergedSummary, ShardOutcome, State, merge, merged_info
from dpp.report.summary import Summary, once
from dpp.shards import Shard
from dpp.workspace.atomic import write_stream
from dpp.workspace.ledger import Record, read_ledgers, read_records


class ShardRun:
    """The run of a shard as it is at one moment.

    Args:
        run: Its folder.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.shard = Shard.parse(run.info.shard)
        # Read once: a run may end between the summary and the rows.
        self.ended = run.summary()
        self.summary = self.ended or run.progress()

    def records(self) -> Iterator[Record]:
        """Yield the records of the files that have an outcome, each file once."""
        return read_records(self.run.results_path) if self.ended else once(read_ledgers(self.run.ledgers))

    def rank(self) -> tuple[bool, bool, float]:
        """Return a sort key: of several runs of a shard, the greatest counts."""
        return self.ended is not None and self.ended.complete, self.ended is not None, self.run.info.started_at

    def outcome(self, unused: Iterable[ShardRun]) -> ShardOutcome:
        """Return the outcome of the shard.

        Args:
            unused: Other runs of the shard, which do not count.
        """
        return ShardOutcome(
            shard=str(self.shard),
            state=self._state(),
            **self.summary.model_dump(include={"total", "ok", "failed", "missing"}),
            host=self.run.info.host,
            folder=str(self.run.folder),
            unused=[str(other.run.folder) for other in unused],
        )

    def _state(self) -> State:
        if self.ended:
            return "stopped" if self.ended.missing else "failed" if self.ended.failed else "ok"
        # The lock of a workspace of another machine may be unreadable here, and a copied folder has none.
        with suppress(EnvironmentStop, OSError):
            return "running" if _is_in_workspace(self.run) and self.run.is_under_way() else "stopped"
        return "stopped"


class MergedRuns:
    """The runs of the shards of one batch, with the interface of :class:`dpp.batch.folder.RunFolder` for readers.

    Args:
        runs: The runs; of several runs of one shard, one that ended with every file ok counts, else the last one that ended.

    Raises:
        ConfigurationError: The runs are not those of shards of one batch.
    """

    def __init__(self, runs: Sequence[RunFolder]) -> None:
        for run in runs[1:]:
            _check_same_batch(runs[0], run)
        found: defaultdict[int, list[ShardRun]] = defaultdict(list)
        for shard_run in map(ShardRun, _latest_of_each(runs)):
            found[shard_run.shard.number].append(shard_run)
        ranked = {number: sorted(several, key=ShardRun.rank, reverse=True) for number, several in sorted(found.items())}
        self.parts = [several[0] for several in ranked.values()]
        self._unused = {number: several[1:] for number, several in ranked.items()}
        self.batch = batch_of_shards(runs[0].info)

    @cached_property
    def info(self) -> RunInfo:
        """One description of the runs."""
        return merged_info(self._infos(), self.batch, self.merged_summary.total)

    def _infos(self) -> list[RunInfo]:
        return [part.run.info for part in self.parts]

    @cached_property
    def merged_summary(self) -> MergedSummary:
        """The summary of all shards."""
        by_number = {part.shard.number: part for part in self.parts}
        count = self.parts[0].shard.count
        shards = [
            by_number[number].outcome(self._unused[number])
            if number in by_number
            else ShardOutcome(shard=str(Shard(number, count)), state="missing")
            for number in range(1, count + 1)
        ]
        return merge(self._infos(), [part.summary for part in self.parts], shards, self.batch)

    def summary(self) -> Summary | None:
        """Return the summary; None if a run has not ended."""
        return self.merged_summary if self.merged_summary.ended else None

    def progress(self) -> Summary:
        """Return a summary of the outcomes recorded so far."""
        return self.merged_summary

    def records(self) -> Iterator[Record]:
        """Yield the records of all shards."""
        return (record for part in self.parts for record in part.records())

    def results(self) -> Iterator[Outcome]:
        """Yield the outcomes of all shards."""
        return (record.outcome for record in self.records())

    def check_results(self) -> None:
        """Check that the results of each run that has ended have all its outcomes.

        Raises:
            DppError: Some are missing or damaged.
        """
        for part in self.parts:
            part.run.check_results()

    @contextmanager
    def settled_results(self) -> Iterator[list[Path]]:
        """Yield files of the outcomes that do not change while they are read."""
        with TemporaryDirectory() as folder:
            yield [self._settled(part, Path(folder, f"{part.shard.number}.jsonl")) for part in self.parts]

    @staticmethod
    def _settled(part: ShardRun, copy: Path) -> Path:
        if part.ended:
            return part.run.results_path
        write_stream(copy, (record.line for record in part.records()))
        return copy

    def write_page(self, path: Path) -> None:
        """Write one page of all shards.

        Raises:
            EnvironmentStop: The page cannot be written.
        """
        with Page(path, self.info) as page:
            for _ in page.take(self.records()):
                pass
            page.write(self.merged_summary, ended=self.merged_summary.ended, stopped=self.why_stopped())

    def exit_code(self, _summary: Summary) -> int:
        """Return the worst exit code of the runs; that of failed files if a shard is missing or not ended."""
        codes = [part.run.exit_code(part.summary) for part in self.parts]
        return max(*codes, 0 if self.merged_summary.complete else BatchFailed.exit_code)

    def why_stopped(self) -> str:
        """Return why shards have no or not all outcomes; "" if none stopped."""
        reasons = [f"shard {part.shard}: {why}" for part in self.parts if (why := part.run.why_stopped())]
        if missing := self.merged_summary.missing_shards:
            reasons.insert(0, f"no run of shard {', '.join(missing)}")
        return "; ".join(reasons)


def find_runs(places: Sequence[str]) -> tuple[list[RunFolder], list[str]]:
    """Return the runs in several places, and the places without a run.

    Args:
        places: Folders of runs, of batches or whole workspaces, and patterns of such folders (``*``, ``?``, ``[]``). The run of
            a batch is its last one; a workspace stands for its newest batch, with all shards of it.

    Raises:
        ConfigurationError: A place does not exist, or no place has a run.
    """
    found: dict[Path, RunFolder] = {}
    empty = []
    for folder in dict.fromkeys(folder for place in places for folder in _folders(place)):
        runs = _runs_in(folder)
        found |= {run.folder: run for run in runs}
        if not runs:
            empty.append(str(folder))
    if not found:
        raise ConfigurationError(f"no run in {', '.join(empty)}; expected folders of runs (batches/NAME/runs/1) or workspaces")
    for run in found.values():
        if not run.info.run:
            raise ConfigurationError(f"{run.folder}: run.json is missing or damaged, so it is unknown which shard this is; run it again")
    return list(found.values()), empty


def _folders(place: str) -> list[Path]:
    if Path(place).is_dir():
        return [Path(os.path.abspath(place))]
    matches = sorted(filter(os.path.isdir, glob.glob(place)))  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not matches:
        raise ConfigurationError(f"{place}: no such folder; expected folders of runs (batches/NAME/runs/1), workspaces or a pattern")
    return [Path(os.path.abspath(match)) for match in matches]


def _runs_in(folder: Path) -> list[RunFolder]:
    if (folder / "batches").is_dir():
        runs = latest_runs(folder)
        return [run for run in runs if run.info.shard and _identity(run.info) == _identity(runs[0].info)] or runs[:1]
    if (folder / "runs").is_dir():
        last = latest_run(folder)
        return [last] if last else []
    return [RunFolder(folder)] if (folder / "run.json").is_file() else []


def batch_of_shards(info: RunInfo) -> str:
    """Return the name that the batches of all shards have in common."""
    return info.batch.rpartition(f"-{info.shard.replace('/', 'of')}-")[0] or info.batch


def _identity(info: RunInfo) -> tuple[object, ...]:
    return Shard.parse(info.shard).count if info.shard else 0, info.manifest, info.fingerprints


def _is_in_workspace(run: RunFolder) -> bool:
    return run.folder.parent.name == "runs" and run.folder.name.isdigit()


def _latest_of_each(runs: Sequence[RunFolder]) -> list[RunFolder]:
    """Return the runs without those that a later run of the same batch folder replaces."""
    latest: dict[Path, RunFolder] = {}
    for run in sorted(runs, key=lambda run: run.number):
        latest[run.folder.parent if _is_in_workspace(run) else run.folder] = run
    return list(latest.values())


def _check_same_batch(one: RunFolder, other: RunFolder) -> None:
    """Raise ConfigurationError if two runs are not those of shards of one batch."""
    for run in (one, other):
        if not run.info.shard:
            raise ConfigurationError(f"{run.folder} is the run of a whole batch, not of a shard; only runs of shards can be merged")
    if difference := _difference(one.info, other.info):
        raise ConfigurationError(f"{other.folder} and {one.folder} are not shards of one batch: {difference}; give the runs of one batch")


def _difference(one: RunInfo, other: RunInfo) -> str:
    counts = [Shard.parse(info.shard).count for info in (other, one)]
    if counts[0] != counts[1]:
        return f"shard {other.shard} is one of {counts[0]}, shard {one.shard} one of {counts[1]}"
    if other.manifest != one.manifest:
        return f"their manifests differ ({other.files} lists {other.listed} files, {one.files} {one.listed})"
    return "their steps differ ({} and {})".format(*map(_steps, (other, one))) if other.fingerprints != one.fingerprints else ""


def _steps(info: RunInfo) -> str:
    return ", ".join(" ".join(filter(None, map(step.get, ("name", "version", "options")))) for step in info.plugins)
