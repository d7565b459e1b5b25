"""Run Luigi's central scheduler on loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from listening import reserved_port, wait_for

SECONDS = 30


@contextmanager
def luigid(folder: Path) -> Iterator[str]:
    """Run a scheduler until the end of the block; yield its URL. Its log and state are in the folder."""
    with reserved_port() as port, (folder / "luigid.log").open("wb") as log:
        arguments = ["--port", str(port), "--address", "127.0.0.1", "--state-path", folder / "luigid.state"]
        process = subprocess.Popen([Path(sys.executable).parent / "luigid", *arguments], cwd=folder, stdout=log, stderr=log)
        try:
            wait_for(process, port, folder / "luigid.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def known_tasks(url: str) -> dict[str, dict[str, object]]:
    """Return the scheduler's tasks by id."""
    asked = quote(json.dumps({"status": "", "upstream_status": ""}))
    with urllib.request.urlopen(f"{url}/api/task_list?data={asked}", timeout=SECONDS) as answer:
        tasks: dict[str, dict[str, object]] = json.load(answer)["response"]
    return tasks
