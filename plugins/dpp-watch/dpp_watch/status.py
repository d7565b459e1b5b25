"""``dpp watch --status``: which files wait, and why."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from dpp import Settings

from dpp_watch.journal import JournalState, is_watched, read
from dpp_watch.places import Place, opened
from dpp_watch.rules import Rules
from dpp_watch.tracker import WRITTEN, Tracker, Waiting

SHOWN = 1000


def show(place: str, identity: str, name: str, rules: Rules, settings: Settings) -> None:
    """Print the status of a watcher, as text, or with ``--json`` as JSON; it reads the folder and the journal, and needs no watcher."""
    folder = Path(os.path.abspath(settings.workspace)) / "watch" / name
    state = read(folder, identity)
    files = list(_files(opened(place, rules, settings, events=False), rules, state))
    found = {
        "name": name,
        "is_watched": is_watched(folder),
        "taken": len(state.taken),
        "in_batch": state.count() if state.is_open else 0,
        "collections": state.number,
        "last_run": state.last_run,
        "files": files,
    }
    click.echo(json.dumps(found) if settings.json_lines else _text(found))


def _text(found: dict[str, Any]) -> str:
    files = found["files"]
    lines = [
        f"watcher {found['name']}: {'running' if found['is_watched'] else 'not running'}",
        f"{found['taken']} files taken in {found['collections']} collections, {found['in_batch']} of them in the current batch",
        *([f"last run: {found['last_run']}"] if found["last_run"] else []),
        *(f"{file['state']}\t{_printable(file['path'])}\t{file['why']}" for file in files[:SHOWN]),
        *([f"and {len(files) - SHOWN} more; --json shows all"] if len(files) > SHOWN else []),
    ]
    return "\n".join(lines)


def _printable(path: str) -> str:
    """Return a path without characters that would control a terminal."""
    return path if path.isprintable() else ascii(path)


def _files(place: Place, rules: Rules, state: JournalState) -> Iterator[dict[str, str]]:
    tracker, now = Tracker(rules, state), time.monotonic()
    for found in place.scan("", state.taken):
        tracker.see(found, now)
    for waiting in tracker.waiting.values():
        yield _file(waiting.found.path, "waiting", _why(waiting, tracker, place, rules, now))
    for path in tracker.refused:
        yield _file(path, "refused", f"it was rewritten after it was taken (--changed {rules.changed})")
    for path, count in state.tries.items():
        if path not in tracker.waiting:
            is_last = count >= rules.give_up
            yield _file(
                path, "given up" if is_last else "failed", f"it failed in {count} batches" + ("" if is_last else "; it is tried again")
            )
    for path, why in place.skipped():
        yield _file(path, "skipped", why)


def _file(path: str, state: str, why: str) -> dict[str, str]:
    return {"path": os.fsencode(path).decode("utf-8", "backslashreplace"), "state": state, "why": why}


def _why(waiting: Waiting, tracker: Tracker, place: Place, rules: Rules, now: float) -> str:
    path = waiting.found.path
    if why := tracker.why(waiting, now):
        return why
    if rules.has_markers and not place.has(rules.marker_of(path)):
        return f"there is no {rules.marker_of(path)}"
    return WRITTEN if place.is_written(path) else "it is ready, and waits for the next batch"
