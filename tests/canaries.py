"""Looking for secrets wherever a batch could have left them: files, their names, output, command lines of processes."""

from __future__ import annotations

import base64
import os
import secrets
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

RANDOM = 24


def canary() -> str:
    """Return a secret with characters that are written differently in URLs, JSON and messages, and an end that is found in each."""
    return f"canary /+%40 ö{secrets.token_hex(RANDOM // 2)}"


def traces(secret: str) -> set[bytes]:
    """Return what a secret leaves in any text that holds it: its random end, and that in hexadecimal and base64.

    What is escaped, percent-encoded or masked in part still has that end. Base64 depends on how many bytes stand before it.
    """
    end = secret[-RANDOM:].encode()
    encoded = (base64.b64encode(bytes(before) + end)[(before * 8 + 5) // 6 : (before + RANDOM) * 8 // 6] for before in range(3))
    return {end, end.hex().encode(), *encoded}


def found(canaries: Mapping[str, str], folder: Path, texts: Iterable[bytes] = ()) -> list[tuple[str, object]]:
    """Return which secrets are where: in files, their names, and other texts."""
    places: dict[object, bytes] = {
        path: os.fsencode(path) + (path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*") if path.exists()
    }
    places |= {text: text for text in texts}
    return [
        (name, place) for name, secret in canaries.items() for place, text in places.items() if any(map(text.__contains__, traces(secret)))
    ]


@contextmanager
def watched() -> Iterator[set[bytes]]:
    """Collect the command lines of all processes, as ps shows them, again and again, and once more when the block ends."""
    seen: set[bytes] = set()
    ended = threading.Event()

    def processes() -> set[str]:
        return {name for name in os.listdir("/proc") if name.isdecimal()}

    def look(skipped: Collection[str] = ()) -> None:
        for process in processes().difference(skipped):
            with suppress(OSError):  # it has ended
                seen.add(Path("/proc", process, "cmdline").read_bytes())

    before = processes()  # looked at once, in the end: their command lines stay the same

    def watch() -> None:
        while not ended.wait(0.02):
            look(before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()
        look()
