"""Use processor time with pure Python in several processes: ``python burn.py LOOPS FILES PROCESSES``."""

from __future__ import annotations

import multiprocessing
import sys
import time

TARGET = 0.020  # seconds


def burn(loops: int) -> int:
    total = 0
    for number in range(loops):
        total += number & 7
    return total


def loops_for_target() -> int:
    """Return the number of loops that take 20 ms on this machine."""
    # The best of ten, to exclude the time of other processes
    loops, best = 100_000, 1e9
    for _ in range(10):
        begin = time.perf_counter()
        burn(loops)
        best = min(best, time.perf_counter() - begin)
    return int(loops * TARGET / best)


if __name__ == "__main__":
    with multiprocessing.Pool(int(sys.argv[3])) as pool:
        pool.map(burn, [int(sys.argv[1])] * int(sys.argv[2]), chunksize=1)
