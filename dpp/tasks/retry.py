"""Trying the failed files of a batch again, as its last run was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpp.batch.batch import batch_name
from dpp.batch.folder import RunFolder
from dpp.errors import ConfigurationError
from dpp.plugins.registry import registry
from dpp.plugins.steps import Steps
from dpp.report.info import RunInfo
from dpp.selection import Selection, host_of
from dpp.settings import Settings, merged_options
from dpp.tasks.batch import RunBatch

NEW_RUN_HINT = "run it again with the command that ran it: dpp run FILES"


@dataclass
class Failures:
    """The failures of a run.

    Attributes:
        outcomes: How many files have an outcome, ok or failed.
        by_class: How many there are, by error class.
        hosts: The hosts of their URLs.
        picked: How many are to be tried again.
    """

    outcomes: int = 0
    by_class: Counter[str] = field(default_factory=Counter)
    hosts: set[str] = field(default_factory=set)
    picked: int = 0

    @property
    def total(self) -> int:
        """How many there are."""
        return self.by_class.total()


def failures_of(run: RunFolder, selection: Selection) -> Failures:
    """Return the failures of a run, and how many of them are picked.

    Raises:
        ConfigurationError: A class, stage or host of the selection is unknown.
    """
    found = Failures()
    for outcome in run.results():
        found.outcomes += 1
        if not outcome.ok:
            found.by_class[outcome.error_class or ""] += 1
            found.hosts |= {host_of(outcome)} - {""}
            found.picked += selection.picks(outcome)
    selection.check(found.by_class, found.hosts)
    return found


def repeat(run: RunFolder, given: Mapping[str, Any]) -> RunBatch:
    """Return the task that runs the batch of a run once more.

    Args:
        run: The run; its settings count, and its options as far as they are no secrets.
        given: Settings that are to be others now.

    Raises:
        ConfigurationError: How the run was asked for is not known well enough, or makes another batch by now.
    """
    task = _same_task(run.info, {"workspace": _workspace_of(run), **given})
    steps = registry().steps(task.settings())
    if batch_name(task.files, steps, task.batch_name) != run.batch:
        raise ConfigurationError(_other_batch(run.batch, run.info.plugins, steps))
    return task


def _workspace_of(run: RunFolder) -> Path:
    """Return the workspace that a run lies in, wherever it was moved to."""
    return run.root.parent if run.info.settings.get("simulate_downloads") else run.root


def _same_task(info: RunInfo, given: Mapping[str, Any]) -> RunBatch:
    """Return the task that a run was asked for with, with other settings where some are given.

    Options in luigi.cfg are read anew. Those that were given come after them, and after those the ones that are given now.
    """
    if not info.source:
        raise ConfigurationError(f"batch {info.batch} was run over {info.files}, which can't be read again; {NEW_RUN_HINT}")
    settings = {name: value for name, value in info.settings.items() if name in Settings.model_fields} | dict(given)
    settings |= {"files": info.source, "batch_name": info.name}
    settings.pop("options", None)
    options = merged_options(RunBatch(**settings).settings().options, info.options, given.get("options", {}))
    missing = [name for name in info.withheld if not _is_given(name, options, given)]
    if missing:
        raise ConfigurationError(_give_again(missing, info.batch))
    return RunBatch(**settings | {"options": options})


def _is_given(withheld: str, options: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]) -> bool:
    plugin, _, option = withheld.rpartition(".")
    return option in options.get(plugin, {}) if plugin else option in given


def _give_again(missing: list[str], batch: str) -> str:
    """Return the message that names what was not stored; its example has the first one."""
    plugin, _, option = missing[0].rpartition(".")
    example = f"""--options '{{"{plugin}": {{"{option}": ...}}}}'""" if plugin else f"--{option.replace('_', '-')} ..."
    return f"{', '.join(missing)}: not stored with batch {batch}, as it may be secret. Give it again: dpp retry {batch} {example}"


def _other_batch(batch: str, before: list[dict[str, str]], steps: Steps) -> str:
    now = steps.described()
    changed = [_change(old, new) for old, new in zip(before, now, strict=False) if old != new]
    if len(before) != len(now):
        changed.append(f"it had {len(before)} steps and has {len(now)} now")
    return f"this is not batch {batch} any more: {'; '.join(changed) or 'its files are elsewhere'}. As another batch: {NEW_RUN_HINT}"


def _change(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    step = f"{old['kind']} {old['name']}"
    if (old["kind"], old["name"]) != (new["kind"], new["name"]):
        return f"its {step} is {new['kind']} {new['name']} now"
    if old["version"] != new["version"]:
        return f"{step} was version {old['version']} and is {new['version']} now"
    return f"{step} has other options; give those of that run with --options"
