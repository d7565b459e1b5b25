"""Run gpg with python-gnupg, and return its output."""

from __future__ import annotations

import copy
import io
import logging
import os
import resource
import subprocess
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import gnupg  # type: ignore[import-untyped]  # python-gnupg has no types

from dpp_gpg.output import GpgOutput

OLDEST = (2, 2, 8)  # in older versions, a message can forge status lines (CVE-2018-12020)
OPTIONS = ["--batch", "--trust-model", "always", "--no-auto-check-trustdb", "--no-auto-key-retrieve"]

# python-gnupg logs command lines, all output of gpg, and signatures; the error of a file has what matters
logging.getLogger("gnupg").setLevel(logging.CRITICAL)


class _Result(gnupg.StatusHandler):  # type: ignore[misc]  # see above
    """A handler without status lines; ``GpgOutput`` parses them from ``stderr`` afterwards."""


class _Gpg(gnupg.GPG):  # type: ignore[misc]  # see above
    result_map = {**gnupg.GPG.result_map, "crypt": _Result, "verify": _Result}  # noqa: RUF012 - declared like this by python-gnupg
    seconds: int | None = None
    _process: subprocess.Popen[bytes] | None = None

    def _open_subprocess(self, *args: Any, **options: Any) -> subprocess.Popen[bytes]:
        self._process = super()._open_subprocess(*args, **options)
        return self._process

    # python-gnupg's own method reads late, as it waits for 72 bytes. Its handlers raise on some lines, such as those of a key without
    # user id, and then gpg blocks forever on a full pipe. They also treat U+0085 as a line break, so that a user id with that
    # character could forge status lines.
    def _read_response(self, stream: Any, result: _Result) -> None:
        lines = []
        for line in iter(stream.stream.readline, b""):
            lines.append(line)
            # Not earlier: an agent that gpg starts would inherit the limit
            if line.startswith(b"[GNUPG:] BEGIN_DECRYPTION"):
                self._limit_processor_time()
        result.stderr = b"".join(lines).decode("latin-1")

    def _limit_processor_time(self) -> None:
        """End gpg with SIGXCPU when it has used the processor for ``seconds``."""
        if self.seconds is None or self._process is None:
            return
        with suppress(OSError):  # it has ended, or the machine does not allow it
            resource.prlimit(self._process.pid, resource.RLIMIT_CPU, (self.seconds, self.seconds + 5))


class Tool:
    """The installed gpg; each call starts a new process.

    Args:
        binary: Name or path of the program.
        home: Folder of the keyrings, or None for gpg's default.
        hidden: Names of environment variables that gpg, and an agent that it starts, must not inherit.

    Raises:
        ValueError: The program does not run, or is too old.
    """

    def __init__(self, binary: str, home: Path | None, hidden: Collection[str] = ()) -> None:
        kept = {name: value for name, value in os.environ.items() if name not in {*hidden, "LANGUAGE", "DEBUG_IPC"}}
        # In English, because some errors can be recognized by their log lines only
        environment = {**kept, "LC_ALL": "C.UTF-8"}
        try:
            self._gpg = _Gpg(gpgbinary=binary, gnupghome=home and os.fspath(home), options=OPTIONS, env=environment)
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot run {binary} as gpg; check it with: {binary} --list-config") from error
        if (self._gpg.version or ()) < OLDEST:
            raise ValueError(f"{binary} is not GnuPG {'.'.join(map(str, OLDEST))} or newer; install a newer version")

    def decrypt(self, source: Path, target: Path, passphrase: bytes | None, options: Collection[str], seconds: int) -> GpgOutput:
        """Decrypt a file.

        Args:
            source: The message.
            target: Path of the plain text, which must not exist yet; incomplete if gpg fails.
            passphrase: Passphrase of the key or of the message, or None for the one that gpg-agent remembers.
            options: More options for gpg.
            seconds: Maximum processor time.
        """
        # No batch may wait for a user who enters a passphrase
        asking = [] if passphrase else ["--pinentry-mode", "error"]
        # gpg opens both files itself, so that only the passphrase goes through a pipe
        runner = copy.copy(self._gpg)  # threads share the step
        runner.seconds = seconds
        result = runner.decrypt_file(
            io.BytesIO(),
            # python-gnupg encodes it as Latin-1 again
            passphrase=passphrase and passphrase.decode("latin-1"),
            output=os.fspath(target),
            extra_args=[*asking, *options, "--", os.path.abspath(source)],
        )
        return _output_of(result)

    def verify(self, signature: bytes, data: Path) -> GpgOutput:
        """Check a detached signature of a file."""
        return _output_of(self._gpg.verify_file(io.BytesIO(signature), data_filename=os.path.abspath(data)))


def _output_of(result: _Result) -> GpgOutput:
    return GpgOutput(result.stderr.encode("latin-1").decode("utf-8", "backslashreplace"), result.returncode)
