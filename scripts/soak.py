"""Run batches in a loop for some minutes, with a server that fails again and again, and see whether anything grows.

    python scripts/soak.py --minutes 20

A round is four batches: in this process with two workers, with one, and as single tasks; and one in a process of its own. After each
round this process is looked at: its memory, threads, descriptors and children, and the temporary files that are left. In the first half
of the rounds caches and the allocator's pools fill; what is more in the last quarter than in the one before is a fault, and so is a batch
that does not end as it should.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import luigi
from dpp import RunBatch
from dpp.workspace.atomic import is_temporary
from luigi.task_register import Register

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import http_site
from aftermath import check

FILES = 40
TRIES = 9
MODES = {"two workers": (2, 5), "one worker": (1, FILES), "tasks": (1, 1)}
SETTINGS = {"retry_wait": 0.01, "attempts": 4, "quiet": True}
DPP = Path(sys.executable).with_name("dpp")


def serve(site: http_site.Site) -> None:
    """Serve files of which every third answer is wrong."""
    chance = random.Random(20)
    for number in range(FILES):
        body = hashlib.sha256(b"%d" % number).digest() * (4000 if number % 10 == 0 else 100)
        site.add(f"/f{number}", body)
        site.script(f"/f{number}", http_site.flaky(body, chance))


class Sample(NamedTuple):
    """What there is of this process and its files after a round; memory in KiB."""

    memory: int
    threads: int
    descriptors: int
    children: int
    temporary: int


class Soak:
    """Batches in a loop.

    Args:
        folder: Where the workspaces lie, one after another; temporary files of Python's go there too.
        url: Of the server.
        files: How many a batch has.
    """

    def __init__(self, folder: Path, url: str, files: int) -> None:
        self._folder = folder
        self._left = 0
        self._total = files
        self._files = folder / "files.txt"
        self._files.write_text("".join(f"{url}/f{number}\n" for number in range(files)))

    def rounds(self, seconds: float, least: int) -> Iterator[Sample]:
        """Run rounds for so long, and so many at least."""
        deadline = time.monotonic() + seconds
        while least > 0 or time.monotonic() < deadline:
            least -= 1
            for workers, chunk_size in MODES.values():
                self._complete(lambda root, workers=workers, size=chunk_size: _build(self._files, root, workers, size))
            self._complete(lambda root: _new_process(self._files, root))
            yield self._sample()

    def _complete(self, run: Callable[[Path], None]) -> None:
        """Run a batch until all its files are there, and look at what it left."""
        root = self._folder / "workspace"
        for _ in range(TRIES):
            run(root)
            if (rows := check(root, total=self._total)) and all(row.ok for row in rows.values()):
                break
        check(root, code=0, total=self._total)
        self._left = _temporary(root)
        shutil.rmtree(root)

    def _sample(self) -> Sample:
        gc.collect()
        multiprocessing.active_children()  # waits for those that have ended
        own = Path("/proc/self")
        return Sample(
            memory=int((own / "statm").read_text().split()[1]) * resource.getpagesize() // 1024,
            threads=len(list((own / "task").iterdir())),
            descriptors=len(list((own / "fd").iterdir())),
            children=sum(len(path.read_text().split()) for path in (own / "task").glob("*/children")),
            temporary=self._left + len(list((self._folder / "tmp").iterdir())),
        )


def _temporary(root: Path) -> int:
    return sum(is_temporary(path.name) or path.suffix == ".part" for path in root.rglob("*"))


def _build(files: Path, root: Path, workers: int, chunk_size: int) -> None:
    """Run the batch in this process."""
    task = RunBatch(files=str(files), workspace=str(root), chunk_size=chunk_size, **SETTINGS)
    task.workers = workers
    luigi.build([task], workers=workers, local_scheduler=True)
    task.close()
    Register.clear_instance_cache()  # Luigi keeps every task for ever, as the guide to running from Python tells


def _new_process(files: Path, root: Path) -> None:
    """Run the batch in a process of its own."""
    arguments = [word for name, value in SETTINGS.items() for word in (f"--{name.replace('_', '-')}", str(value)) if word != "True"]
    done = subprocess.run([DPP, "run", files, "--workspace", root, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr


def growing(samples: list[Sample], slack: float) -> list[str]:
    """Return what is more in the last quarter of the samples than in the one before, by the median; memory by more than its slack."""
    quarter = max(1, len(samples) // 4)
    found = []
    for name in Sample._fields:
        before, after = (median(getattr(one, name) for one in part) for part in (samples[-2 * quarter : -quarter], samples[-quarter:]))
        if after > before * (slack if name == "memory" else 1):
            found.append(f"{name} grew from {before:g} to {after:g}")
    return found


def main() -> None:
    """Soak as long as is asked for, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=8, help="at least")
    parser.add_argument("--files", type=int, choices=range(1, FILES + 1), metavar="N", default=FILES, help="of a batch")
    parser.add_argument("--memory-slack", type=float, default=1.03, help="how many times the memory may be what it was")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    (folder / "tmp").mkdir()
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
    samples = []
    try:
        with http_site.served(serve) as url:
            print("round", *Sample._fields, sep="\t")
            for number, sample in enumerate(Soak(folder, url, asked.files).rounds(asked.minutes * 60, asked.rounds), 1):
                print(number, *sample, sep="\t", flush=True)
                samples.append(sample)
    finally:
        shutil.rmtree(folder)
    if found := growing(samples, asked.memory_slack):
        sys.exit("; ".join(found))
    print(f"{len(samples)} rounds, nothing grew")


if __name__ == "__main__":
    main()
