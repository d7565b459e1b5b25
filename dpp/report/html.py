"""The page of a run, ``report.html``: one file for a browser, which needs nothing else and asks for nothing.

Its rows are those of ``results.jsonl``, packed in blocks of a mebibyte that the browser unpacks one by one. They are packed while
the results are written, and kept in a file without a name until the summary is known, which stands above them.
"""

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

from dpp.redact import redact_text
from dpp.report.charts import Charts, fine_seconds
from dpp.report.info import RunInfo
from dpp.report.summary import Summary, human_bytes
from dpp.settings import Settings
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
    """A style sheet or script of the page, and what its policy calls it."""

    body: str
    source: str


class Page:
    """Take in a run's rows, then write its page; within a ``with`` block.

    Args:
        path: Where the page is to lie.
        info: How the run was asked for.

    Attributes:
        cut: Rows that the page has without what is long in them.
        left_out: Rows that the page has not.
        charts: What its charts are made from.
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
        with stops_run(self._path):  # closing writes what is buffered
            self._open.close()

    def take(self, rows: Iterable[Record]) -> Iterator[Record]:
        """Take in rows, each of another file, while passing them on."""
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
        """Return a row without what is long, or nothing where the page is full."""
        if self._size > (ALL_ROWS if row.outcome.ok else FAILED_ROWS):
            self.left_out += 1
            return b""
        line = _shorten_record(row)
        self.cut += line is not row.line
        return line

    def _pack(self) -> None:
        """Have another thread pack a block: zlib lets go of the interpreter, so that the next block can be read meanwhile."""
        self._settle()
        self.charts.settle()
        lines, self._lines = list(filter(None, self._lines)), []
        self._packing = self._beside(_packed, lines) if lines else None

    def _beside(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Let another thread do something, or do it here and now: while the interpreter ends, as after a signal, it starts no thread."""
        try:
            return self._packer.submit(work, *arguments)
        except RuntimeError:
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
            summary: What became of the run.
            ended: Whether it has ended.
            stopped: Why it was stopped, where it was.

        Raises:
            EnvironmentStop: It can't be written.
        """
        head, _, foot = self._rendered(summary, ended=ended, stopped=stopped).partition(_HERE)
        with stops_run(self._path):  # seeking writes what is buffered
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
    """Load the template, which takes some 30 ms: beside others, as it is done while results are on their way to the disk."""
    from jinja2 import Environment, PackageLoader  # noqa: PLC0415 - most processes write no page

    environment = Environment(  # not optimized: that takes longer than it saves on one page
        loader=PackageLoader("dpp"), autoescape=True, trim_blocks=True, lstrip_blocks=True, optimized=False
    )
    environment.filters |= {"seconds": fine_seconds, "bytes": human_bytes, "count": "{:,}".format, "moment": _moment}
    return environment.get_template("report.html.j2")


def _packed(lines: list[bytes]) -> bytes:
    """Return lines as an element that no browser runs, and whose letters (base64) end no element."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    packed = packer.compress(b"".join(lines)) + packer.flush()
    return b'<script type="text/plain" data-rows="%d">%s</script>\n' % (len(lines), binascii.b2a_base64(packed, newline=False))


def _shorten_record(row: Record) -> bytes:
    """Return a row without its result, and the beginning of its message and the end of its traceback."""
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
    """Return the settings that are not the defaults, without secrets, as people write them; steps are told of by themselves."""
    known = {**Settings().model_dump(mode="json"), **{name: settings.get(name) for name in _STEPS}}
    return {name: _display_setting(value) for name, value in settings.items() if value != known.get(name)}


def _display_setting(value: Any) -> str:
    return redact_text(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _moment(seconds: float) -> str:
    """Return a moment in UTC as RFC 3339 has it, which browsers read."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
