"""What all suites share: finding who offers a plugin, and telling options from one another."""

from __future__ import annotations

import importlib
from typing import Any

from dpp.plugins.registry import load_plugins

NOT_OFFERED = (
    "{what} is offered by no installed plugin, nor by a function {hook}, marked @hookimpl, of the package {package}; "
    "name the module with that function in the entry point group dpp of pyproject.toml, and pip install -e the package"
)


def assert_offered(kind: str, name: str, cls: type[Any]) -> None:
    """Fail unless an installed plugin, or the hook of the package that the class is in, offers the class under the name."""
    hook = f"dpp_{kind.replace('-', '_')}s"
    package = cls.__module__.partition(".")[0]
    installed = any((offer.kind, offer.name, offer.cls) == (kind, name, cls) for offer in load_plugins().offers)
    offered = installed or _is_in(_offered_by(package, hook), name, cls)
    assert offered, NOT_OFFERED.format(what=f"{kind} {name!r}", hook=hook, package=package)


def _offered_by(package: str, hook: str) -> Any:
    """Return what a package's part of a hook returns; nothing where the package has none."""
    function = hook_of(importlib.import_module(package), hook)
    return function() if function else ()


def _is_in(found: Any, name: str, cls: type[Any]) -> bool:
    return found.get(name) is cls if hasattr(found, "get") else cls in list(found or ())


def hook_of(plugin: Any, hook: str) -> Any:
    """Return a plugin's function for a hook, or None where it has none that is marked ``@hookimpl``."""
    function = getattr(plugin, hook, None)
    return function if hasattr(function, "dpp_impl") else None
