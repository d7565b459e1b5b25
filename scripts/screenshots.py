"""Take pictures of report.html, of batches of several sizes, light and dark; say how large the page is and how fast it opens.

The batches are real: tables on this disk, of which some are missing, damaged or malformed. They lie in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).resolve().parent
SIZES = (10, 2000, 100_000)
SCHEMES = ("light", "dark")
VIEW = {"width": 1440, "height": 1000}
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--sizes", type=lambda text: tuple(map(int, text.split(","))), default=SIZES, help="files a batch: 10,2000,100000")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def write_table(path: Path, chance: random.Random) -> None:
    rows = [f"{hour:02},{chance.gauss(12, 4):.2f}" for hour in range(chance.randint(2, 120))]
    if chance.random() < 0.01:
        rows[-1] = "23"
    path.write_text("\n".join(["hour,celsius", *rows, ""]))


def write_batch(folder: Path, size: int) -> Path:
    """Write tables and their manifest: some tables are not there, some not what the manifest says."""
    chance = random.Random(size)
    (folder / "tables").mkdir()
    with (folder / "stations.jsonl").open("w") as manifest:
        for number in range(size):
            path = folder / "tables" / f"station-{number:06}.csv"
            entry: dict[str, Any] = {"url": path.as_uri(), "id": f"station/{number % 365:03}/{number:06}"}
            if number % 97 != 3:
                write_table(path, chance)
            if number % 173 == 7:
                entry["sha256"] = "0" * 64
            if number % 251 == 9:
                entry["size"] = 1
            manifest.write(json.dumps(entry) + "\n")
    return folder / "stations.jsonl"


@contextmanager
def batch(size: int, workers: int) -> Iterator[Path]:
    """Run a batch of this many files; yield its page."""
    with tempfile.TemporaryDirectory(prefix="dpp-screenshots-") as temporary:
        folder = Path(temporary)
        dpp = Path(sys.executable).with_name("dpp")
        run = [dpp, "run", write_batch(folder, size), "--processor", "table_processor:Table", "--workers", str(workers)]
        subprocess.run(run, cwd=folder, env={**os.environ, "PYTHONPATH": str(HERE)}, check=False)
        yield next(folder.glob("dpp-workspace/batches/*/runs/1/report.html"))


def opened(browser: Browser, page: Path, scheme: Any) -> tuple[Page, float, float]:
    """Open a page; return its tab, and after how many seconds it had its first rows and all of them."""
    tab = browser.new_context(color_scheme=scheme, viewport=VIEW, reduced_motion="reduce").new_page()  # type: ignore[arg-type] - a dict
    begun = time.perf_counter()
    tab.goto(page.as_uri(), wait_until="commit")
    tab.wait_for_selector("#table tbody tr")
    first = time.perf_counter() - begun
    tab.wait_for_selector("html[data-loaded]")
    return tab, first, time.perf_counter() - begun


def take(tab: Page, folder: Path, name: str) -> None:
    """Take pictures of the top, of the table, and of the details of a file that failed."""
    tab.screenshot(path=folder / f"{name}-top.png")
    tab.evaluate("() => document.getElementById('files').scrollIntoView()")
    tab.screenshot(path=folder / f"{name}-files.png")
    tab.locator("#states label").filter(has_text="failed").click()
    tab.locator("#table tbody a").last.click()
    tab.wait_for_selector("dialog[open]")
    tab.screenshot(path=folder / f"{name}-details.png")


def main() -> None:
    asked = arguments()
    asked.folder.mkdir(parents=True, exist_ok=True)
    program = shutil.which("chromium") or sys.exit("chromium is missing: scripts/install-system-packages")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        for size in asked.sizes:
            with batch(size, asked.workers) as page:
                for scheme in SCHEMES:
                    tab, first, whole = opened(browser, page, scheme)
                    take(tab, asked.folder, f"{size}-{scheme}")
                    tab.context.close()
                    megabytes = page.stat().st_size / 1e6
                    print(
                        f"{size} files, {scheme}: {megabytes:.2f} MB, first rows after {first:.2f} s, all after {whole:.2f} s", flush=True
                    )
        browser.close()


if __name__ == "__main__":
    main()
