"""A real object store for tests: OpenStack Swift with its s3api, from wheels, on loopback ports and in one folder.

It runs four processes of about 60 MB each: a proxy, and servers for accounts, containers and objects, which store everything
on one "device", a folder on a file system with extended attributes. It runs without memcached.
"""

from __future__ import annotations

import getpass
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
from botocore.config import Config

from listening import reserved_port

SECONDS = 60
MODULES = {kind: f"swift.{'obj' if kind == 'object' else kind}.server" for kind in ("account", "container", "object", "proxy")}
START = """
import sys
from swift.common import utils
utils.set_swift_dir(sys.argv.pop(1))
from importlib import import_module
sys.exit(import_module(sys.argv.pop(1)).main())
"""
RINGS = """
import sys
from swift.common.ring import RingBuilder
folder, *ports = sys.argv[1:]
for kind, port in zip(("account", "container", "object"), ports[:3]):
    builder = RingBuilder(1, 1, 0)
    builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d1", "weight": 1})
    builder.rebalance()
    builder.get_ring().save(f"{folder}/{kind}.ring.gz")
"""
# Timeouts of 60 s, for busy machines: by default, the proxy responds with 503 after 10 s without a response, and an object server
# waits only 1 s until its object is listed
COMMON = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {folder}
devices = {folder}/devices
user = {user}
workers = 0
mount_check = false
disable_fallocate = true
fallocate_reserve = 0
log_level = WARNING
log_address = {folder}/no-syslog
conn_timeout = 60
node_timeout = 60
container_update_timeout = 60
"""
STORAGE = """
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
PROXY = """
[pipeline:main]
pipeline = catch_errors listing_formats bulk s3api tempauth copy slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
"""


class Server(NamedTuple):
    """URL and credentials of an S3 server."""

    endpoint_url: str
    access_key: str
    secret_key: str

    def client(self, service: str = "s3") -> Any:
        """Return a client without retries."""
        return boto3.Session(self.access_key, self.secret_key, region_name="us-east-1").client(
            service, endpoint_url=self.endpoint_url, config=Config(retries={"total_max_attempts": 1})
        )


@contextmanager
def swift(folder: Path) -> Iterator[Server]:
    """Run Swift until the end of the block, with its data in an existing empty folder."""
    check_folder(folder)
    with ExitStack() as stack:
        ports = {kind: stack.enter_context(reserved_port()) for kind in MODULES}
        server = Server(f"http://127.0.0.1:{ports['proxy']}", "test:tester", secrets.token_hex(16))
        (folder / "devices" / "d1").mkdir(parents=True)
        (folder / "swift.conf").write_text(f"[swift-hash]\nswift_hash_path_suffix = {secrets.token_hex(8)}\n")
        call("-c", RINGS, folder, *ports.values())
        for kind, port in ports.items():
            write_configuration(folder, kind, port, server.secret_key)
            stack.enter_context(running(folder, kind))
        for port in ports.values():
            wait_for(f"http://127.0.0.1:{port}/", folder)
        yield server


def check_folder(folder: Path) -> None:
    try:
        os.setxattr(folder, "user.dpp", b"1")
    except OSError as error:
        pytest.fail(f"Swift needs extended attributes, which the file system of {folder} does not have: {error}; use --basetemp")
    done = subprocess.run([sys.executable, "-c", "import swift.proxy.server"], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"Swift cannot be imported; install it with: pip install 'swift>=2.38'\n{done.stderr}")


def call(*arguments: object) -> None:
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=arguments[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def write_configuration(folder: Path, kind: str, port: int, secret: str) -> None:
    text = COMMON + (PROXY if kind == "proxy" else STORAGE)
    (folder / f"{kind}.conf").write_text(text.format(folder=folder, port=port, user=getpass.getuser(), kind=kind, secret=secret))


@contextmanager
def running(folder: Path, kind: str) -> Iterator[None]:
    """Run one server until the end of the block; its log is next to its configuration."""
    arguments = [sys.executable, "-W", "ignore", "-c", START, str(folder), MODULES[kind], str(folder / f"{kind}.conf")]
    environment = {**os.environ, "EVENTLET_NO_GREENDNS": "yes"}
    with (folder / f"{kind}.log").open("wb") as log:
        process = subprocess.Popen(arguments, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(url: str, folder: Path) -> None:
    """Wait until a server responds, even if with an error."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError as error:
            with error:
                return
        except OSError:
            time.sleep(0.1)
    logs = "\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted(folder.glob("*.log")))
    pytest.fail(f"Swift did not respond within {SECONDS} s:\n{logs}")
