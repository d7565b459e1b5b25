"""Running gpg, by way of python-gnupg, and handing back what it said."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Collection
from pathlib import Path

import gnupg  # type: ignore[import-untyped]  # it comes without types

from dpp_gpg.answer import Answer

OLDEST = (2, 2, 8)  # older ones can be made to write status lines of an attacker's choice (CVE-2018-12020)
OPTIONS = ["--batch", "--trust-model", "always", "--no-auto-check-trustdb", "--no-auto-key-retrieve"]

# python-gnupg logs command lines, all that gpg says, and signatures; what matters of it becomes the failure of a file.
logging.getLogger("gnupg").setLevel(logging.CRITICAL)


class _Heard(gnupg.StatusHandler):  # type: ignore[misc]  # see above
    """Leaves status lines to be read from ``stderr`` at the end.

    python-gnupg's own readers raise on some, such as those of a key without user id, and then gpg waits forever to be read. They also
    take U+0085 for the end of a line, so that a user id with that character in it could write status lines of its own.
    """

    def handle_status(self, key: str, value: str) -> None:
        """Ignore it."""


class _Gpg(gnupg.GPG):  # type: ignore[misc]  # see above
    result_map = {**gnupg.GPG.result_map, "crypt": _Heard, "verify": _Heard}  # noqa: RUF012 - as python-gnupg has it


class Tool:
    """The gpg of this machine. Each call is a process of its own; nothing is kept between calls.

    Args:
        binary: Name or path of the program.
        home: Folder of the keyrings; None leaves it to gpg.
        hidden: Names of environment variables that gpg, and an agent that it may start, must not see.

    Raises:
        ValueError: It does not run, or is too old.
    """

    def __init__(self, binary: str, home: Path | None, hidden: Collection[str] = ()) -> None:
        kept = {name: value for name, value in os.environ.items() if name not in {*hidden, "LANGUAGE", "DEBUG_IPC"}}
        environment = {**kept, "LC_ALL": "C.UTF-8"}  # log lines are read too
        try:
            self._gpg = _Gpg(gpgbinary=binary, gnupghome=home and os.fspath(home), options=OPTIONS, env=environment)
        except (OSError, ValueError) as error:
            raise ValueError(f"{binary} does not run as gpg should; try: {binary} --list-config") from error
        if (self._gpg.version or ()) < OLDEST:
            raise ValueError(f"{binary} is no GnuPG of version {'.'.join(map(str, OLDEST))} or newer; install a newer one")

    def decrypt(self, source: Path, target: Path, passphrase: bytes | None, options: Collection[str]) -> Answer:
        """Decrypt a file into another, which must not be there yet.

        gpg opens both files itself, so that only the passphrase goes through a pipe.

        Args:
            source: The message.
            target: Where the plain text goes; may be left incomplete where gpg fails.
            passphrase: Of the key or of the message; None leaves it to the agent, which may know it but is not to ask anybody.
            options: More options for gpg.
        """
        asking = [] if passphrase else ["--pinentry-mode", "error"]
        result = self._gpg.decrypt_file(
            io.BytesIO(),
            passphrase=passphrase and passphrase.decode("latin-1"),  # which python-gnupg encodes with again
            output=os.fspath(target),
            extra_args=[*asking, *options, "--", os.path.abspath(source)],
        )
        return _answer(result)

    def verify(self, signature: bytes, data: Path) -> Answer:
        """Check a detached signature of a file."""
        return _answer(self._gpg.verify_file(io.BytesIO(signature), data_filename=os.path.abspath(data)))


def _answer(result: _Heard) -> Answer:
    return Answer(result.stderr.encode("latin-1").decode("utf-8", "backslashreplace"), result.returncode)
