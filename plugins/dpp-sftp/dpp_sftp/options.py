"""The options of ``sftp``: credentials, which are given by reference only, and known hosts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

DEFAULT_KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
SESSIONS = 4


class SftpOptions(BaseModel):
    """Options of the fetcher and the source, under ``sftp`` in ``--options`` or in luigi.cfg."""

    # There is no option to switch off the check of host keys: without it, every server in between could read the password
    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str = ""
    """User to log in as, if the URL has none; default: the user of this process."""
    key_file: Path | None = None
    """Path of the private key to log in with; default: the keys of the agent and in ``~/.ssh``."""
    key_passphrase_env: str = ""
    """Name of the environment variable with the passphrase of the key."""
    password_env: str = ""
    """Name of the environment variable with the password."""
    password_file: Path | None = None
    """Path of a file whose first line is the password."""
    known_hosts: tuple[Path, ...] = ()
    """Paths of known hosts files; default: ``~/.ssh/known_hosts`` and ``/etc/ssh/ssh_known_hosts``."""
    sessions: int = Field(SESSIONS, ge=1)
    """Maximum number of connections per server and process."""

    @field_validator("known_hosts", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [path.strip() for path in value.split(",") if path.strip()] if isinstance(value, str) else value

    def password(self) -> str:
        """Return the password from the variable or file of the options, or "".

        Raises:
            ValueError: The variable is not set, or the file cannot be read or is empty.
        """
        if self.password_env:
            return _variable("password_env", self.password_env)
        if self.password_file is None:
            return ""
        lines = _read("password_file", self.password_file).splitlines()
        if not lines or not lines[0]:
            raise ValueError(f"option password_file: {self.password_file} is empty; expected the password in its first line")
        return lines[0]

    def passphrase(self) -> str | None:
        """Return the passphrase of the key, or None.

        Raises:
            ValueError: The environment variable is not set.
        """
        return _variable("key_passphrase_env", self.key_passphrase_env) if self.key_passphrase_env else None

    def key_path(self) -> Path | None:
        """Return the path of the key, with ``~`` resolved, or None."""
        return self.key_file and _expanded(self.key_file)

    def known_hosts_text(self) -> str:
        """Return the joined contents of the known hosts files.

        Raises:
            ValueError: A file of the options cannot be read.
        """
        if self.known_hosts:
            return "\n".join(_read("known_hosts", path) for path in self.known_hosts)
        found = [path for path in map(_expanded, map(Path, DEFAULT_KNOWN_HOSTS)) if path.is_file()]
        return "\n".join(_read("known_hosts", path) for path in found)

    @property
    def known_hosts_names(self) -> str:
        """The names of the known hosts files, for messages."""
        return ", ".join(map(str, self.known_hosts or DEFAULT_KNOWN_HOSTS))


def _variable(option: str, name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ValueError(f"option {option}: the environment variable {name} is not set or empty")
    return value


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    # There is no such user, or the user has no home folder
    except RuntimeError:
        return path


def _read(option: str, path: Path) -> str:
    try:
        return _expanded(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise ValueError(f"option {option}: cannot read {path}: {error.strerror}") from error
