"""Functions for all suites: check that a plugin is registered."""

from __future__ import annotations

import importlib
from typing import Any

from dpp.plugins.registry import load_plugins

NOT_OFFERED = (
    "{what} is not registered, neither by an installed plugin nor by a function {hook} with @hookimpl in the package {package}; "
    "add the module with that function to the entry point group dpp in pyproject.toml, and install the package with pip install -e"
)


def assert_offered(kind: str, name: str, cls: type[Any]) -> None:
    """Fail unless an installed plugin, or the hook of the class's own package, registers the class under the name."""
    hook = f"dpp_{kind.replace('-', '_')}s"
    package = cls.__module__.partition(".")[0]
    installed = any((offer.kind, offer.name, offer.cls) == (kind, name, cls) for offer in load_plugins().offers)
    offered = installed or _is_in(_offered_by(package, hook), name, cls)
    assert offered, NOT_OFFERED.format(what=f"{kind} {name!r}", hook=hook, package=package)


def _offered_by(package: str, hook: str) -> Any:
    """Return the result of a package's hook function, or an empty tuple if it has none."""
    function = hook_of(importlib.import_module(package), hook)
    return function() if function else ()


def _is_in(found: Any, name: str, cls: type[Any]) -> bool:
    return found.get(name) is cls if hasattr(found, "get") else cls in list(found or ())


def hook_of(plugin: Any, hook: str) -> Any:
    """Return a plugin's function for a hook, or None if it has none with ``@hookimpl``."""
    function = getattr(plugin, hook, None)
    return function if hasattr(function, "dpp_impl") else None
