"""The contract tests of sources."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dpp.manifest.catalog import read_catalog, write_catalog
from dpp.manifest.entries import listed
from dpp.models import FileData
from dpp.plugins.registry import load_plugins
from dpp.redact import url_secrets
from dpp.settings import Settings
from dpp.testing.suites import hook_of

FOREIGN = ["", "x.json", "folder/x.json", "https://example.org/x.json", "nobody-knows-this://host/folder/", "nobody-knows-this:", "://"]
SHORTEST_SECRET = 4


class SourceSuite:
    """Tests of a source's contract, see the hook ``dpp_sources``; derived classes must define ``files``.

    Attributes:
        plugin: The module with the function ``dpp_sources``.
        schemes: URL schemes of the entries for which only the plugin under test has a fetcher.
    """

    plugin: ClassVar[Any]
    schemes: ClassVar[tuple[str, ...]] = ()

    @pytest.fixture
    def files(self) -> str:
        """Return a value of ``--files`` with at least one file, and with a password if it can have one. Must be overridden."""
        raise NotImplementedError(
            "define a fixture files in the test class that returns a value of --files, such as sftp://me:secret@127.0.0.1:2222/outbox/"
        )

    @pytest.fixture
    def foreign(self) -> list[str]:
        """Return values of ``--files`` that belong to other sources."""
        return FOREIGN

    @pytest.fixture
    def options(self) -> dict[str, dict[str, Any]]:
        """Return the options of the run, by URL scheme; none unless overridden."""
        return {}

    @pytest.fixture
    def settings(self, options: dict[str, dict[str, Any]], tmp_path: Path) -> Settings:
        """Return the settings of the run."""
        return Settings(connect_timeout=60, workspace=tmp_path / "workspace", options=options)

    @pytest.fixture
    def entries(self, files: str, settings: Settings) -> list[Mapping[str, Any]]:
        """Return the entries that the source yields."""
        return self.listing(files, settings)

    def list_files(self, files: str, settings: Settings) -> Any:
        """Call the hook with the arguments that its function takes, and return the result."""
        hook = hook_of(self.plugin, "dpp_sources")
        assert hook is not None, f"{self.plugin.__name__} has no function dpp_sources with @hookimpl"
        given = {"files": files, "settings": settings}
        return hook(**{name: given[name] for name in inspect.signature(hook).parameters})

    def listing(self, files: str, settings: Settings) -> list[Mapping[str, Any]]:
        """Return the entries of a source."""
        found = self.list_files(files, settings)
        assert found is not None, f"dpp_sources returned None for a {files.partition(':')[0]}: URL; expected its entries"
        return list(found)

    def catalog(self, entries: list[Mapping[str, Any]], folder: Path) -> list[FileData]:
        """Return the files of the entries, validated as in a batch.

        Raises:
            ManifestError: Entries are invalid; the message lists all of them.
        """
        schemes = {*load_plugins().fetchers(), *self.schemes}
        path = folder / "files.jsonl"
        chunks = write_catalog(path, "the source", listed(entries), schemes, lambda total: max(total, 1))
        return list(chain.from_iterable(read_catalog(path, chunk) for chunk in chunks))

    def test_it_finds_files(self, entries: list[Mapping[str, Any]]) -> None:
        """It must find at least one file; otherwise the other tests check nothing."""
        assert entries

    def test_its_entries_are_those_of_a_manifest(self, entries: list[Mapping[str, Any]], tmp_path: Path) -> None:
        """Its entries must be valid and have different ids."""
        files = self.catalog(entries, tmp_path)
        assert len({file.id for file in files}) == len(files) == len(entries)

    def test_it_finds_the_same_files_twice(self, entries: list[Mapping[str, Any]], files: str, settings: Settings) -> None:
        """The order must be the same each time, so that a rerun is the same batch."""
        assert self.listing(files, settings) == entries

    def test_it_leaves_to_others_what_it_does_not_know(self, foreign: list[str], settings: Settings) -> None:
        """It must return None for other values of ``--files``, so that other plugins and dpp can read them."""
        assert {files: self.list_files(files, settings) for files in foreign} == dict.fromkeys(foreign)

    def test_secrets_stay_out_of_ids_and_names(self, entries: list[Mapping[str, Any]], files: str, tmp_path: Path) -> None:
        """Ids and names must not contain secrets, because reports, logs and file names show them."""
        secrets = {secret for secret in url_secrets(files) if len(secret) >= SHORTEST_SECRET}
        shown = [text for file in self.catalog(entries, tmp_path) for text in (file.id, file.name)]
        assert [secret for secret in secrets if any(secret in text for text in shown)] == []
