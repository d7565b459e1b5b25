"""The versions of dpp and of its plugins, here and on the workers."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points, version
from typing import NamedTuple

from dpp import ConfigurationError

NEEDED = ("dpp", "dpp-dask")


class Installed(NamedTuple):
    """What a process has installed.

    Attributes:
        host: Name of its machine.
        versions: Versions of dpp and of its plugins, by the name of the package.
    """

    host: str
    versions: Mapping[str, str]


def installed() -> Installed:
    """Return what this process has installed; also called on the workers."""
    plugins = {entry.dist.name: entry.dist.version for entry in entry_points(group="dpp") if entry.dist}
    return Installed(socket.gethostname(), plugins | {name: version(name) for name in NEEDED})


def check_versions(ours: Installed, workers: Iterable[Installed]) -> None:
    """Check that workers have the same versions as this process.

    A plugin that only one of them has is no problem yet: the batch may not use it. A chunk checks the plugins that its batch uses.

    Raises:
        ConfigurationError: Versions differ; it names the host, and both versions.
    """
    problems = {
        f"{name} is {ours.versions[name]} on {ours.host}, and {found} for the Dask worker on {worker.host}"
        for worker in workers
        for name, found in worker.versions.items()
        if found != ours.versions.get(name, found)
    }
    if problems:
        raise ConfigurationError(f"{'; '.join(sorted(problems))}; install the same versions everywhere, and restart the workers")
