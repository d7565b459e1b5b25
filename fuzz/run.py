"""Fuzz the parsers of dpp and its plugins with libFuzzer's coverage-guided mutations, through atheris.

Inputs that reach new code are stored in fuzz/found, and inputs that fail in fuzz/crash-TARGET-*; run one of them again with --again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["dpp", "dpp_archive", "dpp_gpg", "dpp_sftp"]):
    import targets

HERE = Path(__file__).parent
MEMORY = Path("/dev/shm")


def main() -> int:
    """Fuzz the targets, and return 1 if one of them fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=30, help="seconds per target (default: 30)")
    parser.add_argument("--target", choices=targets.TARGETS, help="target to fuzz (default: all)")
    parser.add_argument("--again", type=Path, help="run --target once with this input instead of fuzzing")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        fuzz(arguments.target, arguments.seconds, arguments.again)
    # One process per target, because libFuzzer ends the process that it runs in
    names = [arguments.target] if arguments.target else list(targets.TARGETS)
    again = ["--again", arguments.again] if arguments.again else []
    runs = [[sys.executable, __file__, "--here", "--target", name, "--seconds", str(arguments.seconds), *again] for name in names]
    return max([subprocess.run(run, check=False).returncode != 0 for run in runs])


def fuzz(name: str, seconds: int, again: Path | None) -> None:
    """Fuzz one target, and end this process."""
    if MEMORY.is_dir():
        tempfile.tempdir = str(MEMORY)  # five times as many executions per second as on a disk
    found = HERE / "found" / name
    found.mkdir(parents=True, exist_ok=True)
    inputs = [again] if again else [found, HERE / "corpus" / name]
    limits = {"max_total_time": seconds, "rss_limit_mb": 2048, "timeout": 20, "max_len": 4096, "verbosity": 0, "print_final_stats": 1}
    options = {**limits, "artifact_prefix": f"{HERE}/crash-{name}-", "dict": HERE / "words.dict"}
    print(f"{name}: {seconds} s", flush=True)
    atheris.Setup([__file__, *(f"-{option}={value}" for option, value in options.items()), *map(str, inputs)], targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
