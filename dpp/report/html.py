"""The report page of a run, ``report.html``: one file for a browser, without network requests.

It contains the rows of ``results.jsonl``, compressed in blocks of 1 MiB that the browser decompresses one by one.
"""

# Rows are compressed while the results are written, into a temporary file: the summary, which comes before them on the page,
# is known only at the end.

from __future__ import annotations

import binascii
import hashlib
import tempfile
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from pydantic_core import to_json

from dpp.redact import printable, redact_text
from dpp.report.charts import Charts, fine_seconds
from dpp.report.info import RunInfo
from dpp.report.summary import Summary, human_bytes
from dpp.settings import default_settings
from dpp.workspace.atomic import stops_run, write_stream
from dpp.workspace.ledger import Record

if TYPE_CHECKING:
    from jinja2 import Template

T = TypeVar("T")

BLOCK = 1024 * 1024
LONGEST_ROW = 16 * 1024
LONGEST_TEXT = 2000
WHOLE_ROWS = 20_000_000
ALL_ROWS = 34_000_000
FAILED_ROWS = 38_000_000
PAGE_GROUPS = 200
_GZIP = 31
_STEPS = ("pre_processors", "processor", "post_processors")
_HERE = "<!-- rows -->"


class Text(NamedTuple):
    """A style sheet or script of the page, and its hash for the Content-Security-Policy."""

    body: str
    source: str


class Page:
    """The report page of a run, as a context manager: add the rows, then write the page.

    Args:
        path: Path of the page.
        info: The description of the run.

    Attributes:
        cut: Number of rows that are shortened on the page.
        left_out: Number of rows that the page does not contain.
        charts: The data of its charts.
    """

    def __init__(self, path: Path, info: RunInfo) -> None:
        self._path = path
        self.cut = 0
        self.left_out = 0
        self.charts = Charts(info.started_at)
        self._info = info
        self._lines: list[bytes] = []
        self._open = ExitStack()
        self._packing: Future[bytes] | None = None
        self._size = 0

    def __enter__(self) -> Self:
        with stops_run(self._path):
            self._rows = self._open.enter_context(tempfile.TemporaryFile(dir=self._path.parent))
        self._packer = self._open.enter_context(ThreadPoolExecutor(1))
        return self

    def __exit__(self, *_: object) -> None:
        # Closing the file writes its buffer.
        with stops_run(self._path):
            self._open.close()

    def take(self, rows: Iterable[Record]) -> Iterator[Record]:
        """Yield the rows, each of a different file, and add them to the page."""
        size, longest = 0, LONGEST_ROW
        for row in rows:
            self.charts.add(row.outcome)
            line = row.line if len(row.line) <= longest else self._carried(row)
            self._lines.append(line)
            size += len(line)
            if size >= BLOCK:
                self._pack()
                size, longest = 0, 0 if self._size > WHOLE_ROWS else LONGEST_ROW
            yield row
        self._pack()
        self._settle()
        self._template = self._beside(_load_template)

    def _carried(self, row: Record) -> bytes:
        """Return the line of a row, shortened if the page becomes large; empty if it is full."""
        # Failed files are kept longer than those that are ok.
        if self._size > (ALL_ROWS if row.outcome.ok else FAILED_ROWS):
            self.left_out += 1
            return b""
        line = _shorten_record(row)
        self.cut += line is not row.line
        return line

    def _pack(self) -> None:
        """Compress the rows in another thread."""
        # zlib releases the interpreter lock, so that the next rows are read at the same time.
        self._settle()
        self.charts.settle()
        lines, self._lines = list(filter(None, self._lines)), []
        self._packing = self._beside(_packed, lines) if lines else None

    def _beside(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call a function in another thread, or here if no thread can be started."""
        try:
            return self._packer.submit(work, *arguments)
        except RuntimeError:
            # While the interpreter shuts down, as after a signal, it starts no threads.
            done: Future[T] = Future()
            done.set_result(work(*arguments))
            return done

    def _settle(self) -> None:
        if self._packing is not None:
            packed, self._packing = self._packing.result(), None
            self._size += len(packed)
            with stops_run(self._path):
                self._rows.write(packed)

    def write(self, summary: Summary, *, ended: bool = True, stopped: str = "") -> None:
        """Write the page.

        Args:
            summary: The summary of the run.
            ended: Whether the run has ended.
            stopped: Why the run was stopped; "" if it was not.

        Raises:
            EnvironmentStop: The page cannot be written.
        """
        head, _, foot = self._rendered(summary, ended=ended, stopped=stopped).partition(_HERE)
        # Seeking writes the buffer of the file.
        with stops_run(self._path):
            self._rows.seek(0)
        write_stream(self._path, chain([head.encode()], iter(lambda: self._rows.read(BLOCK), b""), [foot.encode()]))

    def _rendered(self, summary: Summary, **more: Any) -> str:
        return self._template.result().render(
            summary=summary,
            info=self._info,
            changed=_changed(self._info.settings),
            page=self,
            groups=summary.failures[:PAGE_GROUPS],
            style=_part("report.css"),
            script=_part("report.js"),
            rows=_HERE,
            **more,
        )


def _load_template() -> Template:
    """Load the template of the page."""
    # This takes about 30 ms; a thread does it while the results are written to the disk.
    from jinja2 import Environment, PackageLoader  # noqa: PLC0415 - most processes write no page

    # Optimizing the template takes longer than it saves for one page.
    environment = Environment(
        loader=PackageLoader("dpp"), autoescape=True, trim_blocks=True, lstrip_blocks=True, optimized=False, finalize=_shown
    )
    environment.filters |= {"seconds": fine_seconds, "bytes": human_bytes, "count": "{:,}".format, "moment": _moment}
    return environment.get_template("report.html.j2")


def _shown(value: Any) -> Any:
    """Return a value of the template without characters that HTML does not allow, or that change the writing direction."""
    # Parts of the page itself are marked as safe.
    return printable(value) if type(value) is str else value


def _packed(lines: list[bytes]) -> bytes:
    """Return lines, compressed, as an element of the page."""
    # Browsers do not run a script of this type, and base64 cannot contain the end of the element.
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    packed = packer.compress(b"".join(lines)) + packer.flush()
    return b'<script type="text/plain" data-rows="%d">%s</script>\n' % (len(lines), binascii.b2a_base64(packed, newline=False))


def _shorten_record(row: Record) -> bytes:
    """Return the line of a row without its result, with the start of its message and the end of its traceback."""
    outcome = row.outcome
    changes = {
        "result": None,
        "message": outcome.message and outcome.message[:LONGEST_TEXT],
        "traceback": outcome.traceback and outcome.traceback[-LONGEST_TEXT:],
    }
    short = outcome.model_copy(update=changes)
    return row.line if short == outcome else to_json({**short.model_dump(), "whole": len(row.line)}) + b"\n"


def _part(name: str) -> Text:
    body = (files("dpp") / "templates" / name).read_text(encoding="utf-8")
    return Text(body, f"'sha256-{b64encode(hashlib.sha256(body.encode()).digest()).decode()}'")


def _changed(settings: dict[str, Any]) -> dict[str, str]:
    """Return the settings that differ from their defaults as text, without secrets."""
    # The steps have rows of their own, so they count as defaults here.
    known = {**default_settings().model_dump(mode="json"), **{name: settings.get(name) for name in _STEPS}}
    return {name: _display_setting(value) for name, value in settings.items() if value != known.get(name)}


def _display_setting(value: Any) -> str:
    return redact_text(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _moment(seconds: float) -> str:
    """Return a time in UTC as in RFC 3339, which browsers parse."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
