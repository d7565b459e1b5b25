"""Reach or start a scheduler and its workers, and check them."""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

import dask.config
import distributed
from distributed.core import rpc
from dpp import ConfigurationError, EnvironmentStop

from dpp_dask.pool import POLL_SECONDS, DaskPool
from dpp_dask.quiet import SILENT, quiet
from dpp_dask.versions import Installed, check_versions, installed

if TYPE_CHECKING:
    from dpp_dask.executor import DaskExecutor

ALLOWED_FAILURES = 50  # lost workers after which Dask gives up a call; by default, four lost workers fail it with KilledWorker
CLOSE_SECONDS = 10.0
_CONFIG = {
    # What Dask does while nothing happens took 60 ms of processor time per second, and with these settings 10 ms
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    # Steps see the same variables as in Luigi's workers: Dask sets OMP_NUM_THREADS=1
    "distributed.nanny.pre-spawn-environ": {},
}


def count_threads(options: DaskExecutor) -> int:
    """Return the number of threads of a scheduler's workers, at least one of which has joined it.

    Raises:
        EnvironmentStop: The scheduler cannot be reached, or has no workers.
    """
    # Without a client, which has threads: Luigi forks this process.
    with quiet():
        return asyncio.run(_threads(options, make_security(options)))


async def _threads(options: DaskExecutor, security: distributed.Security) -> int:
    end = time.monotonic() + options.worker_timeout
    while not (threads := (await _identity(options, security))["total_threads"]):
        if time.monotonic() > end:
            raise _no_worker(options, options.address)
        await asyncio.sleep(POLL_SECONDS)
    return int(threads)


async def _identity(options: DaskExecutor, security: distributed.Security) -> Mapping[str, Any]:
    """Return what a scheduler says about itself and its workers."""
    try:
        connection = security.get_connection_args("client")
        async with rpc(options.address, timeout=options.connect_timeout, connection_args=connection) as scheduler:
            return await asyncio.wait_for(scheduler.identity(n_workers=0), options.connect_timeout)
    except (OSError, TimeoutError) as error:
        raise _unreachable(options) from error
    except RuntimeError as error:  # as Dask's own configuration requires encryption
        raise ConfigurationError(f"options of dask: {error}") from error


def _unreachable(options: DaskExecutor) -> EnvironmentStop:
    return EnvironmentStop(
        f"cannot reach the Dask scheduler at {options.address} within {options.connect_timeout:g} s (connect_timeout); is it running, "
        "and does it use TLS if and only if its address begins with tls://?"
    )


def _no_worker(options: DaskExecutor, address: str) -> EnvironmentStop:
    return EnvironmentStop(
        f"no worker has joined the Dask scheduler at {address} within {options.worker_timeout:g} s (worker_timeout); "
        f"start one with: dask worker {address}"
    )


def make_security(options: DaskExecutor) -> distributed.Security:
    """Return Dask's settings of TLS: those of the options, or else those of Dask's own configuration.

    Raises:
        ConfigurationError: The files are none of TLS, or there are none for an address that needs them.
    """
    files: dict[str, str] = {}
    if given := options.security:
        files["tls_ca_file"] = str(given.ca_file)
        # A cluster that dpp starts has schedulers and workers, too.
        for role in ("client", "scheduler", "worker"):
            files |= {f"tls_{role}_cert": str(given.cert_file), f"tls_{role}_key": str(given.key_file)}
    security = distributed.Security(**files)
    try:
        context = security.get_connection_args("client")["ssl_context"]
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(f"options of dask: cannot use the files of security: {error}") from error
    if options.address.startswith("tls://") and context is None:
        raise ConfigurationError(f"options of dask: {options.address} needs security: ca_file, cert_file and key_file")
    return security


@contextmanager
def opened(options: DaskExecutor) -> Iterator[DaskPool]:
    """Start or connect the workers that the options describe, check their versions, and release them at the end.

    Raises:
        ConfigurationError: The cluster's class cannot be used, or the workers have other versions.
        EnvironmentStop: The scheduler cannot be reached, or no worker has joined.
    """
    with quiet(), dask.config.set(_CONFIG), ExitStack() as stack:
        security = make_security(options)
        if options.address:
            asyncio.run(_identity(options, security))
            address = options.address
        else:
            cluster = stack.enter_context(_cluster(options, security))
            address, security = cluster.scheduler_address, cluster.security
        client = stack.enter_context(_client(address, security, options))
        try:
            client.wait_for_workers(1, options.worker_timeout)
        except TimeoutError as error:
            raise _no_worker(options, address) from error
        _check_workers(client)
        yield DaskPool(client, address, options.reconnect_timeout)


@contextmanager
def _client(address: str, security: distributed.Security, options: DaskExecutor) -> Iterator[distributed.Client]:
    try:
        client = distributed.Client(address, security=security, timeout=options.reconnect_timeout, set_as_default=False, name="dpp")
    except OSError as error:
        raise _unreachable(options) from error
    try:
        yield client
    finally:
        # The scheduler may be gone.
        with suppress(OSError, TimeoutError):
            client.close(CLOSE_SECONDS)


def _check_workers(client: distributed.Client) -> None:
    answers = client.run(installed, on_error="return")
    for address, answer in answers.items():
        # A worker that has ended meanwhile is no problem: its answer is an OSError.
        if isinstance(answer, Exception) and not isinstance(answer, OSError):
            raise ConfigurationError(
                f"the Dask worker at {address} cannot import what it needs: {answer}; install dpp, dpp-dask and the batch's plugins there"
            )
    check_versions(installed(), [answer for answer in answers.values() if isinstance(answer, Installed)])


@contextmanager
def _cluster(options: DaskExecutor, security: distributed.Security) -> Iterator[Any]:
    """Start a cluster: of the class that the options name, or workers on this machine."""
    with ExitStack() as stack:
        if options.cluster:
            cluster = stack.enter_context(closing(_configured(options, security)))
            try:
                options.check_encrypted(cluster.scheduler_address)
            except ValueError as error:
                raise ConfigurationError(f"options of dask: {error}") from error
        else:
            stack.enter_context(_main_not_imported())
            cluster = stack.enter_context(closing(_local(options.workers)))
        yield cluster


def _local(workers: int) -> distributed.LocalCluster:
    """Start one worker process with a thread per chunk: the threads only wait for the processes that run the chunks."""
    return distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=workers,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=0,  # of the worker process only, which does not have the chunks
        security=distributed.Security.temporary(),  # other users of this machine can reach its loopback
        silence_logs=SILENT,
        scheduler_kwargs={"allowed_failures": ALLOWED_FAILURES},
        preload=["dpp_dask.preload"],
    )


@contextmanager
def _main_not_imported() -> Iterator[None]:
    """Let worker processes start without importing this program's main module.

    They would import Luigi and dpp's command line, which takes longer than everything else, and run a script without
    ``if __name__ == "__main__"`` a second time.
    """
    main = sys.modules["__main__"]
    own = getattr(main, "__spec__", None)
    # multiprocessing.spawn does not import a module of this name, as it has no effect that is wanted twice.
    main.__spec__ = ModuleSpec("dpp_dask.__main__", None)
    try:
        yield
    finally:
        main.__spec__ = own


def _configured(options: DaskExecutor, security: distributed.Security) -> Any:
    """Start a cluster of the class that the options name, with as many threads as chunks at once."""
    given = dict(options.cluster_options)
    if options.security:
        given.setdefault("security", security)
    try:
        cluster = _cluster_class(options.cluster)(**given)
        if "n_workers" not in given:
            _scale(cluster, options.workers)
    except Exception as error:
        raise ConfigurationError(
            f"options of dask: cannot start {options.cluster}: {type(error).__name__}: {error}; check cluster and cluster_options in "
            "section [dask] of luigi.cfg"
        ) from error
    return cluster


def _cluster_class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module or name), name)


def _scale(cluster: Any, threads: int) -> None:
    """Ask a cluster for workers that have so many threads together."""
    if isinstance(cluster, distributed.SpecCluster):
        cluster.scale(cores=threads)
    else:
        cluster.scale(threads)
