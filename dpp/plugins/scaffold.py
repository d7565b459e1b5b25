"""The package of a new plugin, written from the template that dpp brings along."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from dpp.errors import EnvironmentStop, InputError
from dpp.plugins.registry import registry
from dpp.workspace.atomic import temporary_name

TEMPLATE = Path(__file__).parents[1] / "templates" / "plugin"
KINDS = ("processor", "pre-processor", "post-processor", "fetcher", "source")
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def write_plugin(name: str, kind: str = "processor", folder: Path | None = None) -> Path:
    """Write the package of a plugin: a small one that works, with its tests.

    Args:
        name: How batches ask for the plugin; a fetcher's or source's URL scheme.
        kind: One of :data:`KINDS`.
        folder: Where it is written; ``./dpp-NAME`` unless given. It must not be there yet.

    Returns:
        The folder, whole; where something fails, nothing is left.

    Raises:
        InputError: The name cannot be used or is taken, or the folder is there already.
        EnvironmentStop: The folder cannot be written.
    """
    _check(name, kind)
    folder = Path(os.path.abspath(folder or f"dpp-{name}"))
    _refuse_existing(folder)
    _refuse_taken(name, kind)
    with _made_whole(folder) as unfinished:
        _render(name, kind, unfinished)
    return folder


def _refuse_existing(folder: Path) -> None:
    if os.path.lexists(folder):
        raise InputError(f"{folder} is there already, and nothing was written; choose another place with --output")
    if not folder.parent.is_dir():
        raise InputError(f"there is no folder {folder.parent} to write {folder.name} into; make it first")


def _refuse_taken(name: str, kind: str) -> None:
    """Refuse a name that another plugin has, as a batch could then ask for neither."""
    offers = (offer for offer in registry().offers if (offer.kind, offer.name) == (kind, name))
    if offer := next(offers, None):
        raise InputError(f"there is a {kind} {name!r} already, {offer.origin}; choose another name")
    try:
        installed = distribution(f"dpp-{name}")
    except (PackageNotFoundError, ValueError):
        return
    raise InputError(f"a package dpp-{name} {installed.version} is installed already; choose another name, or uninstall it first")


@contextmanager
def _made_whole(folder: Path) -> Iterator[Path]:
    """Yield a folder beside the final one, which takes its name in the end; where something fails, it is removed."""
    unfinished = Path(temporary_name(folder))
    try:
        unfinished.mkdir()
        yield unfinished
        unfinished.rename(folder)
    except OSError as error:
        if error.errno in _TAKEN:
            raise InputError(f"{folder} appeared in the meantime and is left as it is") from error
        raise EnvironmentStop(f"cannot write {folder}: {error.strerror or error}; nothing is left of it") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _check(name: str, kind: str) -> None:
    """Refuse a name that makes no package, module, class or URL scheme; the template's ``copier.yml`` has the rules."""
    try:
        _render(name, kind, Path("unwritten"), pretend=True)
    except ValueError as error:
        raise InputError(f"{name!r} can't be the name of a plugin: {str(error).partition(': ')[2]}") from error


def _render(name: str, kind: str, folder: Path, *, pretend: bool = False) -> None:
    """Fill in the template."""
    import copier  # noqa: PLC0415 - takes a third of the time in which dpp's other verbs start

    copier.run_copy(
        str(TEMPLATE),
        folder,
        data={"name": name, "kind": kind},
        settings=copier.Settings(),  # else defaults of the user's own, for other templates, would count
        defaults=True,
        overwrite=True,
        quiet=True,
        pretend=pretend,
    )
