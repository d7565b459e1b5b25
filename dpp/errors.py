"""The errors of dpp, as one tree.

DppError
├── InputError                what was asked cannot be done as asked: exit code 2
│   ├── ManifestError         problems of a list of files, all of them at once
│   ├── ConfigurationError    a setting, an option, an unknown plugin name
│   └── PluginError           a plugin that is broken, or two of one name
├── EnvironmentStop           the surroundings stop the run: exit code 3
│   └── LockedError           somebody else runs this batch
├── BatchFailed               the batch ended, and some of its files failed: exit code 1
└── StageError                one file failed in one stage; the others go on
    └── FetchError            a download failed; says whether trying again can help
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ERROR_CLASSES = frozenset(
    {
        *("connection", "dns", "timeout", "truncated", "tls", "protocol", "redirect", "encoding", "empty", "size", "checksum"),
        *("unsupported-scheme", "not-found", "permission", "not-a-file", "read", "no-file", "member-name", "result", "crashed", "manifest"),
    }
)
SHOWN_PROBLEMS = 1000
INTERRUPTED = 130
TERMINATED = 143
RESUMABLE_TEXT = "Fix this and run the same command again; finished files are kept."
INTERRUPTED_TEXT = "interrupted; run the same command again to finish the rest"


class DppError(Exception):
    """Base of every error that dpp raises on purpose.

    Attributes:
        exit_code: What the command line exits with when this error ends it.
    """

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it travel from one process to another, whatever its constructor asks for."""
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(cls: type[DppError], args: tuple[Any, ...], state: dict[str, Any]) -> DppError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


class InputError(DppError):
    """Refuse input or configuration; nothing was fetched."""

    exit_code = 2


class ManifestError(InputError):
    """Report every problem of a manifest at once.

    Args:
        source: Where the manifest came from, for the message.
        problems: One sentence a problem, each with its line or index.
        total: How many problems there are, where not all of them were kept.
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
    """Refuse a setting, an option or the name of a plugin."""


class PluginError(InputError):
    """Refuse to run with a plugin that is broken or whose name is taken."""


class EnvironmentStop(DppError):
    """Stop the run because of its surroundings: disk, permissions, a lock."""

    exit_code = 3


class LockedError(EnvironmentStop):
    """Say who runs the same batch at this moment."""


class BatchFailed(DppError):
    """End a batch in which at least one file failed."""


class StageError(DppError):
    """Fail one file.

    Args:
        message: What failed, what was expected and what came, without secrets.
        error_class: A short, stable word to group by, such as ``checksum`` or ``http-404``.
    """

    def __init__(self, message: str, error_class: str) -> None:
        super().__init__(message)
        self.error_class = error_class


class FetchError(StageError):
    """Fail one attempt to download.

    Args:
        message: What failed, without secrets.
        error_class: ``timeout``, ``connection``, ``dns``, ``tls``, ``truncated``, ``protocol``,
            ``encoding``, ``redirect``, ``empty``, ``http-<status>``, or a fetcher's own word.
        retryable: Whether another attempt may succeed.
        http_status: The status code of the answer, where there was one.
        retry_after: Seconds that the server asked to wait (RFC 9110, section 10.2.3).
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
