"""Retry the failed files of a batch with the settings of its last run."""

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
from dpp.selection import Selection, outcome_host
from dpp.settings import Settings, merged_options
from dpp.tasks.batch import RunBatch

NEW_RUN_HINT = "use the original command: dpp run FILES"


@dataclass
class Failures:
    """The failures of a run.

    Attributes:
        outcomes: Number of files with an outcome, ok or failed.
        by_class: Number of failures by error class.
        hosts: The hosts of the failed URLs.
        picked: Number of failures to retry.
    """

    outcomes: int = 0
    by_class: Counter[str] = field(default_factory=Counter)
    hosts: set[str] = field(default_factory=set)
    picked: int = 0

    @property
    def total(self) -> int:
        """Number of failures."""
        return self.by_class.total()


def failures_of(run: RunFolder, selection: Selection) -> Failures:
    """Return the failures of a run, and how many of them the selection picks.

    Raises:
        ConfigurationError: A class, stage or host of the selection is unknown.
    """
    found = Failures()
    for outcome in run.results():
        found.outcomes += 1
        if not outcome.ok:
            found.by_class[outcome.error_class or ""] += 1
            found.hosts |= {outcome_host(outcome)} - {""}
            found.picked += selection.picks(outcome)
    selection.check(found.by_class, found.hosts)
    return found


def repeat(run: RunFolder, given: Mapping[str, Any]) -> RunBatch:
    """Return the task that runs the batch of a run again.

    Args:
        run: The run, whose settings and stored options are used.
        given: Settings that replace those of the run.

    Raises:
        ConfigurationError: The manifest cannot be read again, an option was not stored, or the steps have changed.
    """
    task = _same_task(run.info, {"workspace": _workspace_of(run), **given})
    steps = registry().steps(task.settings())
    if batch_name(task.files, steps, task.batch_name, task.settings().shard) != run.batch:
        raise ConfigurationError(_other_batch(run.batch, run.info.plugins, steps))
    return task


def _workspace_of(run: RunFolder) -> Path:
    """Return the workspace of a run."""
    # From the folder, not from the settings of the run: the workspace may have been moved.
    return run.root.parent if run.info.settings.get("simulate_downloads") else run.root


def _same_task(info: RunInfo, given: Mapping[str, Any]) -> RunBatch:
    """Return the task of a run, with the given settings in place of its own."""
    if not info.run:
        raise ConfigurationError(f"run.json of the last run is missing or damaged; {NEW_RUN_HINT}")
    if not info.source:
        raise ConfigurationError(f"batch {info.batch} was run from {info.files}, which cannot be read again; {NEW_RUN_HINT}")
    settings = {name: value for name, value in info.settings.items() if name in Settings.model_fields} | dict(given)
    settings |= {"files": info.source, "batch_name": info.name}
    settings.pop("options", None)
    # Options given now override those of the run, which override those in luigi.cfg, as in the run itself.
    known = RunBatch(**settings).settings()
    options = merged_options(known.options, info.options, given.get("options", {}))
    missing = [name for name in info.withheld if not _is_given(name, options, given) and not (name == "headers" and known.headers)]
    if missing:
        raise ConfigurationError(_give_again(missing, info.batch))
    return RunBatch(**settings | {"options": options})


def _is_given(withheld: str, options: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]) -> bool:
    plugin, _, option = withheld.rpartition(".")
    return option in options.get(plugin, {}) if plugin else option in given


def _give_again(missing: list[str], batch: str) -> str:
    """Return the message about settings that were not stored, with a command for the first of them."""
    plugin, _, option = missing[0].rpartition(".")
    example = f"""--options '{{"{plugin}": {{"{option}": ...}}}}'""" if plugin else f"--{option.replace('_', '-')} ..."
    return f"{', '.join(missing)}: not stored with batch {batch} because of possible secrets; set again with: dpp retry {batch} {example}"


def _other_batch(batch: str, before: list[dict[str, str]], steps: Steps) -> str:
    now = steps.described()
    changed = [_change(old, new) for old, new in zip(before, now, strict=False) if old != new]
    if len(before) != len(now):
        changed.append(f"the number of steps was {len(before)} and is now {len(now)}")
    reason = "; ".join(changed) or "the manifest is in another place"
    return f"batch {batch} cannot be repeated: {reason}. To run it as a new batch, {NEW_RUN_HINT}"


def _change(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    step = f"{old['kind']} {old['name']}"
    if (old["kind"], old["name"]) != (new["kind"], new["name"]):
        return f"{step} is now {new['kind']} {new['name']}"
    if old["version"] != new["version"]:
        return f"{step} was version {old['version']} and is now version {new['version']}"
    return f"{step} has other options; give the options of that run with --options"
