"""Control a real terminal (tmux) in a test: type into it, and read its screen."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

ROWS = 24
SECONDS = 90.0
_NUMBERS = count()


class Terminal:
    """A shell in a terminal, with its own tmux server.

    Args:
        folder: Where the shell is.
        columns: Its width.
        environment: Variables that differ from this process's own.
    """

    def __init__(self, folder: Path, columns: int, **environment: str) -> None:
        self._socket = f"dpp-{os.getpid()}-{next(_NUMBERS)}"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {name: value for name, value in os.environ.items() if name not in ("TMUX", "CI", "NO_COLOR", "PS1")}
        shell = ["env", "PS1=$ ", f"TERM={environment.pop('TERM', 'screen-256color')}", "bash", "--norc", "--noprofile", "-i"]
        size = ["-x", str(columns), "-y", str(ROWS)]
        self._tmux(
            "-f", os.devnull, "new-session", "-d", *size, "-c", str(folder), *shell, environment={**kept, "PATH": path, **environment}
        )

    def _tmux(self, *arguments: str, environment: dict[str, str] | None = None) -> str:
        command = ["tmux", "-L", self._socket, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout

    def type(self, text: str) -> None:
        """Type a line."""
        self._tmux("send-keys", text, "Enter")

    def press(self, key: str) -> None:
        """Press a key, such as C-c."""
        self._tmux("send-keys", key)

    def resize(self, columns: int, rows: int) -> None:
        """Resize the terminal."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def screen(self, *options: str) -> str:
        """Return the text on the screen; ``-e`` keeps colors, ``-S -`` adds the scrollback."""
        return self._tmux("capture-pane", "-p", *options)

    def wait_for(self, *texts: str) -> str:
        """Wait until all these texts are on the screen; return the screen."""
        return self.wait_until(lambda screen: all(text in screen for text in texts), str(texts))

    def wait_until(self, is_right: Callable[[str], object], wanted: str) -> str:
        """Wait until a condition on the screen holds; return the screen."""
        deadline = time.monotonic() + SECONDS
        while not is_right(screen := self.screen()):
            assert time.monotonic() < deadline, f"not shown in {SECONDS:.0f} s: {wanted}; the screen is:\n{screen}"
            time.sleep(0.1)
        return screen

    def close(self) -> None:
        """End the shell and its server."""
        self._tmux("kill-server")


@contextmanager
def opened(folder: Path, columns: int = 100, **environment: str) -> Iterator[Terminal]:
    """Open a terminal, and close it."""
    terminal = Terminal(folder, columns, **environment)
    try:
        terminal.wait_for("$")
        yield terminal
    finally:
        terminal.close()
