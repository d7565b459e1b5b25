"""Download one file: try its mirrors in order, wait between attempts, and verify the result."""

from __future__ import annotations

import functools
import logging
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from dpp.base import BaseFetcher
from dpp.download import http
from dpp.download.complete import Download, load_download, record_verified, recorded
from dpp.download.limits import Limits
from dpp.download.partial import PartFile
from dpp.errors import DppError, EnvironmentStop, FetchError, StageError
from dpp.logs import FILES
from dpp.models import FileData
from dpp.names import host_of
from dpp.redact import redact_text, redact_url, secrets_of_file
from dpp.settings import Settings
from dpp.workspace.atomic import read_bytes, remove, stops_run, write_atomic
from dpp.workspace.layout import SIDECAR_SUFFIX, DownloadPaths, Workspace
from dpp.workspace.machine import ends_copies

log_of_files = logging.getLogger(FILES)

NO_SLEEP_VARIABLE = "PIPELINE_NO_SLEEP"


def _linked(paths: DownloadPaths, load: Callable[[DownloadPaths], Download | None]) -> Download | None:
    """Link a download of the same URL under another name to this name, and return it; None if there is none that can be loaded."""
    with stops_run(paths.folder):
        others = [name.removesuffix(SIDECAR_SUFFIX) for name in os.listdir(paths.folder) if name.endswith(SIDECAR_SUFFIX)]
    for other in (DownloadPaths(paths.folder, name) for name in others):
        if load(other):
            with stops_run(paths.body):
                remove(paths.body)
                write_atomic(paths.sidecar, read_bytes(other.sidecar))
                _link_or_copy(other.body, paths)
            return load(paths)
    return None


def _link_or_copy(body: str, paths: DownloadPaths) -> None:
    try:
        os.link(body, paths.body)
    # Some file systems have no hard links.
    except OSError:
        shutil.copy2(body, paths.part)
        os.replace(paths.part, paths.body)


class RunStopped(BaseException):
    """End a wait between two attempts because the run ends; the file gets no outcome."""


class Downloader:
    """Download files into a workspace.

    Args:
        settings: The settings, with attempts, waits and limits.
        workspace: The workspace that holds the downloads.
        fetchers: The fetcher for each URL scheme.
        sleep: Called with the seconds to wait, for an attempt, a lock or a host; by default, a wait that :meth:`stop` ends.
        limits: Limits that all processes of the run share.
        on_stop: Called with a URL and the bytes received when the environment stops its download, such as a full disk.
    """

    def __init__(
        self,
        settings: Settings,
        workspace: Workspace,
        fetchers: Mapping[str, BaseFetcher],
        sleep: Callable[[float], None] | None = None,
        limits: Limits | None = None,
        on_stop: Callable[[str, int], None] = lambda _url, _size: None,
    ) -> None:
        self._settings = settings
        self._on_stop = on_stop
        self._workspace = workspace
        self._fetchers = fetchers
        self._stopping = threading.Event()
        self._limits = limits or Limits(settings)
        # Hosts that could not be asked for a version; true if they are not asked again.
        self._unreachable: dict[str, bool] = {}
        self._sleep = sleep or self._pause
        self._retrying = Retrying(
            stop=stop_after_attempt(settings.attempts),
            wait=self._wait,
            retry=retry_if_exception(_can_get_better),
            sleep=self._sleep,
            reraise=True,
        )

    def stop(self) -> None:
        """Abort all waits for an attempt, a lock or a host."""
        self._stopping.set()

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise RunStopped

    def expecting(self, file: FileData) -> FileData:
        """Return a file with the media types that the manifest or else the settings expect."""
        if self._settings.simulate_downloads:
            return file.model_copy(update={"expect_type": None}) if file.expect_type else file
        if file.expect_type or not self._settings.expect_type:
            return file
        return file.model_copy(update={"expect_type": self._settings.expect_type})

    def get(self, file: FileData, count_attempt: Callable[[], None]) -> Download:
        """Return the file's download; fetch it if it does not exist.

        Args:
            file: The file.
            count_attempt: Called before each attempt.

        Raises:
            StageError: The download from the last mirror failed.
            EnvironmentStop: The workspace cannot be written.
        """
        file = self.expecting(file)
        paths = self._workspace.download(file)
        lock = paths.lock(self._sleep)
        with lock as is_empty:
            known = None if is_empty else self._known(paths, file)
            download = known or self._fetched(paths, file, count_attempt, is_empty=is_empty)
            if not self._settings.cleanup:
                return download
            held = replace(download, hold=lock.share())
        if os.path.exists(paths.body):
            return held
        # Another process finished with the file and removed it between the two locks.
        held.release()
        return self.get(file, count_attempt)

    def load(self, paths: DownloadPaths, file: FileData) -> Download | None:
        """Return the download if it is complete and its source has not changed since; else None."""
        known = load_download(paths, self.expecting(file))
        return None if known is None or self.has_changed(file, known.source_version) else known

    def _known(self, paths: DownloadPaths, file: FileData) -> Download | None:
        def load(paths: DownloadPaths) -> Download | None:
            return self.load(paths, file)

        known = load(paths) or _linked(paths, load)
        if known is not None:
            record_verified(paths, known)
        return known

    def has_changed(self, file: FileData, recorded: str | None) -> bool:
        """Whether the source of a file has another version than the recorded one; an unknown version counts as unchanged."""
        if recorded is None:
            return False
        if file.expect_version is not None:
            return recorded != file.expect_version
        current = {version for url in (file.url, *(file.urls or ())) if (version := self._current_version(url, file))}
        return bool(current) and recorded not in current

    def _current_version(self, url: str, file: FileData) -> str | None:
        # A rerun comes here for every complete file, so the URL is split only where that is needed.
        fetcher = self._fetchers.get(url.partition(":")[0].lower())
        if fetcher is None or (self._unreachable and self._unreachable.get(host_of(url))):
            return None
        try:
            with self._limits.host(url, self._sleep), ends_copies():
                return fetcher.source_version(url, file)
        except Exception as error:
            if isinstance(error, DppError) and not isinstance(error, StageError):
                raise
            self._warn_of_unknown(host_of(url), error, secrets_of_file(file))
            return None

    def _warn_of_unknown(self, host: str, error: Exception, secrets: Iterable[str]) -> None:
        """Warn once per host that its files count as unchanged; stop asking a host that does not respond."""
        reason = error if isinstance(error, StageError) else f"{type(error).__name__}: {error}"
        text = redact_text(f"cannot find out whether files of {host} have changed, so they count as unchanged: {reason}", secrets)
        log_of_files.log(logging.DEBUG if host in self._unreachable else logging.WARNING, "%s", text)
        self._unreachable[host] = _can_get_better(error) or self._unreachable.get(host, False)

    def forget(self, file: FileData, download: Download | None) -> None:
        """Remove a file's download, unless another file or process uses it."""
        paths = self._workspace.download(file)
        hold = download.hold if download and download.hold else paths.hold()
        if hold is None:
            return
        try:
            if hold.try_exclusive():
                paths.discard()
        finally:
            hold.release()

    def _fetched(self, paths: DownloadPaths, file: FileData, count_attempt: Callable[[], None], *, is_empty: bool) -> Download:
        if self._settings.simulate_downloads:
            return _simulated(paths, file, count_attempt, self._sleep)
        urls = [file.url, *(file.urls or ())]
        make = functools.partial(
            PartFile,
            paths,
            file.size,
            max_bytes=self._limits.max_bytes(file),
            throttle=self._limits.throttle,
            algorithms=file.digests or (),
            version=file.expect_version,
        )
        for url in urls[:-1]:
            try:
                return self._from(url, make(), file, count_attempt)
            except StageError as error:
                log_of_files.info("%s: %s; trying the next mirror", redact_url(url), error)
        return self._from(urls[-1], make(is_empty=is_empty and len(urls) == 1), file, count_attempt)

    def _from(self, url: str, part: PartFile, file: FileData, count_attempt: Callable[[], None]) -> Download:
        part.open_for(url)
        try:
            self._attempts(lambda: self._attempt(url, file, part, count_attempt))
            sidecar = part.publish(file)
        except EnvironmentStop:
            # The part may be what fills the disk.
            part.discard()
            self._on_stop(file.url, part.size)
            raise
        except BaseException:
            part.suspend()
            raise
        return recorded(part.body, sidecar)

    def _attempts(self, attempt: Callable[[], None]) -> None:
        """Attempt a download until it succeeds or a retry cannot help."""
        # tenacity takes 20 microseconds per call, so it starts only after a failure, and replays that as its first attempt.
        try:
            attempt()
        except FetchError as error:
            first = [error]
            self._retrying(lambda: _raise(first.pop()) if first else attempt())

    def _attempt(self, url: str, file: FileData, part: PartFile, count_attempt: Callable[[], None]) -> None:
        fetcher = self._fetchers.get(scheme := urlsplit(url).scheme.lower())
        if fetcher is None:
            raise FetchError(f"no fetcher for {scheme}: URLs is installed", "unsupported-scheme")
        if self._settings.deny_private and not fetcher.checks_peers:
            raise FetchError(f"{scheme}: URLs are refused, as deny_private is set and their fetcher checks no addresses", "refused")
        with self._limits.host(url, self._sleep), ends_copies():
            count_attempt()
            try:
                fetcher.fetch(url, file, part)
            except (http.RangeRefused, http.PackedFile):
                part.discard()
                fetcher.fetch(url, file, part)

    def _wait(self, state: RetryCallState) -> float:
        """Return the seconds to wait: the server's Retry-After up to a maximum, or exponential backoff with jitter."""
        error = state.outcome.exception() if state.outcome else None
        retry_after = getattr(error, "retry_after", None)
        if retry_after is not None:
            return min(float(retry_after), self._settings.retry_after_max)
        return wait_random_exponential(self._settings.retry_wait, self._settings.retry_wait_max)(state)


def _raise(error: BaseException) -> None:
    raise error


def _can_get_better(error: BaseException) -> bool:
    return isinstance(error, FetchError) and error.retryable


def _simulated(paths: DownloadPaths, file: FileData, count_attempt: Callable[[], None], sleep: Callable[[float], None]) -> Download:
    """Create a placeholder download: a line of text with the file's id."""
    count_attempt()
    if not os.environ.get(NO_SLEEP_VARIABLE):
        sleep(random.uniform(1, 3))  # noqa: S311 - a pause, not a secret
    part = PartFile(paths)
    part.begin()
    part.write(f"simulated download of {file.id}\n".encode())
    sidecar: dict[str, Any] = part.publish(file.model_copy(update={"size": None, "sha256": None, "digests": None}))
    return recorded(part.body, sidecar)
