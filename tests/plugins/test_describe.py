"""Tests of the descriptions of classes and their options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Optional

from dpp import BaseFetcher, BaseProcessor
from dpp.plugins.describe import options_of, purpose
from pydantic import BaseModel, Field


class Count(BaseProcessor):
    """Count lines.

    Blank ones too.

    Example:
        >>> 1
    """

    skip: int
    """How many lines
    to skip."""
    way: Literal["a", "b"] = "a"
    """One of two."""
    folder: Path | None = None
    named: str = Field("x", description="said by the field")
    sizes: tuple[int, ...] = (1,)
    endpoint: Optional[Annotated[str, Field(min_length=1)]] = None  # noqa: UP045 - as classes out there write it

    def process(self, file):
        return 1


class Inherits(Count):
    """Count again."""

    way: Literal["a", "b"] = "b"
    """Said anew."""


class Connection(BaseModel):
    user: str = ""


class Fetcher(BaseFetcher):
    Options = Connection

    def fetch(self, url, file, part):
        return None


def test_the_purpose_is_what_comes_before_the_sections():
    assert purpose(Count) == "Count lines.\n\nBlank ones too."


def test_options_are_the_fields_with_type_default_and_meaning():
    assert [tuple(option) for option in options_of(Count)] == [
        ("skip", "int", None, True, "How many lines to skip."),
        ("way", "'a' | 'b'", "a", False, "One of two."),
        ("folder", "Path | None", None, False, ""),
        ("named", "str", "x", False, "said by the field"),
        ("sizes", "tuple[int, ...]", [1], False, ""),
        ("endpoint", "str | None", None, False, ""),
    ]


def test_what_a_base_says_counts_where_the_class_says_nothing():
    assert [option.description for option in options_of(Inherits)][:2] == ["How many lines to skip.", "Said anew."]


def test_a_fetcher_names_the_model_of_its_options():
    assert [option.name for option in options_of(Fetcher)] == ["user"]
    assert options_of(BaseFetcher) == []
    assert options_of(dict) == []


def test_a_name_shows_its_options(command):
    shown = command("dpp", "plugins", "checksum").stdout
    assert shown.startswith("processor checksum 1, built in\n")
    assert 'algorithm\tstr\t"sha256"\t' in shown
    found = json.loads(command("dpp", "plugins", "--format", "json", "checksum").stdout)
    assert [[option["name"] for option in one["options"]] for one in found] == [["algorithm"]]


def test_a_name_that_nothing_offers_gets_a_suggestion(command):
    refused = command("dpp", "plugins", "chekcsum")
    assert (refused.returncode, refused.stderr) == (2, "Error: no plugin provides 'chekcsum'; did you mean 'checksum'?\n")


def test_all_as_json_has_what_is_disabled_too(command):
    found = json.loads(command("dpp", "plugins", "--format", "json", DPP_DISABLE_PLUGINS="linecount").stdout)
    assert {"purpose", "options"} <= found[0].keys()
    assert [one["state"] for one in found if one["name"] == "linecount"] in ([], ["disabled: named in DPP_DISABLE_PLUGINS"])
