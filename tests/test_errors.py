"""Tests of the tree of errors: its drawing, exit codes and messages."""

from __future__ import annotations

import pytest
from dpp import errors


def drawn() -> dict[str, str]:
    """Return each error's parent in the drawing in the module's docstring."""
    parents, above = {}, {}
    for line in errors.__doc__.splitlines():
        head = line.split("  ")[0] if line[:1] not in "│├└ " else line
        name = head.strip("│├└─ ").split(" ")[0]
        if name.isidentifier() and hasattr(errors, name):
            depth = line.index(name) // 4
            parents[name], above[depth] = above.get(depth - 1, "Exception"), name
    return parents


def test_the_docstring_draws_the_tree():
    found = {
        name: kind.__bases__[0].__name__
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and kind.__module__ == errors.__name__
    }
    assert drawn() == found


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.DppError, 1),
        (errors.BatchFailed, 1),
        (errors.ConfigurationError, 2),
        (errors.PluginError, 2),
        (errors.EnvironmentStop, 3),
        (errors.LockedError, 3),
    ],
)
def test_exit_codes(kind, code):
    assert kind("why").exit_code == code


def test_a_manifest_error_lists_its_problems():
    error = errors.ManifestError("x.json", ["entry 0: url is missing", "entry 3: size: no"])
    assert str(error) == "x.json: 2 problems, nothing was fetched:\n  entry 0: url is missing\n  entry 3: size: no"
    assert (error.exit_code, error.total, error.source) == (2, 2, "x.json")


def test_a_manifest_error_says_how_many_it_leaves_out():
    assert str(errors.ManifestError("x", ["a"], 3)).splitlines()[-1] == "  and 2 more"
    assert str(errors.ManifestError("x", ["a"])).startswith("x: 1 problem, ")


def test_a_fetch_error_says_whether_to_try_again():
    error = errors.FetchError("busy", "http-503", retryable=True, http_status=503, retry_after=2.0)
    assert (str(error), error.error_class, error.retryable, error.http_status, error.retry_after) == ("busy", "http-503", True, 503, 2.0)
    assert errors.FetchError("gone", "http-404").retryable is False
