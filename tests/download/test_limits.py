"""Tests of the limits that all processes of a run share: downloads at once per host, and bytes per second."""

from __future__ import annotations

import multiprocessing
import shutil
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from dpp import ConfigurationError, EnvironmentStop, FileData, Settings
from dpp.download.downloader import Downloader, RunStopped
from dpp.download.limits import BURST_SECONDS, Limits
from dpp.plugins.registry import load_plugins
from dpp.settings import make_settings
from dpp.workspace.layout import Workspace

from http_site import SECONDS, serve_file

SPAWN = multiprocessing.get_context("spawn")
URL = "https://me:pw@h.example:8443/a"


class Crowd:
    """Count the requests that a server handles at once, and their maximum.

    Args:
        enough: Number of requests after which all get a response.
        seconds: Maximum seconds to wait for so many.
    """

    def __init__(self, enough: int, seconds: float) -> None:
        self.now = self.most = 0
        self._enough = enough
        self._seconds = seconds
        self._lock = threading.Lock()
        self._full = threading.Event()

    def reply(self, handler) -> None:
        """Respond once enough requests are waiting, or after a while."""
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
            if self.now >= self._enough:
                self._full.set()
        self._full.wait(self._seconds)
        with self._lock:
            self.now -= 1
        serve_file(handler)


# 12 files get one task per file, 60 are run in chunks.
@pytest.mark.parametrize("files", [12, 60])
@pytest.mark.parametrize(("option", "most"), [((), 4), (("--max-per-host", 3), 3)])
def test_no_more_downloads_at_once_from_a_host_than_allowed(site, manifest, run_batch, files, option, most):
    crowd = Crowd(most + 1, 0.2) if option else Crowd(most, SECONDS)
    urls = [site.add(f"/f{number}", "x") for number in range(files)]
    for number in range(files):
        site.script(f"/f{number}", crowd.reply)
    run = run_batch(manifest([{"url": url} for url in urls]), "--workers", 4, *option)
    assert run.returncode == 0, run.stderr
    assert crowd.most <= most if option else crowd.most >= most


def hold(folder: Path, held, go) -> None:
    with Limits(Settings(max_per_host=1), folder).host(URL):
        held.set()
        go.wait(SECONDS)


def test_a_place_is_free_again_when_its_holder_is_killed(tmp_path):
    held, go = SPAWN.Event(), SPAWN.Event()
    holder = SPAWN.Process(target=hold, args=(tmp_path, held, go))
    holder.start()
    assert held.wait(SECONDS)
    waits = []
    sleep = lambda seconds: (waits.append(seconds), holder.kill(), holder.join())  # noqa: E731
    with Limits(Settings(max_per_host=1), tmp_path).host(URL.replace("/a", "/b").replace("me:pw@", ""), sleep):
        assert waits


def test_a_stop_ends_the_wait_for_a_place(site, tmp_path):
    settings = Settings(max_per_host=1)
    url = site.add("/a", "x")
    with Limits(settings, tmp_path / "run").host(url), closing(load_plugins().fetchers()["http"](settings)) as fetcher:
        downloader = Downloader(settings, Workspace(tmp_path), {"http": fetcher}, limits=Limits(settings, tmp_path / "run"))
        downloader.stop()
        with pytest.raises(RunStopped):
            downloader.get(FileData(url=url), lambda: None)


def test_hosts_do_not_wait_for_one_another(tmp_path):
    limits, sleep = Limits(Settings(max_per_host=1), tmp_path), lambda seconds: pytest.fail("waited")
    with limits.host(URL, sleep), limits.host("https://other.example/a", sleep), limits.host("file:///a", sleep):
        pass


def test_names_of_hosts_are_not_told(tmp_path):
    with Limits(Settings(max_per_host=1), tmp_path / "limits").host(URL):
        assert "example" not in str(list((tmp_path / "limits").iterdir()))


def test_a_place_that_can_not_be_taken_stops_the_run(tmp_path):
    (tmp_path / "limits").write_text("in the way")
    with pytest.raises(EnvironmentStop, match="cannot write"), Limits(Settings(max_per_host=1), tmp_path / "limits").host(URL):
        pass


def test_without_a_rate_nobody_waits():
    assert Limits(Settings(), sleep=lambda seconds: pytest.fail("waited")).throttle(10**12) == 0


@pytest.mark.parametrize("shared", [False, True])
def test_bytes_wait_for_those_before_them(tmp_path, shared):
    waits, began = [], time.monotonic()
    one, other = (Limits(Settings(rate_limit=1000), tmp_path if shared else None, waits.append) for _ in range(2))
    for limits, count, seconds in ((one, int(1000 * BURST_SECONDS), 0), (one, 10_000, 10), (other if shared else one, 1000, 11)):
        wait, passed = limits.throttle(count), time.monotonic() - began
        assert [wait] == waits[-1:] or not seconds
        assert seconds - passed - 1e-6 < wait < seconds + 1e-6


def test_a_torn_note_of_the_rate_is_none(tmp_path):
    (tmp_path / "rate").write_bytes(b"abc")
    assert Limits(Settings(rate_limit=1000), tmp_path, lambda seconds: None).throttle(1000) < 2


def take(folder: Path, times: int) -> None:
    for _ in range(times):
        Limits(Settings(rate_limit=1_000_000), folder).throttle(100_000)


def test_processes_share_one_rate(tmp_path):
    began = time.monotonic()
    takers = [SPAWN.Process(target=take, args=(tmp_path, 5)) for _ in range(2)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    assert time.monotonic() - began >= 1 - BURST_SECONDS


def test_a_batch_keeps_its_rate(site, manifest, run_batch, results):
    entries = [{"url": site.add(f"/f{number}", bytes(150_000))} for number in range(6)]
    began = time.monotonic()
    run = run_batch(manifest(entries), "--rate-limit", "400K", "--attempts", 1, "--workers", 3)
    assert run.returncode == 0, run.stderr
    assert time.monotonic() - began >= 900_000 / (400 * 1024) - BURST_SECONDS
    assert len(results()) == 6


@pytest.mark.parametrize("disabled", ["", "curl"])
def test_waiting_for_the_rate_is_no_stall_and_no_silence(site, tmp_path, monkeypatch, disabled):
    """The clock advances by the waited time, by minutes; the server sends the second half once the first one waits."""
    clock, waits, waited = time.monotonic, [], threading.Event()
    monkeypatch.setattr(time, "monotonic", lambda: clock() + sum(waits))
    monkeypatch.setenv("DPP_DISABLE_PLUGINS", disabled)

    def reply(handler):
        handler.send(200, bytes(1000), Content_Length=2000)
        waited.wait(SECONDS)
        handler.wfile.write(bytes(1000))

    settings = Settings(rate_limit=1, stall_timeout=SECONDS, read_timeout=SECONDS, attempts=1)
    limits = Limits(settings, sleep=lambda seconds: (waits.append(seconds), waited.set()))
    with closing(load_plugins().fetchers()["http"](settings)) as fetcher:
        downloader = Downloader(settings, Workspace(tmp_path), {"http": fetcher}, limits=limits)
        assert downloader.get(FileData(url=site.script("/a", reply)), lambda: None).size == 2000
    assert sum(waits) > 10 * SECONDS


@pytest.mark.parametrize(
    ("given", "count"), [("0", 0), ("500", 500), ("500K", 512_000), ("1.5 MiB", 1_572_864), ("2gb", 2 * 1024**3), (7, 7)]
)
def test_a_rate_may_be_written_with_a_unit(given, count):
    assert make_settings({"rate_limit": given}).rate_limit == count


@pytest.mark.parametrize("given", ["fast", "-5", "5T", "K", "1,5M", "٣"])
def test_a_rate_that_is_none_is_refused(given):
    with pytest.raises(ConfigurationError, match="rate_limit: should be a number of bytes such as 500K"):
        make_settings({"rate_limit": given})


def test_the_limit_of_a_size_is_half_of_the_free_space_at_the_start(tmp_path):
    file, listed = FileData(url=URL), FileData(url=URL, size=10**15)
    settings = Settings(workspace=tmp_path / "w")
    assert 0 < Limits(settings).max_bytes(file) <= shutil.disk_usage(tmp_path).total // 2
    first = Limits(settings, tmp_path / "limits").max_bytes(file)
    (tmp_path / "limits/free").write_text("1000")
    limits = Limits(settings, tmp_path / "limits")
    assert first > limits.max_bytes(file) == 500
    assert limits.max_bytes(listed) is None
    assert Limits(Settings(max_bytes="1K"), tmp_path / "limits").max_bytes(listed) == 1024
