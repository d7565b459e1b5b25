"""The base classes of pre-processors, processors, post-processors and fetchers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict, Field

from dpp.models import FileData


class Step(BaseModel, ABC):
    """What every step of a pipeline has: a name, a version, and its fields as options.

    A step is made once a worker thread from the options given for its name, so it may keep a
    connection or a parser, but it must not carry anything over from one file to the next.

    Attributes:
        name: ClassVar. How a batch asks for it; defaults to ``module:ClassName``.
        version: ClassVar. Part of the cache key: raise it when the same input gives another output.
        blames_input: ClassVar. Error classes of its failures for which what was downloaded is at fault, such as an archive
            that is cut: a later run fetches the file anew.
        shared_options: ClassVar. URL schemes whose options do for this step as well, each with a model that says which: where none of
            these is given for the step, all are taken from the scheme's. So a connection is described once, and none is mixed of two.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, use_attribute_docstrings=True)

    name: ClassVar[str] = ""
    version: ClassVar[str] = "0"
    blames_input: ClassVar[Collection[str]] = ()
    shared_options: ClassVar[Mapping[str, type[BaseModel]]] = {}

    debug: bool = Field(default=False, exclude=True)
    """Whether the run was started with detailed logs; not part of the cache key."""


class BasePreProcessor(Step):
    """Turn a downloaded file into what the processor wants."""

    @abstractmethod
    def pre_process(self, file: FileData) -> FileData:
        """Return the file, with ``local_path`` on what was made.

        Args:
            file: The file; ``file.local_path`` is the download or what the step before made, and must
                not be changed. ``file.output_dir`` is an empty folder to write into.

        Returns:
            The same object or another, with ``local_path`` on a file or folder in ``output_dir``, or
            unchanged. Returning None fails the file.

        Raises:
            Exception: Whatever is raised fails this file, and no other.
        """


class BaseProcessor(Step):
    """Work a result out of a file."""

    @abstractmethod
    def process(self, file: FileData) -> Any:
        """Return the result for ``file.local_path``, as something that JSON can hold.

        Raises:
            Exception: Whatever is raised fails this file, and no other.
        """


class BasePostProcessor(Step):
    """Do something with a result: upload it, store it, tell somebody.

    Called at least once a file, before the file's report is written; a run that is killed in between
    calls it again. So it should be able to do the same thing twice.
    """

    @abstractmethod
    def post_process(self, result: Any, file: FileData) -> None:
        """Take the result of a file.

        Args:
            result: What the processor returned, after a trip through JSON; None where the file failed.
            file: The file; ``file.error`` is set where it failed earlier.

        Raises:
            Exception: Whatever is raised fails this file, and no other.
        """


class Part(Protocol):
    """Where a fetcher writes to: the partial download of one file.

    Attributes:
        offset: How many bytes are there already that the source can be asked to continue from.
        etag: The strong entity tag (RFC 9110, section 8.8.3) of those bytes, if known.
        total: How many bytes the whole file has, as the source said with those bytes, if it did.
        waited: Seconds that ``write`` has waited for the run's ``rate_limit``, which no source is to blame for.
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
        """Start writing at an offset: 0 throws away what is there.

        Args:
            offset: Either 0 or :attr:`offset`.
            total: Size of the whole file in bytes, where the source says it.
            etag: Its strong entity tag, with quotes; without one the download can't be continued.
            facts: What else the source says and a sidecar should keep (``content_type``, ``last_modified``).
        """

    def write(self, data: bytes) -> None:
        """Append bytes."""


class NoOptions(BaseModel):
    """The options of what takes none."""

    model_config = ConfigDict(extra="forbid")


class BaseFetcher(ABC):
    """Fetch files of one or more URL schemes. One object serves all threads of a process.

    Args:
        settings: The settings of the run, such as its time limits, and the fetcher's options.

    Attributes:
        Options: ClassVar. A pydantic model of its options, which stand under its URL scheme and are checked before anything is
            fetched; ``settings.options_for(scheme, Options)`` returns them.
    """

    Options: ClassVar[type[BaseModel]] = NoOptions

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @abstractmethod
    def fetch(self, url: str, file: FileData, part: Part) -> None:
        """Write the whole of ``url`` into ``part``, in one attempt.

        dpp retries, goes on to mirrors, verifies size and digest, and publishes the file.

        Args:
            url: The URL to fetch: the file's own or a mirror.
            file: The file, for ``headers`` and other fields.
            part: Takes the bytes; call ``begin`` once, then ``write``.

        Raises:
            FetchError: The attempt failed; ``retryable`` says whether another may succeed.
        """

    def close(self) -> None:  # noqa: B027 - most fetchers have nothing to close
        """Let go of connections; called once, when no thread uses the fetcher any more."""
