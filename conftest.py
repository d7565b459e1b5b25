"""Fixtures of this repository: a server, a clean environment, an installed plugin. Those that run batches are of dpp.testing."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from dpp import logs, redact
from dpp.cli import main
from hypothesis import HealthCheck, settings
from luigi.task_register import Register

import http_site
from launcher import Completed, Launcher

pytest_plugins = ["dpp.testing", "pytester", "fault_table"]

LENIENT = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]  # a machine may be busy; an example writes its files anew
settings.register_profile("suite", derandomize=True, deadline=None, suppress_health_check=LENIENT)
settings.register_profile("long", max_examples=20_000, deadline=None, suppress_health_check=LENIENT)  # pytest --hypothesis-profile=long
settings.load_profile("suite")

SLOW_SECONDS = 900
SERVERS = {"dpp-gpg", "dpp-s3", "dpp-sftp"}  # plugins whose tests share a server or a keyring
LAUNCHED = ("dpp", "download-pipeline-processor", "luigi", "luigi-deps-tree")
LOOPBACK = ("127.", "::1", "localhost")


def near(connect: Callable[..., Any]) -> Callable[..., Any]:
    """Return a socket's way to connect that fails a test which reaches beyond loopback.

    An audit hook would see more, and lose threads: while one in Python runs, other threads do too, and where coverage traces a new one
    just then, CPython 3.11 refuses its tracer, so that it ends before it begins.
    """

    @functools.wraps(connect)
    def checked(self: socket.socket, address: Any) -> Any:
        if isinstance(address, tuple) and not str(address[0]).startswith(LOOPBACK):
            pytest.fail(f"a test connects to {address}")
        return connect(self, address)

    return checked


for method in ("connect", "connect_ex"):
    setattr(socket.socket, method, near(getattr(socket.socket, method)))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a shell's background ignores it, and with it what tests start


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests more time, and keep tests that share a server in one process, so that it starts once."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))
        for plugin in SERVERS.intersection(item.path.parts):
            item.add_marker(pytest.mark.xdist_group(plugin))


OF_THE_MACHINE = (
    *("CACHE_DIR", "DPP_WORKSPACE", "PIPELINE_NO_SLEEP", "DPP_DISABLE_PLUGINS", "LUIGI_CONFIG_PATH"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NETRC"),
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"),
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep proxies, caches and switches of the machine out of the tests, and their files in tmp_path."""
    for name in OF_THE_MACHINE:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def clean_modules(tmp_path: Path) -> Iterator[None]:
    """Forget the modules that lie in the folder of a test: those of the next one have the same names."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(f"{tmp_path}/"):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def clean_tasks() -> Iterator[None]:
    """Let Luigi forget the tasks of a test, which it would hand out again to one that asks for the same."""
    yield
    Register.clear_instance_cache()


@pytest.fixture(autouse=True)
def clean_logging() -> Iterator[None]:
    """Take away what a test's run left behind: log handlers, a level, a note that why it stopped was said, secrets to be masked."""
    secrets = set(redact._declared)
    yield
    logger = logging.getLogger("dpp")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
    logs._RunLog.stop = None
    redact._declared.intersection_update(secrets)


@pytest.fixture(autouse=True)
def clean_signals() -> Iterator[None]:
    """Give signals back that a test's run still watches, as Luigi's workers ended it, not this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)}
    # A shell lets programs in the background ignore these, and nohup(1) the hang-up; processes that a test starts would inherit it.
    for number in before:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def site() -> Iterator[http_site.Site]:
    """A server on loopback."""
    with http_site.serving() as served:
        yield served


@pytest.fixture
def fetcher(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The fetcher of http: the built-in one, or dpp-curl where a test is parametrized with it."""
    name: str = getattr(request, "param", "requests")
    if name == "requests":
        monkeypatch.setenv("DPP_DISABLE_PLUGINS", "curl")
    return name


@pytest.fixture
def dpp(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[Any, str, str]]:
    """Run ``dpp`` in this process; return exit code, output and errors."""

    def run(*arguments: object) -> tuple[Any, str, str]:
        code: Any = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    """What starts programs without importing their modules once more."""
    made = Launcher()
    yield made
    made.close()


@pytest.fixture
def command(
    command: Callable[..., Completed], launcher: Launcher, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[..., Completed]:
    """Run a program in ``tmp_path`` as :func:`dpp.testing.command` does; those of dpp and Luigi are forked from the launcher."""
    if request.node.get_closest_marker("cold"):
        return command

    def run(name: str, *arguments: object, timeout: float = 300, **environment: str) -> Completed:
        if name not in LAUNCHED:
            return command(name, *arguments, timeout=timeout, **environment)
        script = str(Path(sys.executable).with_name(name))
        return launcher.run([script, *map(str, arguments)], tmp_path, {**os.environ, **environment}, timeout)

    return run


@pytest.fixture
def install(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a plugin: a module and the metadata of its distribution, as pip would leave them.

    The module begins with the ``HEADER`` of the test's own module.
    """
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)

    def write(name: str, source: str, module: str = "") -> None:
        (site / f"{name}_plugin.py").write_text(request.module.HEADER + dedent(source))
        info = site / f"dpp_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dpp-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[dpp]\n{name} = {module or f'{name}_plugin'}\n")
        importlib.invalidate_caches()

    return write
