"""The executor and its options."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from dpp import BaseExecutor
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from dpp_dask.address import is_loopback, is_tls, parse_address


class TlsFiles(BaseModel):
    """The files, in PEM format, by which this process and the scheduler recognize each other; see Dask's documentation of TLS.

    Attributes:
        ca_file: Certificate of the authority that has signed the certificates of the scheduler, the workers and the clients.
        cert_file: Certificate of this client.
        key_file: Private key of that certificate.
    """

    model_config = ConfigDict(extra="forbid")

    ca_file: Path
    cert_file: Path
    key_file: Path

    @field_validator("*")
    @classmethod
    def _is_file(cls, path: Path) -> Path:
        path = path.expanduser()
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        return path


class DaskExecutor(BaseExecutor):
    """Run the chunks of a batch on Dask workers; without an address or a cluster, on workers that dpp starts on this machine."""

    name: ClassVar[str] = "dask"
    configured_only: ClassVar[Collection[str]] = ("cluster", "cluster_options")

    address: str = Field(
        "", description="address of a running scheduler, such as tcp://127.0.0.1:8786 (empty: start workers on this machine)"
    )
    cluster: str = Field(
        "", description="class that starts a cluster, such as dask_jobqueue.SLURMCluster; can be set only in luigi.cfg", max_length=200
    )
    cluster_options: dict[str, Any] = Field(
        default_factory=dict, description="arguments of that class, as JSON; can be set only in luigi.cfg"
    )
    security: TlsFiles | None = Field(None, description='files for TLS, as JSON: {"ca_file": ..., "cert_file": ..., "key_file": ...}')
    allow_insecure: bool = Field(
        default=False, description="use a scheduler on another machine without TLS: whoever can reach it can run programs as you"
    )
    connect_timeout: float = Field(10.0, gt=0, description="maximum seconds to reach the scheduler at the start")
    worker_timeout: float = Field(60.0, gt=0, description="maximum seconds until the first worker has joined")
    reconnect_timeout: float = Field(60.0, gt=0, description="maximum seconds to reach a scheduler again that has gone away")

    _given_workers: int = PrivateAttr(0)

    @field_validator("address")
    @classmethod
    def _address_is_valid(cls, address: str) -> str:
        return parse_address(address) if address else ""

    @model_validator(mode="after")
    def _options_fit_together(self) -> DaskExecutor:
        if self.address and self.cluster:
            raise ValueError("address and cluster exclude each other: give the one of a running scheduler, or the class that starts one")
        if self.security and not (self.address or self.cluster):
            raise ValueError("security needs an address or a cluster; workers that dpp starts on this machine use TLS by themselves")
        if self.security and self.address and not is_tls(self.address):
            raise ValueError("security needs an address that begins with tls://")
        if self.cluster_options and not self.cluster:
            raise ValueError("cluster_options needs cluster")
        if self.address:
            self.check_encrypted(self.address)
        return self

    def check_encrypted(self, address: str) -> None:
        """Check that a scheduler on another machine is reached by TLS.

        Args:
            address: Address of the scheduler.

        Raises:
            ValueError: It is not, and ``allow_insecure`` is not set.
        """
        if not (is_tls(address) or is_loopback(address) or self.allow_insecure):
            raise ValueError(
                f"the Dask scheduler at {address} is on another machine and without TLS, so whoever can reach it can run programs as "
                "you. Start it with TLS and set security, or set allow_insecure if the network keeps others away"
            )

    def model_post_init(self, _context: Any) -> None:
        """Keep the number of workers that the options have: dpp replaces a 0."""
        self._given_workers = self.workers

    def slots(self) -> int:
        """Return the number of chunks at once: ``workers``, or with an address and without ``workers``, the workers' threads."""
        if not self.address or self._given_workers:
            return self.workers
        from dpp_dask.connecting import count_threads  # noqa: PLC0415 - imports distributed

        return count_threads(self)

    def open(self) -> AbstractContextManager[Executor]:
        """Start or connect the workers, check their versions, and return what submits to them."""
        from dpp_dask.connecting import opened  # noqa: PLC0415 - imports distributed

        return opened(self)
