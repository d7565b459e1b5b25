"""The pre-processor ``gpg-decrypt``."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from dpp import FileData, StageError
from pydantic import Field, model_validator

from dpp_gpg.content import described
from dpp_gpg.options import Fingerprints, GpgStep, Home, PrivateFile, Variable, first_line
from dpp_gpg.packets import HEAD_BYTES, is_message
from dpp_gpg.verdicts import Limit, check_decrypted, check_limit

log = logging.getLogger("dpp.gpg")

SUFFIXES = {".gpg", ".pgp", ".asc"}
TELLING_SUFFIXES = {".gpg", ".pgp"}  # .asc may also be a signature or a key
DEFAULT_MAX_BYTES = 10 * 1024**3
# gpg decompresses a message to its end even after the limit for the plain text. A slow machine decompresses bzip2 faster than this
FEWEST_SECONDS, BYTES_PER_SECOND = 60, 4 * 1024 * 1024
RATIO_FLOOR = 16 * 1024 * 1024  # bytes; small files with repeated content compress by more than any useful ratio
UNFINISHED = "unfinished.tmp"


class GpgDecrypt(GpgStep):
    """Decrypt OpenPGP messages: ``x.csv.gpg`` becomes ``x.csv``.

    The message must be complete and have integrity protection; otherwise the file fails and no plain text is left. Without a
    passphrase option, the key must have no passphrase, or gpg-agent must have it.
    """

    name = "gpg-decrypt"
    version = "1"
    blames_input = frozenset(
        {f"gpg-{word}" for word in ("corrupt", "limit", "no-key", "not-encrypted", "signer", "truncated", "unprotected")}
    )

    # Excluded from the cache key: the place of keys and passphrases does not change the plain text
    gnupghome: Home = Field(default=None, validate_default=True, exclude=True)
    """Folder of the keyrings; default: ``$GNUPGHOME``, or gpg's own default."""
    passphrase_env: Variable = Field(default=None, exclude=True)
    """Name of the environment variable with the passphrase of the secret key or of the message."""
    passphrase_file: PrivateFile = Field(default=None, exclude=True)
    """Path of a file whose first line is the passphrase; only its owner may have access to it."""
    signer: Fingerprints = ()
    """Fingerprints of accepted signers, 40 hexadecimal digits each; if empty, signatures in messages are not checked."""
    required: bool = True
    """Whether a file that is not encrypted fails; if false, it stays unchanged, unless its name ends in ``.gpg`` or ``.pgp``."""
    max_bytes: int = Field(default=DEFAULT_MAX_BYTES, ge=1)
    """Maximum size of the plain text, in bytes."""
    max_ratio: float = Field(default=1000, ge=1, allow_inf_nan=False)
    """Maximum ratio of the size of the plain text to that of the message; up to 16 MiB are always allowed."""

    @model_validator(mode="after")
    def _options_agree(self) -> GpgDecrypt:
        if self.passphrase_env and self.passphrase_file:
            raise ValueError("passphrase_env and passphrase_file cannot be used together; remove one of them")
        # A file that is not encrypted has no signature in it, but would be accepted
        if self.signer and not self.required:
            raise ValueError("signer and required=false cannot be used together: unsigned files would be accepted; remove one of them")
        return self

    def pre_process(self, file: FileData) -> FileData:
        """Decrypt the file into its ``output_dir``, or return it unchanged; see the class."""
        assert file.local_path is not None
        assert file.output_dir is not None
        if not is_message(file.local_path):
            return self._unencrypted(file, file.local_path)
        target = file.output_dir / plain_name(file.local_path.name)
        self._decrypt(file.local_path, target)
        file.local_path, file.name = target, plain_name(file.name)
        if is_message(target) and target.suffix.lower() not in SUFFIXES:
            log.warning("%s: the decrypted file is encrypted once more; to decrypt it, too, list gpg-decrypt twice", file.id)
        return file

    def _unencrypted(self, file: FileData, path: Path) -> FileData:
        if self.required or path.suffix.lower() in TELLING_SUFFIXES:
            advice = "required=false accepts other files, except those whose name ends in .gpg or .pgp"
            raise StageError(f"expected an encrypted OpenPGP message, got {_described(path)}; {advice}", "gpg-not-encrypted")
        return file

    def _decrypt(self, source: Path, target: Path) -> None:
        unfinished = target.with_name(UNFINISHED)
        try:
            limit = self._limit(source.stat().st_size)
            output = self._tool.decrypt(source, unfinished, self._passphrase(), self._gpg_options(limit.most), limit.seconds)
            check_limit(output, limit)
            check_decrypted(output, source, unfinished.stat().st_size if unfinished.exists() else 0, self.signer)
            os.replace(unfinished, target)
        finally:
            unfinished.unlink(missing_ok=True)

    def _limit(self, packed: int) -> Limit:
        """Return the limit for the plain text of a message of this size, in bytes."""
        by_ratio = max(RATIO_FLOOR, int(packed * self.max_ratio))
        most = min(self.max_bytes, by_ratio)
        seconds = FEWEST_SECONDS + (packed + most) // BYTES_PER_SECOND
        return Limit(most, "max_bytes" if most == self.max_bytes else "max_ratio", seconds)

    def _gpg_options(self, most: int) -> list[str]:
        """Return the options of this step for gpg."""
        # Without signer, gpg must not check signatures: it would fail if it does not have the key of the sender
        return ["--max-output", str(most), *([] if self.signer else ["--skip-verify"])]

    def _passphrase(self) -> bytes | None:
        """Return the passphrase, or None if no option gives one."""
        # Read again for each file, so that no object keeps it
        try:
            if self.passphrase_env:
                return os.fsencode(os.environ[self.passphrase_env])
            return first_line(self.passphrase_file) if self.passphrase_file else None
        except (KeyError, OSError) as error:
            raise StageError(
                "cannot read the passphrase, which was readable at the start of the run; check passphrase_env or passphrase_file",
                "gpg-passphrase",
            ) from error

    def _secret_variables(self) -> set[str]:
        return {self.passphrase_env} if self.passphrase_env else set()


def plain_name(name: str) -> str:
    """Return a name without the suffix of an encrypted file.

    Example:
        >>> plain_name("x.csv.gpg")
        'x.csv'
    """
    stem, dot, suffix = name.rpartition(".")
    return stem if stem.strip(".") and f"{dot}{suffix}".lower() in SUFFIXES else name


def _described(path: Path) -> str:
    """Return a description of a file that is not an encrypted message."""
    if path.is_dir():
        return "a folder"
    with path.open("rb") as stream:
        return described(stream.read(HEAD_BYTES))
