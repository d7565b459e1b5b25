"""Tests of the public names: they are listed, sorted and documented, and plugins use no others."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import dpp
import dpp.testing
import pytest

REPOSITORY = Path(__file__).parent.parent
PLUGINS = [
    path for path in sorted((REPOSITORY / "plugins").glob("*/**/*.py")) if not {"tests", "build"} & set(path.relative_to(REPOSITORY).parts)
]


def public_objects(module=dpp):
    for name in module.__all__:
        value = getattr(module, name)
        yield name, value
        members = vars(value).items() if inspect.isclass(value) else ()
        yield from ((f"{name}.{member}", found) for member, found in members if is_documentable(member, found))


def is_documentable(name, value):
    return not name.startswith("_") and isinstance(value, (property, classmethod, staticmethod)) | inspect.isfunction(value)


def imported(path):
    """Yield each name that a module imports from dpp; for an imported module of dpp, its path."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "dpp":
            yield from (alias.name if node.module == "dpp" else f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("dpp."))


def test_the_names_are_sorted_and_there_once():
    assert dpp.__all__ == sorted(set(dpp.__all__))


def test_the_names_are_those_that_the_package_imports():
    tree = ast.parse(Path(dpp.__file__).read_text())
    found = {alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert found - {"annotations", "set_soft_defaults"} == set(dpp.__all__)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, value in public_objects() if name != "__version__"])
def test_every_public_name_has_a_docstring(name, value):
    assert value.__doc__


@pytest.mark.parametrize(("name", "value"), list(public_objects(dpp.testing)))
def test_every_public_name_for_tests_has_a_docstring(name, value):
    assert value.__doc__


def test_the_names_for_tests_are_those_that_the_package_imports():
    tree = ast.parse(Path(dpp.testing.__file__).read_text())
    found = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted({*found} - {"annotations"}) == dpp.testing.__all__


def test_there_are_plugins_to_look_at():
    assert {"dpp_linecount"} <= {path.parent.name for path in PLUGINS}


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.parent.name)
def test_plugins_import_public_names_only(path):
    assert set(imported(path)) - set(dpp.__all__) == set()
