"""Download a list of URLs with requests and 16 threads, as in a typical script: ``python requests_pool.py LIST``."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter

THREADS = 16


def main() -> None:
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", HTTPAdapter(pool_maxsize=THREADS))

    def fetch(url: str) -> None:
        response = session.get(url, timeout=60)
        response.raise_for_status()
        Path(url.rpartition("/")[2]).write_bytes(response.content)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(fetch, Path(sys.argv[1]).read_text().split()):
            pass


if __name__ == "__main__":
    main()
