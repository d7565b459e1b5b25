#!/usr/bin/env python3
"""Record the live view in pictures: a batch of 2,000 files of which 5 % fail, in terminals (tmux) of 100 and of 60 columns.

    python scripts/record_terminal.py FOLDER

FOLDER gets start, middle and end of each as text and as SVG, and what the same run says where its output is a file.
The files come from a server on loopback that takes its time.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from terminal import ROWS, Terminal, opened  # noqa: E402 - the tests' own, found by the path above

BIN = Path(sys.executable).parent
FILES = 2000
DELAY, SLOW = 0.05, 6.0
END = "exit code"


class Handler(BaseHTTPRequestHandler):
    """Serve 4 KiB after a while; each twentieth file is missing, and some take long."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        number = int("".join(filter(str.isdigit, self.path)))
        time.sleep(SLOW if number % 500 == 3 else DELAY)
        status, body = (404, b"no such file") if number % 20 == 7 else (200, b"%04d" % number * 1024)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        """Say nothing."""


@contextmanager
def served() -> Iterator[str]:
    """Run the server; yield its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def picture(terminal: Terminal, path: Path, columns: int, title: str) -> None:
    """Write what a terminal shows as text and as SVG."""
    path.with_suffix(".txt").write_text(terminal.screen())
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=columns, height=ROWS, file=nowhere, force_terminal=True, legacy_windows=False)
        for line in terminal.screen("-e").splitlines():
            console.print(Text.from_ansi(line), soft_wrap=True)
    console.save_svg(str(path.with_suffix(".svg")), title=title)


def record(manifest: Path, output: Path, columns: int) -> None:
    """Record a run in a terminal."""
    with opened(manifest.parent, columns) as terminal:
        terminal.type(f"dpp run {manifest.name} --workers 2 --workspace w{columns}; echo {END} $?")
        for name, text in (("1-start", "slowest"), ("2-middle", "(6"), ("3-end", f"{END} 1")):
            terminal.wait_for(text)
            picture(terminal, output / f"{columns}-columns-{name}", columns, f"dpp run, {columns} columns, {name[2:]}")


def main() -> None:
    """Record the run in both terminals, and with its output in a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    output = parser.parse_args().folder.resolve()
    output.mkdir(parents=True, exist_ok=True)
    with served() as url, tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "files.txt"
        manifest.write_text("".join(f"{url}/scene-{number:04d}.tif\n" for number in range(FILES)))
        for columns in (100, 60):
            record(manifest, output, columns)
        command = f"dpp run {manifest.name} --workers 2 > {shlex.quote(str(output / 'piped.txt'))} 2>&1"
        environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        subprocess.run(command, shell=True, cwd=folder, check=False, env=environment)


if __name__ == "__main__":
    main()
