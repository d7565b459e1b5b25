"""Compare dpp with other downloaders on this machine: ``make bench``, or ``python benchmarks/bench.py --help``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, cast

from cases import CASES, has_curl_plugin, missing_peers
from goals import Verdict, judge
from measure import BenchError, Contender, adopt_orphans, alternate
from servers import nginx_path

TMPFS = Path("/dev/shm")
NO_NGINX = "bench: nginx not found; the cases small, resume, large, view and settings need it. Install it (Debian: apt-get install "
OTHERS = "nginx-light), or run the other cases only: --cases scale,latency,cpu,plugins,sftp"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--cases", type=names, default=list(CASES), help=f"cases to run, separated by commas (default: all): {','.join(CASES)}"
    )
    parser.add_argument("--scale", type=positive, default=1.0, help="fraction of the number of files, such as 0.1 (default: 1)")
    parser.add_argument("--rounds", type=rounds, default=3, help="number of rounds, at least 3 (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")
    return parser.parse_args()


def names(text: str) -> list[str]:
    wrong = [name for name in text.split(",") if name not in CASES]
    if wrong:
        raise argparse.ArgumentTypeError(f"unknown case {', '.join(wrong)}; choose from {', '.join(CASES)}")
    return text.split(",")


def positive(text: str) -> float:
    if not 0 < float(text) <= 1:
        raise argparse.ArgumentTypeError(f"expected a number greater than 0 and at most 1, got {text}")
    return float(text)


def rounds(text: str) -> int:
    return max(3, int(text))


@contextmanager
def scratch() -> Iterator[Path]:
    """Create a temporary folder, in memory if possible, and remove it at the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="dpp-bench-", dir=TMPFS if TMPFS.is_dir() else None))
    try:
        # The workers of nginx run as the user nobody
        folder.chmod(0o755)
        yield folder
    finally:
        # Twice, because a process that was killed may still create files during the first time
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def run_case(name: str, options: argparse.Namespace) -> list[Contender]:
    """Set up a case, run it, and clean up."""
    case = CASES[name]
    print(f"{name}:", file=sys.stderr, flush=True)
    with scratch() as folder, cast("AbstractContextManager[list[Contender]]", case.setup(folder, options.scale)) as contenders:
        missing = missing_peers(contenders)
        for contender in missing:
            print(f"  skipped, not installed: {contender.command[0]}", file=sys.stderr)
        present = [contender for contender in contenders if contender not in missing]
        alternate(present, folder, options.rounds * case.times)
        return present


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "\n".join("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)


def figures(results: dict[str, list[Contender]]) -> str:
    rows = [
        [case, row.title, f"{row.files:,}", f"{row.median:.2f}", f"{min(row.seconds):.2f} to {max(row.seconds):.2f}",
         f"{row.rate:,.0f}", f"{1e6 / row.rate:,.0f}", f"{row.cpu:.2f}", f"{row.peak:.0f}"]
        for case, contenders in results.items() for row in contenders
    ]  # fmt: skip
    return table(["case", "what", "files", "s (median)", "s (range)", "files/s", "us/file", "cpu s", "peak MB"], rows)


def verdicts(found: list[Verdict]) -> str:
    rows = [
        [verdict.goal.case, verdict.goal.text, f"{verdict.goal.sign} {verdict.goal.wanted:,g}", f"{verdict.value:,.5g}",
         "yes" if verdict.goal.met(verdict.value) else "NO"]
        for verdict in found
    ]  # fmt: skip
    return table(["case", "goal", "wanted", "measured", "met"], rows)


def machine(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.release(),
        "load_before": round(os.getloadavg()[0], 2),
        "scale": options.scale,
        "rounds": options.rounds,
    }


def measure(options: argparse.Namespace) -> int:
    """Run the selected cases, print the tables, and return the exit code; after an interrupt, print the complete cases."""
    adopt_orphans()
    about, results, failed, code = machine(options), {}, {}, 0
    try:
        for name in options.cases:
            try:
                results[name] = run_case(name, options)
            except BenchError as error:
                failed[name], code = str(error), 1
                print(f"  FAILED: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("bench: interrupted; stopped the servers and removed the files", file=sys.stderr)
        code = 130
    about["load_after"] = round(os.getloadavg()[0], 2)
    publish(options.json, about, results, failed)
    return code


def publish(path: Path | None, about: dict[str, Any], results: dict[str, list[Contender]], failed: dict[str, str]) -> None:
    """Print the results, and write them to ``path`` as JSON unless it is None."""
    found = [verdict for name, contenders in results.items() for verdict in judge(name, contenders)]
    print("; ".join(f"{name} {value}" for name, value in about.items()), figures(results), verdicts(found), sep="\n\n")
    if path:
        rows = {name: [row.row() for row in contenders] for name, contenders in results.items()}
        goals = [verdict.row() for verdict in found]
        path.write_text(json.dumps({"about": about, "cases": rows, "goals": goals, "failed": failed}, indent=1) + "\n")


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if nginx_path() is None and any(CASES[name].needs_nginx for name in options.cases):
        print(NO_NGINX + OTHERS, file=sys.stderr)
        return 3
    if not has_curl_plugin():
        print("bench: dpp-curl is not installed; its rows and goals are skipped", file=sys.stderr)
    return measure(options)


if __name__ == "__main__":
    sys.exit(main())
