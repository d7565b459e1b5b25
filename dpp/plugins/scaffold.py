"""Create the package of a new plugin from dpp's template."""

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
    """Write the package of a small plugin that works, with its tests.

    Args:
        name: Name of the plugin in batches; for a fetcher or source, its URL scheme.
        kind: One of :data:`PLUGIN_KINDS`.
        folder: Path of the package; by default ``./dpp-NAME``. It must not exist yet.

    Returns:
        The folder. If anything fails, it is not created.

    Raises:
        InputError: The name is invalid or taken, or the folder exists already.
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
        raise InputError(f"{folder} exists already, nothing was written; choose another folder with --output")
    if not folder.parent.is_dir():
        raise InputError(f"folder {folder.parent} does not exist; create it first")


def _refuse_taken(name: str, kind: str) -> None:
    """Raise InputError if another plugin or package has this name."""
    # A batch cannot use a name that two plugins offer.
    offers = (offer for offer in registry().offers if (offer.kind, offer.name) == (kind, name))
    if offer := next(offers, None):
        raise InputError(f"{kind} {name!r} is already offered by {offer.origin}; choose another name")
    try:
        installed = distribution(f"dpp-{name}")
    except (PackageNotFoundError, ValueError):
        return
    raise InputError(f"package dpp-{name} {installed.version} is already installed; choose another name, or uninstall it first")


@contextmanager
def _made_whole(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that gets the final name when the block succeeds, and is removed if it raises."""
    unfinished = Path(temporary_name(folder))
    try:
        unfinished.mkdir()
        yield unfinished
        unfinished.rename(folder)
    except OSError as error:
        if error.errno in _TAKEN:
            raise InputError(f"{folder} was created by another process meanwhile; it was not changed") from error
        raise EnvironmentStop(f"cannot write {folder}: {error.strerror or error}; nothing was written") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _check_name(name: str) -> None:
    """Raise InputError for a name that cannot name a package, module, class and URL scheme."""
    if not _NAME.fullmatch(name) or len(name) > _MAX_LENGTH:
        reason = f"expected at most {_MAX_LENGTH} lower-case letters, digits and single dashes, starting with a letter, such as line-count"
    elif name.startswith("dpp-"):
        reason = "omit the prefix dpp-; it is added to the name of the package"
    elif name.startswith("test"):
        reason = "pytest collects classes whose names start with Test; choose another name"
    elif name in _NAMES_IN_MODULE:
        reason = "the module uses another class of this name; choose another name"
    else:
        return
    raise InputError(f"invalid plugin name {name!r}: {reason}")


def _render(name: str, kind: str, folder: Path) -> None:
    """Fill in the templates."""
    # The import takes 40 ms, which other commands need not spend.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415

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
        autoescape=False,  # noqa: S701 - the output is Python, TOML and Markdown, not HTML
    )
    for path, template in _FILES.items():
        target = folder / path.format(module=module)
        target.parent.mkdir(exist_ok=True)
        target.write_text(environment.get_template(template.format(kind=kind)).render(values) if template else "", encoding="utf-8")
