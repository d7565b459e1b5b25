"""Run the main job on real files: this project's own, served on loopback by a server that this script starts and stops."""

from __future__ import annotations

import functools
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "demo-workspace"
BIN = Path(sys.executable).parent


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of the loopback interface; yield its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def write_manifest(url: str) -> Path:
    """List this project's modules and documents as a JSON manifest."""
    paths = sorted([*ROOT.glob("dpp/*.py"), *ROOT.glob("*.md")])
    manifest = FOLDER / "files.json"
    manifest.write_text(json.dumps([{"url": f"{url}/{path.relative_to(ROOT)}", "kind": path.suffix} for path in paths], indent=1))
    return manifest


def run(*command: str) -> int:
    """Show a command, run it in the demo's folder, return its exit code."""
    print(f"\n$ {shlex.join(command)}", flush=True)
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(command, cwd=FOLDER, env=environment, check=False).returncode  # noqa: S603 - our own commands


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    with served(ROOT) as url:
        manifest = write_manifest(url)
        batch = ("luigi", "--module", "dpp", "RunBatch", "--files", manifest.name, "--workers", "4")
        code = run(*batch)
        print("\nThe same again: everything is there, so nothing is fetched.")
        code = code or run(*batch) or run("dpp", "report")
    print(f"\nthe results lie in {FOLDER / 'dpp-workspace'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
