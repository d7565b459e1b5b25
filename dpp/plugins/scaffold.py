"""The package of a new plugin, written from the template that dpp brings along."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from dpp.errors import EnvironmentStop, InputError
from dpp.plugins.registry import registry
from dpp.workspace.atomic import temporary_name

TEMPLATE = Path(__file__).parents[1] / "templates" / "plugin"
PLUGIN_KINDS = ("processor", "pre-processor", "post-processor", "fetcher", "source")
_FILES = {  # of the package, each with its template
    "README.md": "package/README.md.jinja",
    "pyproject.toml": "package/pyproject.toml.jinja",
    "{module}/__init__.py": "kinds/{kind}/module.py.jinja",
    "{module}/py.typed": "",
    "tests/test_{module}.py": "kinds/{kind}/tests.py.jinja",
}
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_MAX_LENGTH = 40
_NAMES_IN_MODULE = {
    "any",
    "callable",
    "config-dict",
    "failure",
    "field",
    "file-data",
    "iterable",
    "iterator",
    "mapping",
    "options",
    "os-error",
    "part",
    "path",
    "settings",
    "stage-error",
    "fetch-error",
    "input-error",
    "value-error",
    "permission-error",
    "lookup-error",
    "file-not-found-error",
    "unicode-error",
    "base-model",
    "base-processor",
    "base-pre-processor",
    "base-post-processor",
    "base-fetcher",
    "none",
    "true",
    "false",
}
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


def write_plugin(name: str, kind: str = "processor", folder: Path | None = None) -> Path:
    """Write the package of a plugin: a small one that works, with its tests.

    Args:
        name: How batches ask for the plugin; a fetcher's or source's URL scheme.
        kind: One of :data:`PLUGIN_KINDS`.
        folder: Where it is written; ``./dpp-NAME`` unless given. It must not be there yet.

    Returns:
        The folder, whole; where something fails, nothing is left.

    Raises:
        InputError: The name cannot be used or is taken, or the folder is there already.
        EnvironmentStop: The folder cannot be written.
    """
    _check_name(name)
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


def _check_name(name: str) -> None:
    """Refuse a name that makes no package, module, class or URL scheme."""
    if not _NAME.fullmatch(name) or len(name) > _MAX_LENGTH:
        reason = f"expected at most {_MAX_LENGTH} lower-case letters, digits and single dashes, beginning with a letter, such as line-count"
    elif name.startswith("dpp-"):
        reason = "leave dpp- out: the package gets it in front of the name"
    elif name.startswith("test"):
        reason = "pytest takes classes that begin with Test for tests; take another name"
    elif name in _NAMES_IN_MODULE:
        reason = "the module uses a class of that name itself; take another"
    else:
        return
    raise InputError(f"{name!r} can't be the name of a plugin: {reason}")


def _render(name: str, kind: str, folder: Path) -> None:
    """Fill in the templates."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - takes 40 ms, which other commands do without

    package = f"dpp-{name}"
    module = package.replace("-", "_")
    class_name = "".join(word.capitalize() for word in name.split("-"))
    values = {"name": name, "kind": kind, "package": package, "module": module, "class_name": class_name}
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - what is written is Python, TOML and Markdown
    )
    for path, template in _FILES.items():
        target = folder / path.format(module=module)
        target.parent.mkdir(exist_ok=True)
        target.write_text(environment.get_template(template.format(kind=kind)).render(values) if template else "", encoding="utf-8")
