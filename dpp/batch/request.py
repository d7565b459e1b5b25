"""The user's request for a run, recorded without secrets so that it can be repeated."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpp._version import __version__
from dpp.manifest.readers import Files, describe_source, is_source
from dpp.plugins.steps import Steps
from dpp.redact import public_options, redact_url
from dpp.report.info import RunInfo
from dpp.selection import Selection
from dpp.settings import Settings


@dataclass(frozen=True)
class Request:
    """The request for a run, apart from its files and settings.

    Attributes:
        name: Name of the batch; the manifest's name if empty.
        options: Plugin options as given by the user, without those of plugins' sections in luigi.cfg.
        selection: Which failures are tried again; None for all.
    """

    name: str = ""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    selection: Selection | None = None

    def info(self, files: Files, settings: Settings, steps: Steps) -> RunInfo:
        """Return the contents of ``run.json`` as far as they are known before the run starts."""
        secret = {name for step in steps for name in step.secret_options()}
        options, withheld = public_options(self.options, secret)
        place = redact_url(settings.skip_existing)
        return RunInfo(
            files=describe_source(files),
            dpp=__version__,
            plugins=steps.described(),
            fingerprints=list(steps.fingerprints()),
            name=self.name,
            source=_source(files),
            settings=settings.model_dump(mode="json", exclude={"options", "headers", "quiet", "json_lines"}) | {"skip_existing": place},
            options=options,
            withheld=[
                *withheld,
                *(["skip_existing"] if place != settings.skip_existing else []),
                *(["headers"] if settings.headers else []),
            ],
            selection=self.selection,
        )


def _source(files: Files) -> str:
    """Return the path or URL of a manifest for a later run in another folder; "" if there is none, or if it contains a secret."""
    if not isinstance(files, (str, Path)):
        return ""
    if is_source(files):
        return str(files) if redact_url(str(files)) == files else ""
    path = Path(os.path.realpath(files))
    is_pipe = path.is_relative_to("/proc") or (os.path.exists(path) and not path.is_file() and not path.is_dir())
    return "" if is_pipe or not _is_text(str(path)) else str(path)


def _is_text(path: str) -> bool:
    return path.encode("utf-8", "ignore").decode() == path
