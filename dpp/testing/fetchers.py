"""The contract tests of fetchers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest

from dpp.base import BaseFetcher
from dpp.download import http
from dpp.download.downloader import Downloader
from dpp.download.partial import WORTH_CONTINUING
from dpp.errors import ConfigurationError, FetchError
from dpp.models import FileData
from dpp.settings import Settings
from dpp.testing.parts import AttemptStopped, MemoryPart
from dpp.testing.suites import assert_offered
from dpp.workspace.layout import Workspace

BODY = bytes(range(256)) * (4 * WORTH_CONTINUING // 256)
CHANGED = BODY[::-1] + b"and longer"
STOP = 100_000
THREADS = 4
Serve = Callable[[str, bytes], str]


class FetcherSuite:
    """Tests of a fetcher's contract, see :class:`dpp.BaseFetcher`; derived classes must define ``serve`` and ``missing``.

    Attributes:
        plugin: The class under test.
        schemes: The URL schemes for which it is registered.
    """

    plugin: ClassVar[type[Any]]
    schemes: ClassVar[tuple[str, ...]]

    @pytest.fixture
    def serve(self) -> Serve:
        """Return a function that stores bytes under a name, replacing earlier ones, and returns their URL. Must be overridden."""
        raise NotImplementedError("define a fixture serve in the test class that returns a function (name, bytes) -> URL")

    @pytest.fixture
    def missing(self) -> str:
        """Return the URL of a file that does not exist. Must be overridden."""
        raise NotImplementedError("define a fixture missing in the test class that returns the URL of a file that does not exist")

    @pytest.fixture
    def refused(self) -> list[str]:
        """Return URLs that are not files, such as folders; none unless overridden."""
        return []

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        """Return the options for the tests; none unless overridden."""
        return {}

    @pytest.fixture
    def settings(self, options: dict[str, Any], tmp_path: Path) -> Settings:
        """Return the settings of a run with one attempt per file."""
        given = {scheme: options for scheme in self.schemes if options}
        # 60 s to connect, for busy machines
        return Settings(attempts=1, connect_timeout=60, workspace=tmp_path / "workspace", options=given)

    @pytest.fixture
    def fetcher(self, settings: Settings) -> Iterator[BaseFetcher]:
        """Create the fetcher, and close it after the test."""
        made = self.plugin(settings)
        yield made
        made.close()

    def test_it_is_offered(self) -> None:
        """An installed entry point or the package's hook registers it for its schemes, in lower case."""
        assert self.schemes == tuple(scheme.lower() for scheme in self.schemes)
        for scheme in self.schemes:
            assert_offered("fetcher", scheme, self.plugin)

    def test_it_can_be_made_for_a_batch_that_does_not_need_it(self) -> None:
        """Every batch creates every fetcher, so it must neither fail nor connect without options."""
        self.plugin(Settings()).close()

    def test_an_unknown_option_is_refused(self, options: dict[str, Any]) -> None:
        """The model of the options must reject it, so that a misspelled option is found before anything is downloaded."""
        for scheme in self.schemes:
            given = Settings(options={scheme: {**options, "no_such_option": 1}})
            with pytest.raises(ConfigurationError, match="no_such_option"):
                given.options_for(scheme, self.plugin.Options)

    @pytest.mark.parametrize("size", [1, len(BODY)])
    def test_a_file_comes_as_it_is(self, fetcher: BaseFetcher, settings: Settings, serve: Serve, size: int) -> None:
        """A file that is downloaded into a workspace, as in a batch, has the bytes of the source."""
        url = serve("whole.bin", BODY[:size])
        got = _downloaded(fetcher, settings, FileData(url=url))
        assert got.read_bytes() == BODY[:size]

    def test_an_empty_file_comes_where_it_is_expected(self, fetcher: BaseFetcher, settings: Settings, serve: Serve) -> None:
        """An empty file is downloaded if its size in the manifest is 0."""
        assert _downloaded(fetcher, settings, FileData(url=serve("empty.bin", b""), size=0)).read_bytes() == b""

    def test_the_size_is_announced(self, fetcher: BaseFetcher, serve: Serve) -> None:
        """``begin`` must get the size as ``total``; otherwise a truncated file cannot be detected."""
        total = _fetched(fetcher, serve("whole.bin", BODY), MemoryPart()).total
        assert total == len(BODY), f"begin() should be called with total={len(BODY)}, the size in bytes; got {total}"

    def test_a_missing_file_is_final(self, fetcher: BaseFetcher, missing: str) -> None:
        """A file that does not exist is an error without retry."""
        _is_refused(fetcher, missing)

    def test_what_is_no_file_is_refused(self, fetcher: BaseFetcher, refused: list[str]) -> None:
        """A folder, or a path outside the source, is an error without retry."""
        for url in refused:
            _is_refused(fetcher, url)

    def test_a_part_with_an_entity_tag_is_continued(self, fetcher: BaseFetcher, serve: Serve) -> None:
        """A fetcher that sets an entity tag must resume a partial download; one without starts again at 0."""
        url = serve("whole.bin", BODY)
        left = _interrupted(fetcher, url)
        part = _fetched(fetcher, url, MemoryPart(bytes(left.data), left.etag))
        assert part.data == BODY
        expected = STOP if left.etag else 0
        assert part.began_at == expected, f"begin() should be called with offset {expected} after the entity tag {left.etag}"

    def test_a_part_of_a_file_that_changed_is_started_over(self, fetcher: BaseFetcher, serve: Serve) -> None:
        """Bytes of two versions must not be mixed: call ``begin`` with 0, or raise :class:`dpp.http.RangeRefused`."""
        left = _interrupted(fetcher, serve("whole.bin", BODY))
        url = serve("whole.bin", CHANGED)
        try:
            part = _fetched(fetcher, url, MemoryPart(bytes(left.data), left.etag))
        except http.RangeRefused:
            # As dpp does it: discard the part, and download the file again
            part = _fetched(fetcher, url, MemoryPart())
        assert (part.began_at, part.data == CHANGED) == (0, True)

    def test_the_version_of_a_source_is_that_of_its_bytes(self, fetcher: BaseFetcher, serve: Serve) -> None:
        """``source_version`` must return what ``fetch`` passed to ``begin`` until the source changes; without versions both are None."""
        url = serve("whole.bin", BODY)
        fetched = _fetched(fetcher, url, MemoryPart()).source_version
        assert fetcher.source_version(url, FileData(url=url)) == fetched, "a rerun would download the file again although it is the same"
        serve("whole.bin", CHANGED)
        assert fetched is None or fetcher.source_version(url, FileData(url=url)) not in (None, fetched)

    def test_a_missing_file_has_no_version(self, fetcher: BaseFetcher, missing: str) -> None:
        """A source that does not exist any more counts as unchanged, so its version is None."""
        assert fetcher.source_version(missing, FileData(url=missing)) is None

    def test_an_error_of_the_part_ends_the_attempt(self, fetcher: BaseFetcher, serve: Serve) -> None:
        """An exception of ``write`` must pass unchanged, and the fetcher must stay usable."""
        url = serve("whole.bin", BODY)
        _interrupted(fetcher, url)
        assert _fetched(fetcher, url, MemoryPart()).data == BODY

    def test_one_object_serves_all_threads(self, fetcher: BaseFetcher, serve: Serve) -> None:
        """Files that are downloaded at the same time must each get their own bytes."""
        bodies = [bytes([number]) * (number + 1) * 10_000 for number in range(4 * THREADS)]
        urls = [serve(f"{number}.bin", body) for number, body in enumerate(bodies)]
        with ThreadPoolExecutor(THREADS) as threads:
            parts = list(threads.map(lambda url: _fetched(fetcher, url, MemoryPart()), urls))
        assert [bytes(part.data) for part in parts] == bodies


def _downloaded(fetcher: BaseFetcher, settings: Settings, file: FileData) -> Path:
    """Download a file as a batch does, and return its path."""
    downloader = Downloader(settings, Workspace(settings.workspace), {urlsplit(file.url).scheme.lower(): fetcher})
    return downloader.get(file, lambda: None).path


def _fetched(fetcher: BaseFetcher, url: str, part: MemoryPart) -> MemoryPart:
    """Download a URL into the part, and return the part after a successful attempt."""
    fetcher.fetch(url, FileData(url=url), part)
    assert part.began_at is not None, "begin() was not called"
    assert part.problems == []
    return part


def _interrupted(fetcher: BaseFetcher, url: str) -> MemoryPart:
    """Return a part whose own error ended the download."""
    part = MemoryPart(stops_after=STOP)
    with pytest.raises(AttemptStopped):
        fetcher.fetch(url, FileData(url=url), part)
    assert part.problems == []
    return part


def _is_refused(fetcher: BaseFetcher, url: str) -> None:
    part = MemoryPart()
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(url, FileData(url=url), part)
    assert not caught.value.retryable, "retryable should be False, because another attempt cannot succeed"
    assert (str(caught.value) != "", caught.value.error_class != "") == (True, True), "FetchError needs a message and an error class"
    assert part.data == b""
