"""The options that both steps have, checked when a step is made: before anything is fetched."""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path
from typing import Annotated, Any

from dpp import BasePreProcessor
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from dpp_gpg.tool import Tool

_FINGERPRINT = re.compile(r"[0-9A-F]{40}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_HOME_VARIABLE = "GNUPGHOME"


def _listed(value: Any) -> Any:
    """Return fingerprints as a list: luigi.cfg has them as one text, with commas."""
    return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _fingerprints(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return fingerprints as gpg writes them, in an order of their own as they are part of the cache key."""
    found = {"".join(value.split()).upper() for value in values}
    if not all(map(_FINGERPRINT.fullmatch, found)):
        raise ValueError("expected fingerprints of 40 hexadecimal digits, as gpg --fingerprint shows them; a key id can be forged")
    return tuple(sorted(found))


def _installed(binary: str) -> str:
    if not shutil.which(binary):
        raise ValueError(f"there is no program {binary!r}; install GnuPG (apt-get install gnupg), or give its path")
    return binary


def _existing_home(home: Path | None) -> Path | None:
    """Check the folder that is given, or else the one that the environment names."""
    named = os.environ.get(_HOME_VARIABLE)
    chosen = home.expanduser() if home else Path(named) if named else None
    if chosen is not None and not (chosen.is_dir() and os.access(chosen, os.R_OK | os.X_OK)):
        whence = "" if home else f"${_HOME_VARIABLE} names "
        raise ValueError(f"{whence}{chosen}, a folder that is not there or may not be read; it should hold the keyrings")
    return home and home.expanduser()


def _set_variable(name: str | None) -> str | None:
    """Check that a variable holds a passphrase. Its name is not shown, as somebody may have given the passphrase itself."""
    if name is not None and not (_VARIABLE.fullmatch(name) and name in os.environ):
        raise ValueError("expected the name of an environment variable that is set; it should hold the passphrase")
    if name is not None:
        _check(os.fsencode(os.environ[name]))
    return name


def _private_file(path: Path | None) -> Path | None:
    """Check that a file holds a passphrase and is its owner's alone. Its path is not shown, for the same reason."""
    if path is None:
        return None
    path = path.expanduser()
    try:
        mode = path.stat().st_mode
        first = first_line(path)
    except OSError as error:
        raise ValueError(f"expected the path of a file that holds the passphrase, but it cannot be read: {error.strerror}") from error
    if mode & _OTHERS:
        raise ValueError(f"is a file that others may read or write (mode {stat.S_IMODE(mode):o}); change that with: chmod 600")
    _check(first)
    return path


def first_line(path: Path) -> bytes:
    """Return the first line of a file, without its end.

    Raises:
        OSError: It can't be read.
    """
    with path.open("rb") as stream:
        return stream.readline().rstrip(b"\r\n")


def _check(passphrase: bytes) -> None:
    if not passphrase or set(passphrase) & set(b"\r\n\0"):
        raise ValueError("names a passphrase that is empty or holds the end of a line")


Binary = Annotated[str, AfterValidator(_installed)]
Home = Annotated[Path | None, AfterValidator(_existing_home)]
Fingerprints = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_fingerprints)]
Variable = Annotated[str | None, AfterValidator(_set_variable)]
PrivateFile = Annotated[Path | None, AfterValidator(_private_file)]


class GpgStep(BasePreProcessor):
    """A step that runs gpg."""

    model_config = ConfigDict(hide_input_in_errors=True)

    gpg: Binary = Field(default="gpg", validate_default=True, exclude=True)
    """Name or path of the gpg program."""
    gnupghome: Home = Field(default=None, validate_default=True)
    """Folder of the keyrings; default: ``$GNUPGHOME``, or gpg's own default."""
    signer: Fingerprints = ()
    """Fingerprints of accepted signers, 40 hexadecimal digits each."""
    required: bool = True
    """Fail a file that is not encrypted or signed, instead of passing it on."""

    _tool: Tool = PrivateAttr()

    @model_validator(mode="after")
    def _gpg_runs(self) -> GpgStep:
        self._tool = Tool(self.gpg, self.gnupghome, self._secret_variables())
        return self

    def _secret_variables(self) -> set[str]:
        """Return the names of environment variables that gpg must not inherit."""
        return set()
