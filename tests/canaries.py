"""Search for secrets in everything that a batch leaves: files, file names, output, and command lines of processes."""

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
    """Return a secret with characters that URLs, JSON and messages escape in different ways, and an end that all of them keep."""
    return f"canary /+%40 ö{secrets.token_hex(RANDOM // 2)}"


def traces(secret: str) -> set[bytes]:
    """Return the traces of a secret in a text: its random end, plain, in hexadecimal and in base64."""
    # An escaped, percent-encoded or partly masked secret still has this end. Base64 depends on the number of bytes before it.
    end = secret[-RANDOM:].encode()
    encoded = (base64.b64encode(bytes(before) + end)[(before * 8 + 5) // 6 : (before + RANDOM) * 8 // 6] for before in range(3))
    return {end, end.hex().encode(), *encoded}


def found(canaries: Mapping[str, str], folder: Path, texts: Iterable[bytes] = ()) -> list[tuple[str, object]]:
    """Return the secrets that are found, each with its place: a file, a file name or another text."""
    places: dict[object, bytes] = {
        path: os.fsencode(path) + (path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*") if path.exists()
    }
    places |= {text: text for text in texts}
    return [
        (name, place) for name, secret in canaries.items() for place, text in places.items() if any(map(text.__contains__, traces(secret)))
    ]


@contextmanager
def watched() -> Iterator[set[bytes]]:
    """Collect the command lines of all processes repeatedly, and once more when the block ends."""
    seen: set[bytes] = set()
    ended = threading.Event()

    def processes() -> set[str]:
        return {name for name in os.listdir("/proc") if name.isdecimal()}

    def look(skipped: Collection[str] = ()) -> None:
        for process in processes().difference(skipped):
            # The process may have ended.
            with suppress(OSError):
                seen.add(Path("/proc", process, "cmdline").read_bytes())

    # The command lines of processes that run already do not change, so they are read only once, at the end.
    before = processes()

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
