"""Print tables, aligned on a terminal and tab-separated elsewhere, and text of several paragraphs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence

import click

from dpp.redact import one_line, printable_json

GAP = 2
FOLDED, LAST_FOLDED = 18, 6


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under the names of their columns; on a terminal that is too narrow, print one line per cell."""
    lines = [list(columns), *([one_line(str(cell)) for cell in row] for row in rows)]
    if not sys.stdout.isatty():
        for line in lines:
            click.echo("\t".join(line))
        return
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    least = [*(min(width, FOLDED) for width in widths[:-1]), min(widths[-1], LAST_FOLDED)]
    if sum(least) + GAP * (len(least) - 1) <= _terminal_width():
        _draw(lines, [width > minimum for width, minimum in zip(widths, least, strict=True)])
    else:
        _list(lines)


def print_json(text: str) -> None:
    """Print JSON, with characters escaped that would control a terminal."""
    click.echo(printable_json(text))


def print_text(text: str) -> None:
    """Print paragraphs, wrapped to the width of a terminal."""
    click.echo(click.wrap_text(text, _terminal_width(), preserve_paragraphs=True) if sys.stdout.isatty() else text)


def _terminal_width() -> int:
    return shutil.get_terminal_size().columns


def _draw(lines: Sequence[Sequence[str]], folded: Sequence[bool]) -> None:
    from rich.console import Console  # noqa: PLC0415 - the import takes 60 ms, and completion and most commands do not need it
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column, is_folded in zip(lines[0], folded, strict=True):
        table.add_column(column, overflow="fold", no_wrap=not is_folded)
    for line in lines[1:]:
        table.add_row(*line)
    width, height = shutil.get_terminal_size()
    Console(width=width, height=height, highlight=False, markup=False).print(table)


def _list(lines: Sequence[Sequence[str]]) -> None:
    width = max(map(len, lines[0])) + GAP
    for line in lines[1:]:
        click.echo("\n".join(f"{column:{width}}{cell}" for column, cell in zip(lines[0], line, strict=True) if cell) + "\n")
