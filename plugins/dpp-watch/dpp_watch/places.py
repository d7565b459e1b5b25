"""What can be watched: a local folder, or a source that is listed."""

from __future__ import annotations

from pathlib import Path

from dpp import Settings

from dpp_watch.local import LocalFolder
from dpp_watch.remote import RemoteFolder
from dpp_watch.rules import Rules, is_folder

Place = LocalFolder | RemoteFolder


def opened(place: str, rules: Rules, settings: Settings, *, events: bool = True) -> Place:
    """Return a place to watch.

    Args:
        place: A folder, or the URL of a source.
        rules: Which files are taken.
        settings: The settings, with the options of the source.
        events: Whether to watch a folder with inotify.
    """
    if is_folder(place):
        return LocalFolder(Path(place), rules, events=events)
    return RemoteFolder(place, rules, settings)
