"""The base classes of pre-processors, processors, post-processors, fetchers and executors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field

from dpp.models import FileData

if TYPE_CHECKING:
    from concurrent.futures import Executor


class Step(BaseModel, ABC):
    """The base of every step of a pipeline: a name, a version, and fields that are its options.

    Each worker thread creates one object per step, from the options given for its name. It may keep a connection or a
    parser, but no state from one file to the next.

    Attributes:
        name: ClassVar. Name of the step in a batch; defaults to ``module:ClassName``.
        version: ClassVar. Part of the cache key: increase it when the same input gives another output.
        blames_input: ClassVar. Error classes of failures that are caused by the download, such as a truncated archive: a
            later run fetches the file again.
        shared_options: ClassVar. URL schemes whose options this step can use, each with a model of the shared options: if none of
            these is given for the step, all are taken from the scheme. So a connection is described once, and never by a mix of two.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    name: ClassVar[str] = ""
    version: ClassVar[str] = "0"
    blames_input: ClassVar[Collection[str]] = ()
    shared_options: ClassVar[Mapping[str, type[BaseModel]]] = {}

    debug: bool = Field(default=False, exclude=True)
    """Whether the run was started with detailed logs; not part of the cache key."""


class BasePreProcessor(Step):
    """Convert a downloaded file for the processor."""

    @abstractmethod
    def pre_process(self, file: FileData) -> FileData:
        """Return the file, with ``local_path`` set to the output.

        Args:
            file: The file; ``file.local_path`` is the download or the output of the step before, and must
                not be changed. ``file.output_dir`` is an empty folder for the output.

        Returns:
            The same object or another one, whose ``local_path`` is a file or folder in ``output_dir``, or
            unchanged. Returning None fails the file.

        Raises:
            Exception: Any exception fails this file only.
        """


class BaseProcessor(Step):
    """Compute a result from a file."""

    @abstractmethod
    def process(self, file: FileData) -> Any:
        """Return the result for ``file.local_path``.

        It is stored as JSON (RFC 8259): mappings, lists, text, finite numbers, booleans and None. Dates, paths, UUIDs, decimal numbers,
        enumerations, dataclasses, pydantic models, and scalars and arrays of numpy are converted; other values fail the file.

        Raises:
            Exception: Any exception fails this file only.
        """


class BasePostProcessor(Step):
    """Use a result: upload it, store it, or send a message.

    It is called at least once per file, before the file's report is written. After a run that was killed between the two,
    it is called again, so calling it twice should have the same effect as once.
    """

    @abstractmethod
    def post_process(self, result: Any, file: FileData) -> None:
        """Take the result of a file.

        Args:
            result: The processor's result, as read back from JSON; None if the file failed.
            file: The file; ``file.error`` is set if it failed earlier.

        Raises:
            Exception: Any exception fails this file only.
        """


class Part(Protocol):
    """The partial download of one file, which a fetcher writes.

    Attributes:
        offset: Number of bytes of an earlier attempt that the download can continue from.
        etag: The strong entity tag (RFC 9110, section 8.8.3) of these bytes, or None.
        total: Size of the whole file in bytes, as the source announced it with these bytes, or None.
        waited: Seconds that ``write`` has waited for the run's ``rate_limit``; they must not count as silence of the source.
    """

    @property
    def waited(self) -> float:
        """See the class."""

    @property
    def offset(self) -> int:
        """See the class."""

    @property
    def etag(self) -> str | None:
        """See the class."""

    @property
    def total(self) -> int | None:
        """See the class."""

    def begin(self, offset: int = 0, *, total: int | None = None, etag: str | None = None, **facts: Any) -> None:
        """Start writing at an offset; 0 discards the bytes of earlier attempts.

        Args:
            offset: Either 0 or :attr:`offset`.
            total: Size of the whole file in bytes, if the source announces it.
            etag: Its strong entity tag, with quotes; without one the download cannot be continued.
            facts: Further facts for the sidecar: ``source_version`` (see :meth:`BaseFetcher.source_version`), ``content_type``, and others.
        """

    def write(self, data: bytes) -> None:
        """Append bytes."""


class NoOptions(BaseModel):
    """The options of a class without options."""

    model_config = ConfigDict(extra="forbid")


class BaseFetcher(ABC):
    """Fetch files of one or more URL schemes; all threads of a process use the same object.

    Args:
        settings: The settings of the run, with its time limits and the fetcher's options.

    Attributes:
        Options: ClassVar. A pydantic model of its options, which are given under its URL scheme and checked before anything is
            fetched; ``settings.options_for(scheme, Options)`` returns them.
        checks_peers: ClassVar. Whether it calls :func:`dpp.http.check_peer` for each connection if the setting ``deny_private`` is
            set; a fetcher that does not is not called then.
    """

    Options: ClassVar[type[BaseModel]] = NoOptions
    checks_peers: ClassVar[bool] = False

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @abstractmethod
    def fetch(self, url: str, file: FileData, part: Part) -> None:
        """Write the whole content of ``url`` to ``part``, in one attempt.

        dpp retries, tries mirrors, verifies size and digest, and publishes the file.

        Args:
            url: The URL to fetch: the file's own or a mirror.
            file: The file, for ``headers`` and other fields.
            part: The destination of the bytes; call ``begin`` once, then ``write``.

        Raises:
            FetchError: The attempt failed; ``retryable`` states whether another may succeed.
        """

    def source_version(self, url: str, file: FileData) -> str | None:
        """Return the current version of a source, a text that differs if the content may differ: an entity tag, or size and time.

        At a rerun, dpp calls it for each URL of a complete file. If none of the texts is the ``source_version`` that
        :meth:`fetch` passed to ``part.begin``, the file is downloaded and processed again.

        Args:
            url: The URL: the file's own or a mirror.
            file: The file, for facts that a listing put into the manifest and that cost no request.

        Returns:
            The version; None, as by default, if it is unknown or the source does not exist: then the file counts as unchanged.

        Raises:
            FetchError: The source did not respond; the file counts as unchanged, with a warning. If the error is retryable, dpp does
                not ask the same host again in this process.
        """
        return None

    def close(self) -> None:  # noqa: B027 - most fetchers have nothing to close
        """Close connections; called once, when no thread uses the fetcher any more."""


class BaseExecutor(BaseModel, ABC):
    """Run the chunks of a batch somewhere else than in Luigi's workers, such as on other machines.

    Its fields are its options, which are given under its name. They are part of no cache key: any executor, and Luigi's workers, can
    continue what another one has begun.

    Attributes:
        name: ClassVar. Name of the executor for the setting ``executor``.
        configured_only: ClassVar. Options that only a section of luigi.cfg can set, and no ``--options``: what must be the decision of
            the one who operates dpp, such as the class of a cluster.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    name: ClassVar[str]
    configured_only: ClassVar[Collection[str]] = ()

    workers: int = Field(0, ge=0, description="number of chunks at once (0: the number of workers that Luigi was given)")

    def slots(self) -> int:
        """Return the number of chunks that can run at once, which determines how a batch is split; by default :attr:`workers`.

        It is called once, after dpp has replaced a 0 in :attr:`workers`, before the manifest is read.

        Raises:
            InputError: An option is wrong, or the workers of the executor are others than expected (exit code 2).
            EnvironmentStop: The workers cannot be reached (exit code 3).
        """
        return self.workers

    @abstractmethod
    def open(self) -> AbstractContextManager[Executor]:
        """Return a context manager that starts or connects the workers, and releases them at its end.

        It is called in the process that submits the chunks, which may be a fork of the one that called :meth:`slots`. dpp submits one
        function with a folder, a number and a token as its arguments, which can be pickled; each worker must see the workspace at
        the same path. The function starts a process of its own for the chunk, so it may be called in a thread, and it may be called
        for the same chunk twice, at once or one after the other: only one of them runs it. A future that ends with an error
        of another kind than :class:`dpp.DppError`, or never, is submitted again.

        Raises:
            InputError: See :meth:`slots`.
            EnvironmentStop: See :meth:`slots`.
        """
