"""The errors of dpp, as one tree.

DppError
├── InputError                invalid input or configuration: exit code 2
│   ├── ManifestError         all problems of a list of files
│   ├── ConfigurationError    an invalid setting or option, or an unknown plugin
│   └── PluginError           a broken plugin, or two plugins with the same name
├── EnvironmentStop           the environment stops the run: exit code 3
│   └── LockedError           another process runs this batch
├── BatchFailed               the batch ended, and some of its files failed: exit code 1
└── StageError                one file failed in one stage; the others continue
    └── FetchError            a download failed; states whether a retry can help
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

ERROR_CLASSES = frozenset(
    {
        *(
            "connection",
            "dns",
            "timeout",
            "truncated",
            "tls",
            "protocol",
            "redirect",
            "encoding",
            "empty",
            "size",
            "checksum",
            "media-type",
            "too-large",
        ),
        *("unsupported-scheme", "not-found", "permission", "not-a-file", "refused", "read", "changed", "modified"),
        *("no-file", "member-name", "result", "crashed", "manifest"),
    }
)
SHOWN_PROBLEMS = 1000
INTERRUPTED = 130
SIGNAL_EXIT = 128  # a process that a signal ended exits with this plus the signal's number (POSIX shells)
RESUMABLE_TEXT = "Fix this and run the same command again; finished files are kept."
INTERRUPTED_TEXT = "interrupted; run the same command again to continue"


class DppError(Exception):
    """The base of all errors that dpp raises on purpose.

    Attributes:
        exit_code: Exit code of the command line if this error ends it.
    """

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Support pickling, to send the error to another process."""
        # The default calls the constructor with ``args``, which fails for constructors with other parameters.
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(cls: type[DppError], args: tuple[Any, ...], state: dict[str, Any]) -> DppError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


def errors_behind(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, and those that it was raised from or while handling."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


class InputError(DppError):
    """Reject invalid input or configuration; nothing was fetched."""

    exit_code = 2


class ManifestError(InputError):
    """Report all problems of a manifest at once.

    Args:
        source: Name of the manifest in the message.
        problems: One sentence per problem, each with its line or index.
        total: Number of problems, if ``problems`` has only the first ones.
    """

    def __init__(self, source: str, problems: Sequence[str], total: int | None = None) -> None:
        self.source = source
        self.problems = list(problems)
        self.total = len(self.problems) if total is None else total
        super().__init__(self._text())

    def _text(self) -> str:
        noun = "problem" if self.total == 1 else "problems"
        lines = [f"{self.source}: {self.total} {noun}, nothing was fetched:"]
        lines += [f"  {problem}" for problem in self.problems]
        if self.total > len(self.problems):
            lines.append(f"  and {self.total - len(self.problems)} more")
        return "\n".join(lines)


class ConfigurationError(InputError):
    """Reject a setting, an option or the name of a plugin."""


class PluginError(InputError):
    """Reject a plugin that is broken or whose name another plugin has."""


class EnvironmentStop(DppError):
    """Stop the run because of its environment: a full disk, missing permissions, a lock.

    Attributes:
        denied: Path in the workspace that this process was not permitted to write; "" if the reason is another one.
    """

    exit_code = 3
    denied = ""


class LockedError(EnvironmentStop):
    """Report that another process runs the same batch."""


class BatchFailed(DppError):
    """End a batch in which at least one file failed."""


class StageError(DppError):
    """Fail one file.

    Args:
        message: What failed, what was expected and what was found, without secrets.
        error_class: A short, stable word for grouping failures, such as ``checksum`` or ``http-404``.
    """

    def __init__(self, message: str, error_class: str) -> None:
        super().__init__(message)
        self.error_class = error_class


class FetchError(StageError):
    """Fail one download attempt.

    Args:
        message: What failed, without secrets.
        error_class: ``timeout``, ``connection``, ``dns``, ``tls``, ``truncated``, ``protocol``,
            ``encoding``, ``redirect``, ``empty``, ``http-<status>``, or a word of the fetcher's own.
        retryable: Whether another attempt may succeed.
        http_status: Status code of the response, or None.
        retry_after: Seconds to wait before the next attempt, from the server's Retry-After (RFC 9110, section 10.2.3), or None.
    """

    def __init__(
        self,
        message: str,
        error_class: str,
        *,
        retryable: bool = False,
        http_status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, error_class)
        self.retryable = retryable
        self.http_status = http_status
        self.retry_after = retry_after
