"""The summary of several runs, one per shard of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, Field

from dpp.report.info import RunInfo
from dpp.report.summary import FailureGroup, Summary

SHOWN_HOSTS = 3

State = Literal["ok", "failed", "stopped", "running", "missing"]


class ShardOutcome(BaseModel):
    """The outcome of one shard.

    Attributes:
        shard: The shard, such as ``3/8``.
        state: That of its run; ``running``, or ``missing`` if no run of the shard was given.
        total: Number of files in the shard; 0 if it is missing.
        ok: Files that are ok.
        failed: Files that failed.
        missing: Files without an outcome.
        host: Name of the machine.
        folder: Folder of the run; empty if the shard is missing.
        unused: Folders of other runs of the shard, which do not count.
    """

    shard: str
    state: State
    total: int = 0
    ok: int = 0
    failed: int = 0
    missing: int = 0
    host: str = ""
    folder: str = ""
    unused: list[str] = Field(default_factory=list)


class MergedSummary(Summary):
    """The summary of the shards of a batch.

    Attributes:
        shards: The outcome of each shard, in the order of their numbers.
    """

    shards: list[ShardOutcome] = Field(default_factory=list)

    @property
    def missing_shards(self) -> list[str]:
        """The shards of which there is no run."""
        return [one.shard for one in self.shards if one.state == "missing"]

    @property
    def ended(self) -> bool:
        """Whether no run of a shard is still in progress."""
        return all(one.state != "running" for one in self.shards)

    @property
    def complete(self) -> bool:
        """Whether the runs of all shards have ended with every file ok."""
        return super().complete and all(one.state == "ok" for one in self.shards)

    @property
    def state(self) -> str:
        """How the shards ended: ``ok``, ``failed``, or ``stopped`` if files or whole shards have no outcome."""
        return "stopped" if self.missing_shards else super().state


def merge(infos: Sequence[RunInfo], summaries: Sequence[Summary], shards: list[ShardOutcome], batch: str) -> MergedSummary:
    """Return the summary of several runs.

    Args:
        infos: The descriptions of the runs.
        summaries: Their summaries, in the same order.
        shards: The outcomes of all shards, also of those without a run.
        batch: Name of the batch.
    """
    total = sum(summary.total for summary in summaries)
    if any(one.state == "missing" for one in shards):
        total = max(total, *(info.listed for info in infos))
    done = sum(summary.ok + summary.failed for summary in summaries)
    return MergedSummary(
        batch=batch,
        run=0,
        total=total,
        missing=total - done,
        **{name: sum(getattr(summary, name) for summary in summaries) for name in ("ok", "cached", "failed", "remembered", "skipped")},
        warned=sum(summary.warned for summary in summaries),
        warning=next((summary.warning for summary in summaries if summary.warning), {}),
        bytes=sum(summary.bytes for summary in summaries),
        seconds=round(_last_end(infos, summaries) - min(info.started_at for info in infos), 3),
        failures=_merged_groups(group for summary in summaries for group in summary.failures),
        shards=shards,
    )


def _last_end(infos: Sequence[RunInfo], summaries: Sequence[Summary]) -> float:
    return max(info.started_at + summary.seconds for info, summary in zip(infos, summaries, strict=True))


def _merged_groups(groups: Iterable[FailureGroup]) -> list[FailureGroup]:
    """Return the groups of all runs, those of the same kind as one, the largest first."""
    merged: dict[tuple[str, str], FailureGroup] = {}
    for group in groups:
        known = merged.setdefault((group.stage, group.error_class), group.model_copy(update={"count": 0}))
        known.count += group.count
    return sorted(merged.values(), key=lambda group: -group.count)


def merged_info(infos: Sequence[RunInfo], batch: str, total: int) -> RunInfo:
    """Return one description of several runs: what they have in common, and the start of the first one."""
    first = min(infos, key=lambda info: info.started_at)
    hosts = sorted({info.host for info in infos})
    more = [f"{len(hosts) - SHOWN_HOSTS} more"] if len(hosts) > SHOWN_HOSTS else []
    settings = {name: value for name, value in first.settings.items() if all(info.settings.get(name) == value for info in infos)}
    return first.model_copy(
        update={
            "batch": batch,
            "total": total,
            "host": ", ".join([*hosts[:SHOWN_HOSTS], *more]),
            "settings": {name: value for name, value in settings.items() if name not in ("workspace", "shard")},
            "shard": "",
        }
    )
