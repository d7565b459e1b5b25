"""The options of both steps, checked before anything is downloaded."""

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
    """Return fingerprints as a list; in luigi.cfg they are one text with commas."""
    return [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _fingerprints(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return fingerprints in gpg's form, without duplicates."""
    found = {"".join(value.split()).upper() for value in values}
    # Not the shorter key ids: anyone can make a key with a given id
    if not all(map(_FINGERPRINT.fullmatch, found)):
        raise ValueError("expected fingerprints of 40 hexadecimal digits, as gpg --fingerprint prints them")
    # Sorted because they are part of the cache key
    return tuple(sorted(found))


def _installed(binary: str) -> str:
    if not shutil.which(binary):
        raise ValueError(f"program {binary!r} not found; install GnuPG (apt-get install gnupg), or give the path of the program")
    return binary


def _existing_home(home: Path | None) -> Path | None:
    """Check the given folder, or else the one in ``$GNUPGHOME``."""
    named = os.environ.get(_HOME_VARIABLE)
    chosen = home.expanduser() if home else Path(named) if named else None
    if chosen is not None and not (chosen.is_dir() and os.access(chosen, os.R_OK | os.X_OK)):
        origin = "" if home else f"${_HOME_VARIABLE}: "
        raise ValueError(f"{origin}{chosen} is not a readable folder; expected the folder of the keyrings")
    return home and home.expanduser()


def _set_variable(name: str | None) -> str | None:
    """Check that an environment variable contains a passphrase."""
    # The message does not show the name: a user may have given the passphrase itself by mistake
    if name is not None and not (_VARIABLE.fullmatch(name) and name in os.environ):
        raise ValueError("expected the name of an environment variable that is set and contains the passphrase")
    if name is not None:
        _check(os.fsencode(os.environ[name]))
    return name


def _private_file(path: Path | None) -> Path | None:
    """Check that a file contains a passphrase and that only its owner has access."""
    # The messages do not show the path: a user may have given the passphrase itself by mistake
    if path is None:
        return None
    path = path.expanduser()
    try:
        mode = path.stat().st_mode
        first = first_line(path)
    except OSError as error:
        raise ValueError(f"expected the path of a file with the passphrase, but the file cannot be read: {error.strerror}") from error
    if mode & _OTHERS:
        raise ValueError(f"other users have access to the file (mode {stat.S_IMODE(mode):o}); restrict it with chmod 600")
    _check(first)
    return path


def first_line(path: Path) -> bytes:
    """Return the first line of a file, without the line break.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        return stream.readline().rstrip(b"\r\n")


def _check(passphrase: bytes) -> None:
    if not passphrase or set(passphrase) & set(b"\r\n\0"):
        raise ValueError("the passphrase is empty, or contains a line break or a NUL byte")


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
    """Whether a file that is not encrypted or signed fails."""

    _tool: Tool = PrivateAttr()

    @model_validator(mode="after")
    def _gpg_runs(self) -> GpgStep:
        self._tool = Tool(self.gpg, self.gnupghome, self._secret_variables())
        return self

    def _secret_variables(self) -> set[str]:
        """Return the names of environment variables that gpg must not inherit."""
        return set()
