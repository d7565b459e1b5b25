"""moto's S3 server on loopback: it starts fast and checks signatures, but not checksums of bodies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from listening import reserved_port, wait_for
from swift_server import Server

ALLOWED = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
SETTING_UP = 3  # requests without authentication, which create the user


@contextmanager
def moto(folder: Path) -> Iterator[Server]:
    """Run moto until the end of the block, with its log in the folder."""
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": str(SETTING_UP)}
    arguments = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p"]
    with reserved_port() as port, (folder / "log").open("wb") as log:
        process = subprocess.Popen([*arguments, str(port)], env=environment, stdout=log, stderr=log)
        try:
            wait_for(process, port, folder / "log")
            yield with_user(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait()


def with_user(endpoint_url: str) -> Server:
    """Create a user, and return the server with its access key."""
    iam = Server(endpoint_url, "nobody", "nothing").client("iam")
    iam.create_user(UserName="tester")
    iam.put_user_policy(UserName="tester", PolicyName="all", PolicyDocument=json.dumps(ALLOWED))
    made = iam.create_access_key(UserName="tester")["AccessKey"]
    iam.close()
    return Server(endpoint_url, made["AccessKeyId"], made["SecretAccessKey"])
