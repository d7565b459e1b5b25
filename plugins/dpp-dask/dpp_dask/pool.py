"""Submit calls to a Dask scheduler, as an executor of ``concurrent.futures``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

import distributed
from dpp import DppError, EnvironmentStop

T = TypeVar("T")

POLL_SECONDS = 0.1


class DaskPool(Executor):
    """Submit calls to a scheduler; while it is away, wait until the client has reached it again.

    Args:
        client: The client, whose ``timeout`` limits how long it tries.
        address: Address of the scheduler, for messages.
        timeout: The client's timeout in seconds, for messages.
    """

    def __init__(self, client: distributed.Client, address: str, timeout: float) -> None:
        self._client = client
        assert client.loop is not None
        self._loop = client.loop
        self._address = address
        self._timeout = timeout

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Submit a call.

        Its future cannot be cancelled, as Dask cannot stop a call in a thread: a chunk ends when dpp says so.

        Raises:
            EnvironmentStop: The scheduler has gone away.
        """
        while self._client.status == "connecting":
            time.sleep(POLL_SECONDS)
        if self._client.status != "running":
            raise self._gone()
        # With pure=True, equal calls would share one result. dpp itself decides what is tried again.
        call = self._client.submit(fn, *args, **kwargs, pure=False, retries=0)
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        self._loop.add_callback(self._pass_on, call, future)
        return future

    async def _pass_on(self, call: distributed.Future[Any], future: Future[Any]) -> None:
        """Wait for the end of a call in the client's event loop, and give it to a future."""
        try:
            future.set_result(await call)
        except distributed.CancelledError:
            future.set_exception(await self._loss())
        except Exception as error:  # noqa: BLE001 - whatever the call has raised on the worker
            future.set_exception(error)

    async def _loss(self) -> Exception:
        """Return why a call was cancelled, once it is known whether the scheduler comes back."""
        while self._client.status == "connecting":  # noqa: ASYNC110 - Dask has no event for it
            await asyncio.sleep(POLL_SECONDS)
        return ConnectionError("the connection to the Dask scheduler was lost") if self._client.status == "running" else self._gone()

    def _gone(self) -> DppError:
        return EnvironmentStop(
            f"the Dask scheduler at {self._address} has gone away, and could not be reached again for {self._timeout:g} s "
            "(reconnect_timeout). Start it, and run the same command again; finished files are kept."
        )
