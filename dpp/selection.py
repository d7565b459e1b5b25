"""Select the failures of a batch that a run tries again."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from dpp.errors import ERROR_CLASSES, ConfigurationError
from dpp.models import Outcome, Stage
from dpp.names import suggestion

GONE = ("http-404", "http-410")
_HTTP = re.compile(r"http-[1-5](\d\d|xx)")


class Selection(BaseModel):
    """The failures that are tried again; other files keep their outcome. An empty field matches everything.

    Attributes:
        classes: Error classes; ``http-5xx`` stands for ``http-500`` to ``http-599``.
        stages: Stages that failed.
        hosts: Hosts of the files' URLs.
        everything: Whether ``http-404`` and ``http-410`` are tried again as well if ``classes`` is empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    everything: bool = False

    def picks(self, outcome: Outcome) -> bool:
        """Whether a file with this outcome is tried again."""
        return (
            not outcome.ok
            and self._has_class(outcome.error_class or "")
            and (not self.stages or outcome.stage in self.stages)
            and (not self.hosts or outcome_host(outcome) in self.hosts)
        )

    def _has_class(self, error_class: str) -> bool:
        if not self.classes:
            return self.everything or error_class not in GONE
        return error_class in self.classes or (error_class[:6] + "xx" in self.classes and _HTTP.fullmatch(error_class) is not None)

    def check(self, classes: Collection[str], hosts: Collection[str]) -> None:
        """Check that all classes, stages and hosts are known.

        Args:
            classes: Error classes of the batch.
            hosts: Hosts of the files that failed.

        Raises:
            ConfigurationError: A class, stage or host is unknown; it lists all of them.
        """
        unknown_class = [word for word in self.classes if word not in {*ERROR_CLASSES, *classes} and not _HTTP.fullmatch(word)]
        problems = [
            *_unknown("unknown error class", unknown_class, {*ERROR_CLASSES, *classes, "http-5xx"}),
            *_unknown("unknown stage", [word for word in self.stages if word not in get_args(Stage)], get_args(Stage)),
            *_unknown("no failed file from host", [word for word in self.hosts if word not in hosts], hosts),
        ]
        if problems:
            raise ConfigurationError("\n".join(problems))


def _unknown(what: str, words: Iterable[str], known: Collection[str]) -> list[str]:
    return [f"{what} {word!r}; {suggestion(word, known)}" for word in words]


def outcome_host(outcome: Outcome) -> str:
    """Return the host of a file's URL, in lower case; "" if it has none."""
    try:
        return urlsplit(outcome.url).hostname or ""
    except ValueError:
        return ""
