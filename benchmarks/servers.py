"""The servers that benchmarks start on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from measure import BenchError, environment

sys.path.extend(str(Path(__file__).resolve().parent.parent / folder) for folder in ("tests", "plugins/dpp-sftp/tests"))
from sshd import Server, sshd

__all__ = ["Server", "distant", "nginx", "nginx_path", "slow_server", "sshd"]

STARTED = 10.0  # seconds
CONFIG = """
daemon off;
worker_processes 2;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    client_body_temp_path {folder}/temporary;
    proxy_temp_path {folder}/temporary;
    fastcgi_temp_path {folder}/temporary;
    uwsgi_temp_path {folder}/temporary;
    scgi_temp_path {folder}/temporary;
    server {{ listen 127.0.0.1:{port} backlog=1024; root {folder}/www; autoindex on; }}
}}
"""


def nginx_path() -> str | None:
    """Return the path of nginx, or None if it is not installed."""
    # Debian installs it in a folder that is on the PATH of root only
    return shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a process listens on the port."""
    end = time.monotonic() + STARTED
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise BenchError(f"the server did not start:\n{log.read_text(errors='replace')[-1500:]}")


@contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Stop a process at the end of the block."""
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def nginx(folder: Path) -> Iterator[str]:
    """Serve ``folder/www`` with a separate nginx; yield its URL."""
    port, log, config = free_port(), folder / "nginx.log", folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, port=port))
    (folder / "www").mkdir(exist_ok=True)
    command = [str(nginx_path()), "-p", str(folder), "-c", str(config), "-e", str(log)]
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    with stopped(process):
        wait_for(port, process, log)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def script(name: str, folder: Path, *arguments: str) -> Iterator[int]:
    """Run a script of this folder as a server, with a free port as its first argument; yield the port."""
    port, log = free_port(), folder / f"{name}.log"
    command = [sys.executable, str(Path(__file__).with_name(name)), str(port), *arguments]
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment({}), start_new_session=True)
    with stopped(process):
        wait_for(port, process, log)
        yield port


@contextmanager
def slow_server(folder: Path) -> Iterator[str]:
    """Run a server that responds to any path with 4 KiB after 100 ms; yield its URL."""
    with script("slow_server.py", folder) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def distant(folder: Path, near: Server) -> Iterator[Server]:
    """Run a proxy that adds a round-trip time of 1 ms to an SFTP server; yield the server with the port of the proxy."""
    with script("distant.py", folder, str(near.port)) as port:
        known_hosts = folder / "known_hosts_distant"
        known_hosts.write_text(f"[{near.host}]:{port} {near.host_key}\n")
        yield replace(near, port=port, known_hosts=known_hosts)
