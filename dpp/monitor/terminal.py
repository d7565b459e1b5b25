"""The live view: the state of a run as lines for a terminal of any size."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dpp.monitor.state import State
from dpp.redact import one_line
from dpp.report.summary import human_bytes, human_seconds

WIDEST = 110
SHORTEST_BAR = 10
SHOWN = 3
COLUMN_GAP = 2
WIDE = 56


def frame(state: State, stream: TextIO, width: int, height: int) -> list[str]:
    """Return the lines that show a state, with the control sequences of the terminal.

    Args:
        state: The state.
        stream: The terminal, which determines colors and encoding.
        width: Number of columns.
        height: Number of rows; lines that do not fit are omitted from the end.
    """
    # The last column stays free, as some terminals wrap a line that fills it.
    columns = max(1, min(width - 1, WIDEST))
    console = Console(file=stream, force_terminal=True, width=columns, height=height, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(_frame_content(state, columns, console), no_wrap=True, overflow="crop", crop=True)
    return captured.get().splitlines()[: max(1, height)]


def _frame_content(state: State, columns: int, console: Console) -> RenderableType:
    more = _ellipsis(console)
    parts: list[RenderableType] = [*_head(state, columns, more), _stages(state, columns)]
    parts += [Text(" · ".join(state.pace()) if console.encoding.startswith("utf") else ", ".join(state.pace()))] if state.pace() else []
    parts += list(_slowest(state, columns, more))
    parts += list(_failures(state, columns, more))
    return Group(*parts)


def _ellipsis(console: Console) -> str:
    return "…" if console.encoding.startswith("utf") else "~"


def _head(state: State, columns: int, more: str) -> Iterator[RenderableType]:
    """Yield name, bar and counts in one line, or in two lines on a narrow terminal."""
    files = f" of {state.total:,} files ({state.percent} %), "
    counts = Text.assemble((f"{state.done:,}", "bold"), files, _failed_count(state.failed), f", {human_seconds(state.seconds)}")
    name = f"{state.batch} run {state.run}"
    is_wide = cell_len(name) + counts.cell_len + SHORTEST_BAR + 2 * COLUMN_GAP <= columns
    shown = name if is_wide else middle(name, columns - SHORTEST_BAR - COLUMN_GAP, more)
    width = columns - cell_len(shown) - COLUMN_GAP - (counts.cell_len + COLUMN_GAP if is_wide else 0)
    grid = Table.grid(padding=(0, COLUMN_GAP, 0, 0))
    bar = ProgressBar(total=max(1, state.total), completed=state.done, width=max(1, width), complete_style="green", finished_style="green")
    grid.add_row(Text(shown, style="bold"), bar, *([counts] if is_wide else []))
    yield grid
    if not is_wide:
        yield counts


def _failed_count(count: int) -> Text:
    return Text(f"{count:,} failed", style="red" if count else "")


def _stages(state: State, columns: int) -> RenderableType:
    """Return the table of the stages."""
    is_wide = columns >= WIDE
    table = Table(box=None, pad_edge=False, padding=(0, COLUMN_GAP if is_wide else 1, 0, 0), header_style="dim")
    table.add_column("", min_width=12 if is_wide else None, overflow="crop", no_wrap=True)
    for heading in ("done", "running", "waiting", "failed"):
        table.add_column(heading, justify="right", min_width=8 if is_wide else None, overflow="crop", no_wrap=True)
    for stage in state.stages:
        failed = Text(f"{stage.failed:,}", style="red" if stage.failed else "dim")
        table.add_row(stage.name, f"{stage.done:,}", f"{stage.running:,}", f"{stage.waiting:,}", failed)
    return table


def _slowest(state: State, columns: int, more: str) -> Iterator[Text]:
    """Yield a line for each of the slowest files."""
    for number, slow in enumerate(state.slowest[:SHOWN]):
        label = "slowest" if not number else ""
        end = f"  {slow.stage}  {human_seconds(max(0.0, time.time() - slow.since))}"
        end += f"  {human_bytes(slow.bytes)}" if slow.bytes else ""
        yield Text.assemble((f"{label:8} ", "dim"), middle(one_line(slow.id), columns - 9 - len(end), more), (end, "cyan"))


def _failures(state: State, columns: int, more: str) -> Iterator[Text]:
    """Yield a line for each of the last failures."""
    for number, failed in enumerate(state.failures[:SHOWN]):
        label = "failed" if not number else ""
        name = middle(one_line(failed.id), max(8, (columns - 9) // 2), more)
        why = " ".join(one_line(f"{failed.stage}: {failed.error_class}: {failed.message}").split())
        line = Text.assemble((f"{label:8} ", "dim"), name, "  ", (why, "red"))
        line.truncate(columns, overflow="ellipsis" if more == "…" else "crop")
        yield line


def middle(text: str, cells: int, more: str = "…") -> str:
    """Return text shortened in the middle to at most this many cells of a terminal."""
    if cell_len(text) <= cells:
        return text
    before = max(0, cells - 1) // 2
    after = max(0, cells - 1 - before)
    end = text
    while cell_len(end) > after:
        end = end[1:]
    return set_cell_size(text, before).rstrip() + more + end
